"""Cutting work into batches and tasks by tokens, never by number of sequences."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_length", "cut_by_tokens"]

Indices = NDArray[np.int64]


def by_length(n_tokens: NDArray[np.int64], keys: list[bytes]) -> Indices:
    """Order of embedding: longest first, equal lengths by key, so that the order of the input means nothing.

    Longest first: an out-of-memory failure shows up in the first batch, and equal lengths share a call.
    """
    return np.array(sorted(range(len(keys)), key=lambda i: (-n_tokens[i], keys[i])), np.int64)


def cut_by_tokens(order: Indices, n_tokens: NDArray[np.int64], budget: int) -> Iterator[Indices]:
    """Consecutive pieces of ``order`` of at most ``budget`` tokens each, or of one sequence that is longer."""
    first = used = 0
    for i, tokens in enumerate(n_tokens[order].tolist()):
        if i > first and used + tokens > budget:
            yield order[first:i]
            first, used = i, 0
        used += tokens
    if first < len(order):
        yield order[first:]
