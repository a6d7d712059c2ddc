"""Where token embeddings come from. Here: the stores of a cache, one a modality.

A source knows the rows of one dataset. Shapes: N packed tokens, D width.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.errors import CacheIncompleteError
from embedcache.ragged import Ragged
from embedcache.store import EmbeddingStore
from heads.pooling import summarise

__all__ = ["AbsentSource", "CachedSource", "TokenSource"]

Rows = NDArray[np.int64]

_POOL_TOKENS = 65_536  # tokens in memory at a time while means are taken


class TokenSource(Protocol):
    """Token embeddings of one modality for the rows of a dataset."""

    width: int
    """Numbers a token."""
    lengths: Rows
    """Tokens of each row of the dataset; 0 where it lacks the modality."""
    tokens_only: bool
    """Whether batches hold its tokens even where a model reads summaries."""

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows, to be decoded."""
        ...

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other, to be decoded; each is valid until the next is asked for.

        ``pinned`` says that they go to a GPU: where memory is used again, it is locked for that.
        """
        ...

    def decode(self, values: Tensor) -> Tensor:
        """Numbers (N, D) of what ``packed`` and ``stream`` give, on the device where they are."""
        ...

    def summaries(self, reads: str) -> Tensor:
        """A summary of the tokens of every row of the dataset, float32 (rows, R, C); see ``heads.pooling.summarise``.

        Zeros where it lacks the modality. Each sequence is read once; then summaries stay in memory.
        """
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

    tokens_only = False

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
        self._summaries: dict[str, Tensor] = {}

    def __reduce__(self) -> tuple[type["CachedSource"], tuple[EmbeddingStore, Sequence[bytes | None], str]]:
        return CachedSource, self._settings  # not positions: where it is opened again, the store may have grown

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows as stored, (N, columns)."""
        return self.store.packed(self.positions[rows])

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other, read ahead by a thread into reused memory."""
        return self.store.prefetch([self.positions[rows] for rows in parts], pinned=pinned)

    def decode(self, values: Tensor) -> Tensor:
        """Embeddings (N, D) of rows as stored: float32 of int8, so that a quarter of the bytes travels to a device."""
        return self.store.decode(values)

    def means(self) -> Tensor:
        """Mean over tokens of every row, (rows, D)."""
        return self.summaries("means")[:, 0]

    def summaries(self, reads: str) -> Tensor:
        """A summary of every row, (rows, R, C). Each sequence is read once, then summaries stay in memory."""
        if reads not in self._summaries:
            distinct, where = np.unique(self.positions, return_inverse=True)  # -1, a missing one, comes first
            ends = np.cumsum(np.where(distinct >= 0, self.store.lengths[distinct], 0)) // _POOL_TOKENS
            parts = np.split(distinct, np.flatnonzero(np.diff(ends)) + 1)
            read = (tokens._replace(values=self.decode(tokens.values)) for tokens in self.store.prefetch(parts))
            # copied: one-token sequences come back as they lie in the reused memory
            pooled = torch.cat([summarise(tokens, reads).clone() for tokens in read])
            self._summaries[reads] = pooled[torch.from_numpy(where)]
        return self._summaries[reads]


class AbsentSource:
    """A modality that a model reads and no row of the dataset has."""

    tokens_only = False

    def __init__(self, width: int, n_rows: int) -> None:
        self.width = width
        self.lengths: Rows = np.zeros(n_rows, dtype=np.int64)

    def packed(self, rows: Rows) -> Ragged:
        """No tokens for any row."""
        return Ragged(torch.zeros(0, self.width), torch.zeros(len(rows) + 1, dtype=torch.int64))

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """No tokens for any row of any part."""
        return (self.packed(rows) for rows in parts)

    def decode(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def summaries(self, reads: str) -> Tensor:
        """Zeros, (rows, R, C)."""
        return torch.zeros(len(self.lengths), *summarise(self.packed(np.zeros(1, np.int64)), reads).shape[1:])
