"""Fewer rows for a sequence: the mean of its tokens, or as many as ``n`` means of neighbouring ones.

Sums run in float64 over the rows of one sequence in their order, so that a pooled row is the same whatever
the batch, and rounds to float32 once.
"""

import re

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidSettingError

__all__ = ["count_pooled", "most_pooled", "pool_rows"]


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


def pool_rows(rows: NDArray[np.float32], rule: str) -> NDArray[np.float32]:
    """Pool the rows of one sequence.

    Args:
        rows: (T, D), tokens of the sequence only.
        rule: ``none``; ``mean``: one row; ``adaptive-<n>``: unchanged up to n rows, else n means, the i-th
            over the rows from ``floor(i * T / n)`` up to ``ceil((i + 1) * T / n)``, as adaptive average pooling
            of torch. Neighbours share a row where n does not divide T.

    Returns:
        (``count_pooled(T, rule)``, D) in float32.
    """
    wanted, tokens = count_pooled(len(rows), rule), len(rows)
    if wanted == tokens:
        return rows
    exact = np.ascontiguousarray(rows).astype(np.float64)  # C order: numpy then adds row after row
    pooled = np.empty((wanted, rows.shape[1]), np.float32)
    for i in range(wanted):
        start, stop = i * tokens // wanted, -(-(i + 1) * tokens // wanted)
        pooled[i] = np.add.reduce(exact[start:stop], axis=0) / (stop - start)
    return pooled
