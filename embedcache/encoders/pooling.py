"""Fewer rows for a sequence: the mean of its tokens, or as many as ``n`` means of neighbouring ones.

Sums run in float64 over the rows of one sequence in their order, so that a pooled row is the same whatever
the batch, and rounds to float32 once.
"""

import re

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidSettingError

__all__ = ["count_pooled", "most_pooled", "pool_rows", "pooled_tokens"]


def most_pooled(rule: str) -> int | None:
    """Most rows that a rule leaves of a sequence; None for no limit.

    Raises:
        InvalidSettingError: The rule is not ``none``, ``mean`` or ``adaptive-<rows>``.
    """
    if rule == "none":
        return None
    if rule == "mean":
        return 1
    if found := re.fullmatch("adaptive-([1-9][0-9]{0,8})", rule):
        return int(found[1])
    raise InvalidSettingError(
        f"Pooling {rule!r} is not known. Choose none, mean, or adaptive-<most rows a sequence>, such as adaptive-128."
    )


def count_pooled(n_tokens: int, rule: str) -> int:
    """Rows that a sequence of ``n_tokens`` has after pooling: none for no tokens."""
    most = most_pooled(rule)
    return n_tokens if most is None else min(n_tokens, most)


def pooled_tokens(n_tokens: int, rule: str) -> NDArray[np.int64]:
    """Tokens [start, stop) that each row is the mean of, shape (``count_pooled``, 2).

    Of n rows over T tokens the i-th has those from ``floor(i * T / n)`` up to ``ceil((i + 1) * T / n)``, as adaptive
    average pooling of torch. Neighbours share a token where n does not divide T.
    """
    rows = count_pooled(n_tokens, rule)
    i = np.arange(rows, dtype=np.int64)
    return np.stack([i * n_tokens // max(rows, 1), -(-(i + 1) * n_tokens // max(rows, 1))], axis=1)


def pool_rows(rows: NDArray[np.float32], rule: str) -> NDArray[np.float32]:
    """Pool the rows of one sequence.

    Args:
        rows: (T, D), tokens of the sequence only.
        rule: ``none``; ``mean``: one row; ``adaptive-<n>``: unchanged up to n rows, else n means, see
            ``pooled_tokens``.

    Returns:
        (``count_pooled(T, rule)``, D) in float32.
    """
    if count_pooled(len(rows), rule) == len(rows):
        return rows
    bounds = pooled_tokens(len(rows), rule)
    exact = np.ascontiguousarray(rows).astype(np.float64)  # C order: numpy then adds row after row
    pooled = np.empty((len(bounds), rows.shape[1]), np.float32)
    for i, (start, stop) in enumerate(bounds.tolist()):
        pooled[i] = np.add.reduce(exact[start:stop], axis=0) / (stop - start)
    return pooled
