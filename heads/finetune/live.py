"""Tokens that an encoder computes when they are asked for, in place of a store.

Shapes: B samples, N packed tokens, D width, R rows and C columns of a summary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from embedcache.dataset import Dataset
from embedcache.encoders.spec import EncoderSpec
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from embedcache.store import EmbeddingStore
from heads.data import Batch
from heads.finetune.encoder import TunedEncoder
from heads.sources import CachedSource, Rows
from heads.summaries import summarise

__all__ = ["InnerSource", "LiveRows", "LiveSource", "RowsOnly", "cropped_sequences"]

_AT_ONCE = 64  # sequences of a summary that are embedded at a time


def cropped_sequences(dataset: Dataset, modality: Modality, spec: EncoderSpec) -> tuple[list[str], Rows]:
    """The distinct sequences of a dataset as an encoder reads them, and which one each row has, -1 for none."""
    numbers: dict[bytes, int] = {}
    sequences: list[str] = []
    for key, sequence in dataset.sequences(modality):
        cropped = spec.cropped(sequence)
        if spec.n_rows(sequence):
            numbers[key] = len(sequences)
            sequences.append(cropped)
    which = [-1 if key is None else numbers.get(key, -1) for key in dataset.keys(modality)]
    return sequences, np.array(which, dtype=np.int64)


class LiveRows:
    """What a trained encoder makes of rows of a dataset, each distinct sequence of a call once, open to gradients."""

    def __init__(self, encoder: TunedEncoder, dataset: Dataset, modality: Modality) -> None:
        self.encoder = encoder
        self.sequences, self.which = cropped_sequences(dataset, modality, encoder.spec)
        counts = np.array([*(encoder.spec.n_rows(one) for one in self.sequences), 0], dtype=np.int64)
        self.lengths: Rows = counts[self.which]
        """Tokens of each row of the dataset, special ones left out."""

    def __call__(self, rows: Rows) -> Ragged:
        """Tokens of some rows, float32 (N, D) on the device of the encoder."""
        wanted = self.which[rows]
        distinct, where = np.unique(wanted[wanted >= 0], return_inverse=True)
        if not len(distinct):
            self.encoder.rest()
            device = next(self.encoder.model.parameters()).device
            return Ragged(torch.zeros(0, self.encoder.spec.width, device=device), torch.zeros(len(rows) + 1).long())
        found = self.encoder.embed([self.sequences[i] for i in distinct]).to_list()
        none = found[0][:0]
        places = iter(where.tolist())
        return Ragged.from_list([none if number < 0 else found[next(places)] for number in wanted.tolist()])


class LiveSource:
    """A ``TokenSource`` that runs an encoder, whose weights stay as they are, for every batch."""

    tokens_only = False

    def __init__(self, tokens: LiveRows) -> None:
        self.tokens, self.width, self.lengths = tokens, tokens.encoder.spec.width, tokens.lengths

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows, (N, D)."""
        with torch.inference_mode():
            return self.tokens(rows)

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other."""
        return (self.packed(rows) for rows in parts)

    def decode(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def summaries(self, reads: str) -> Tensor:
        """A summary of every row, (rows, R, C), computed anew at each call."""
        rows = np.arange(len(self.lengths), dtype=np.int64)
        parts = np.split(rows, np.arange(_AT_ONCE, len(rows), _AT_ONCE))
        return torch.cat([summarise(self.packed(part), reads).cpu() for part in parts])


class RowsOnly:
    """Stands for a ``TokenSource`` in batches whose tokens the run computes itself: it knows lengths and no numbers."""

    tokens_only = True

    def __init__(self, tokens: LiveRows) -> None:
        self.width, self.lengths = tokens.encoder.spec.width, tokens.lengths

    def packed(self, rows: Rows) -> Ragged:
        """Rows without columns, (N, 0)."""
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(self.lengths[rows])]))
        return Ragged(torch.zeros(int(offsets[-1]), 0), offsets)

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Rows without columns of one part after the other."""
        return (self.packed(rows) for rows in parts)

    def decode(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def summaries(self, reads: str) -> Tensor:
        """Never asked for."""
        raise NotImplementedError("tokens that are trained through have no summaries")


class InnerSource(CachedSource):
    """Rows of an inner layer, special tokens among them, from which a run computes tokens itself."""

    tokens_only = True

    def __init__(self, store: EmbeddingStore, keys: Sequence[bytes | None], mend: str) -> None:
        super().__init__(store, keys, mend)
        self.lengths = np.maximum(self.lengths - sum(store.spec.kept_special), 0)

    def tokens(self, encoder: TunedEncoder, batch: Batch, name: str) -> Ragged:
        """Tokens of a batch behind the blocks that are left, float32 (N, D), special ones dropped."""
        stored = batch.tokens[name]
        present = [part for part in stored.to_list() if len(part)]
        if not present:
            encoder.rest(self.store.spec.layer)
            return stored
        found = iter(encoder.finish(Ragged.from_list(present), self.store.spec.layer).to_list())
        return Ragged.from_list([part if not len(part) else next(found) for part in stored.to_list()])
