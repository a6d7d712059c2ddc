"""What a build makes of one encoder pass: each product is a store of its own, for a layer, a pooling, a precision."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.pooling import count_pooled, pool_rows
from embedcache.encoders.spec import EncoderSpec
from embedcache.place import Place
from embedcache.store.disk import disk_errors
from embedcache.store.files import Files, open_files
from embedcache.store.layout import Array, Layout
from embedcache.store.mean import settle_mean
from embedcache.store.numbers import RoundingError, encode_rows
from embedcache.store.read import EmbeddingStore

__all__ = ["Product", "task_tokens"]

MOST_TASK_TOKENS = 1 << 20
"""Also where all rows are pooled and a shard could hold far more: what a killed worker loses at most."""
TASKS_A_WORKER = 4


@dataclass(slots=True)
class Product:
    """One store of a build."""

    spec: EncoderSpec
    root: Place
    layout: Layout | None = None
    """Known once the store was made."""
    present: EmbeddingStore | None = None
    """What was committed when the build began."""
    _mean: NDArray[np.float32] | None = None
    rounding: RoundingError = field(init=False)

    def __post_init__(self) -> None:
        self.rounding = RoundingError(self.spec.store_dtype)

    @property
    def files(self) -> Files:
        """The files of the store."""
        return open_files(self.root)

    def n_rows(self, n_tokens: int) -> int:
        """Rows of a sequence of so many tokens."""
        return count_pooled(n_tokens, self.spec.pooling)

    def longest_rows(self, n_tokens: int) -> int:
        """Most rows of a sequence to come, now or in a later build, if the longest at hand has so many tokens."""
        limit = self.spec.max_tokens if self.spec.crop != "windows" else 0
        return self.n_rows(max(n_tokens, limit))

    def settle(self, rows: Sequence[NDArray[np.float32]]) -> None:
        """Before the first sequence is rounded: an int8 store needs a channel mean, from the first rows at hand."""
        if self.spec.store_dtype == "int8" and self._mean is None and any(len(one) for one in rows):
            assert self.layout is not None
            pooled = [pool_rows(one, self.spec.pooling) for one in rows]
            with disk_errors(self.root):
                self._mean = settle_mean(self.files, self.layout, pooled)
            self.rounding = RoundingError(self.spec.store_dtype, self._mean)

    def stored(self, rows: NDArray[np.float32]) -> Array:
        """Token embeddings (T, width) of a sequence as this store holds them.

        Raises:
            CacheError: A number does not fit the stored type.
        """
        pooled = pool_rows(rows, self.spec.pooling)
        encoded = encode_rows(pooled, self.spec.store_dtype, self._mean, encoder=self.spec.name)
        if self.spec.store_dtype != "float32":
            self.rounding.add(pooled, encoded)
        return encoded

    def take_rounding(self) -> dict[str, Any]:
        """What rounding has cost since the last call, for the header of a record."""
        found, self.rounding = self.rounding, RoundingError(self.spec.store_dtype, self._mean)
        return {} if self.spec.store_dtype == "float32" else {"rounding": found.to_json()}


def task_tokens(products: Sequence[Product], total_tokens: int, workers: int = 1) -> int:
    """Tokens of a task: those of one shard, fewer where several workers share little work.

    Args:
        products: With their layouts.
        total_tokens: Of all sequences to embed.
        workers: How many processes are expected to share them.
    """
    assert all(product.layout is not None for product in products)
    shards = [p.layout.shard_rows for p in products if p.layout is not None and p.spec.pooling == "none"]
    most = min([MOST_TASK_TOKENS, *shards])
    if workers == 1:
        return most
    return max(1, min(most, -(-total_tokens // (workers * TASKS_A_WORKER))))
