"""Where token embeddings come from. Here: the stores of a cache, one a modality.

A source knows the rows of one dataset. Shapes: N packed tokens, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.dataset import Dataset
from embedcache.errors import CacheIncompleteError, InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.place import Place
from embedcache.ragged import Ragged
from embedcache.sequences import MODALITIES, Modality
from embedcache.store import EmbeddingStore, find_store
from heads.mending import how_to_fill
from heads.pooling import mean_tokens

__all__ = ["AbsentSource", "CachedSource", "TokenSource", "open_sources"]

Rows = NDArray[np.int64]

_POOL_TOKENS = 65_536  # tokens in memory at a time while means are taken


class TokenSource(Protocol):
    """Token embeddings of one modality for the rows of a dataset."""

    width: int
    """Numbers a token."""
    lengths: Rows
    """Tokens of each row of the dataset; 0 where it lacks the modality."""

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows, to be decoded."""
        ...

    def stream(self, parts: Sequence[Rows]) -> Iterator[Ragged]:
        """Tokens of one part after the other, to be decoded; each is valid until the next is asked for."""
        ...

    def decode(self, values: Tensor) -> Tensor:
        """Numbers (N, D) of what ``packed`` and ``stream`` give, on the device where they are."""
        ...

    def means(self) -> Tensor:
        """Mean over tokens of every row of the dataset, float32 (rows, D); zeros where it lacks the modality."""
        ...


class CachedSource:
    """Reads a store.

    Args:
        store: Embeddings by sequence key.
        keys: Key of each row of the dataset, None where it lacks the modality.
        mend: A sentence for the error: how to bring in what is missing.

    Raises:
        CacheIncompleteError: Sequences of the dataset are not in the store.
    """

    def __init__(self, store: EmbeddingStore, keys: Sequence[bytes | None], mend: str) -> None:
        self.store = store
        self.width = store.width
        self._settings = store, keys, mend
        present = np.array([key is not None for key in keys], dtype=bool)
        self.positions: Rows = np.full(len(keys), -1, dtype=np.int64)
        self.positions[present] = store.find([key for key in keys if key is not None])
        lost = {key for key, position in zip(keys, self.positions, strict=True) if key is not None and position < 0}
        if lost:
            total = len({key for key in keys if key is not None})
            raise CacheIncompleteError(
                f"{store.root} lacks {len(lost)} of {total} {store.spec.modality} sequences of this dataset. {mend}"
            )
        self.lengths: Rows = np.zeros(len(keys), dtype=np.int64)
        self.lengths[present] = store.lengths[self.positions[present]]
        self._means: Tensor | None = None

    def __reduce__(self) -> tuple[type["CachedSource"], tuple[EmbeddingStore, Sequence[bytes | None], str]]:
        return CachedSource, self._settings  # not positions: where it is opened again, the store may have grown

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows as stored, (N, columns)."""
        return self.store.packed(self.positions[rows])

    def stream(self, parts: Sequence[Rows]) -> Iterator[Ragged]:
        """Tokens of one part after the other, read ahead by a thread into reused memory."""
        return self.store.prefetch([self.positions[rows] for rows in parts])

    def decode(self, values: Tensor) -> Tensor:
        """Embeddings (N, D) of rows as stored: float32 of int8, so that a quarter of the bytes travels to a device."""
        return self.store.decode(values)

    def means(self) -> Tensor:
        """Mean over tokens of every row, (rows, D). Each sequence is read once, then means stay in memory."""
        if self._means is None:
            distinct, where = np.unique(self.positions, return_inverse=True)  # -1, a missing one, comes first
            ends = np.cumsum(np.where(distinct >= 0, self.store.lengths[distinct], 0)) // _POOL_TOKENS
            parts = np.split(distinct, np.flatnonzero(np.diff(ends)) + 1)
            read = (tokens._replace(values=self.decode(tokens.values)) for tokens in self.store.prefetch(parts))
            # copied: one-token sequences come back as they lie in the reused memory
            pooled = torch.cat([mean_tokens(tokens).clone() for tokens in read])
            self._means = pooled[torch.from_numpy(where)]
        return self._means


class AbsentSource:
    """A modality that a model reads and no row of the dataset has."""

    def __init__(self, width: int, n_rows: int) -> None:
        self.width = width
        self.lengths: Rows = np.zeros(n_rows, dtype=np.int64)

    def packed(self, rows: Rows) -> Ragged:
        """No tokens for any row."""
        return Ragged(torch.zeros(0, self.width), torch.zeros(len(rows) + 1, dtype=torch.int64))

    def stream(self, parts: Sequence[Rows]) -> Iterator[Ragged]:
        """No tokens for any row of any part."""
        return (self.packed(rows) for rows in parts)

    def decode(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def means(self) -> Tensor:
        """Zeros, (rows, D)."""
        return torch.zeros(len(self.lengths), self.width)


def open_sources(
    dataset: Dataset, cache: str | Place, modalities: Sequence[Modality], encoders: Mapping[Modality, str] | None = None
) -> dict[Modality, CachedSource]:
    """Open the store of each modality.

    Args:
        dataset: Whose rows will be read.
        cache: Root of the cache.
        modalities: What a model reads; the dataset must have them.
        encoders: Encoder of a modality by name, or by name and digest; else the dataset's default, else the only
            one that was built.

    Raises:
        InvalidInputError: The dataset has no sequence of a modality.
        InvalidSettingError: ``encoders`` names one for a modality that is not read.
        UnknownNameError: ``encoders`` names something that is no modality, or an encoder that was not built.
        CacheError: No store, several that fit, or one that lacks sequences.
    """
    encoders = encoders or {}
    for name in encoders:
        if name not in MODALITIES:
            raise UnknownNameError("modality", name, MODALITIES)
        if name not in modalities:
            raise InvalidSettingError(
                f"An encoder is named for {name}, which is not read. Add it to --modalities, or leave it out."
            )
    sources: dict[Modality, CachedSource] = {}
    for modality in modalities:
        if modality not in dataset.modalities:
            raise InvalidInputError(
                f"{dataset.path} has no {modality} sequences, only {', '.join(dataset.modalities)}. "
                f"Use --modalities {','.join(m for m in modalities if m in dataset.modalities) or 'with one of them'}."
            )
        chosen = encoders.get(modality) or dataset.encoder(modality)
        store = EmbeddingStore.open(find_store(cache, modality, chosen))
        sources[modality] = CachedSource(store, dataset.keys(modality), how_to_fill(store.spec, dataset.path, cache))
    return sources
