"""Several layers of one encoder read as one source: the numbers of a token side by side.

Shapes: N packed tokens, D width of a layer, L layers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.errors import CacheMismatchError
from embedcache.ragged import Ragged
from heads.sources import CachedSource

__all__ = ["LayeredSource"]

Rows = NDArray[np.int64]


class LayeredSource:
    """See ``TokenSource``; values are (N, L * D), layer after layer.

    Args:
        layers: Sources of the same rows, one a layer.

    Raises:
        CacheMismatchError: Their widths or the lengths of a sequence differ.
    """

    tokens_only = False

    def __init__(self, layers: Sequence[CachedSource]) -> None:
        first = layers[0]
        for other in layers[1:]:
            if other.width != first.width or not np.array_equal(other.lengths, first.lengths):
                raise CacheMismatchError(
                    f"{other.store.root} has not the width and the tokens of {first.store.root}. "
                    "Mix layers of one encoder that were built with the same settings."
                )
        self.layers = list(layers)
        self.width = first.width
        self.lengths: Rows = first.lengths

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows, decoded."""
        return self._together([layer.packed(rows) for layer in self.layers])

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other, decoded; every layer is read ahead."""
        for layers in zip(*(layer.stream(parts) for layer in self.layers), strict=True):
            yield self._together(layers)

    def decode(self, values: Tensor) -> Tensor:
        """The values: they come decoded."""
        return values

    def summaries(self, reads: str) -> Tensor:
        """A summary of every row, (rows, R, C). Largest values and means of all layers side by side."""
        found = [layer.summaries(reads) for layer in self.layers]
        if found[0].shape[-1] == 2 * self.width:  # the first vectors (such as largest values) of all layers come first
            halves = [part.chunk(2, dim=-1) for part in found]
            return torch.cat([*(largest for largest, _ in halves), *(means for _, means in halves)], dim=-1)
        return torch.cat(found, dim=-1)

    def _together(self, layers: Sequence[Ragged]) -> Ragged:
        values = [layer.decode(part.values).float() for layer, part in zip(self.layers, layers, strict=True)]
        return Ragged(torch.cat(values, dim=-1), layers[0].offsets)
