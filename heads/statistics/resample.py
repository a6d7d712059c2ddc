"""What is drawn in a bootstrap, and intervals and p-values from what comes of it.

Shapes: G genes, S trainings, R resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "draw_blocks", "draw_genes", "draw_seeds", "interval", "mean_over_tissues", "two_sided_p"]

Array = NDArray[np.float64]

_BLOCK = 256
"""Resamples at a time: enough for a matrix product, few enough for the cache of a processor."""
_DEFINED = 0.5
"""Of the resamples; with fewer that have a score there is no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A score and its 95% percentile interval; NaN where it is not defined, as for a single gene."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def draw_genes(n_genes: int, resamples: int, seed: int = 0) -> Array:
    """How often each gene is drawn with replacement: (R, G), every row sums to G."""
    return np.concatenate(list(draw_blocks(n_genes, resamples, seed)) or [np.zeros((0, n_genes))])


def draw_blocks(n_genes: int, resamples: int, seed: int = 0) -> Iterator[Array]:
    """``draw_genes`` in pieces of some rows, so that memory does not grow with the resamples."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        drawn = rng.integers(n_genes, size=(min(_BLOCK, resamples - start), n_genes))
        block = np.empty(drawn.shape)
        for row, genes in zip(block, drawn, strict=True):
            row[:] = np.bincount(genes, minlength=n_genes)
        yield block


def draw_seeds(n_seeds: int, resamples: int, seed: int = 0) -> Array:
    """The share that each training has of each resample: (R, S), every row sums to 1.

    It depends on nothing but the arguments: two comparisons with the same number of trainings draw the same.
    """
    if n_seeds == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng([seed, n_seeds])
    drawn = rng.integers(n_seeds, size=(resamples, n_seeds))
    shares: Array = (drawn[:, :, None] == np.arange(n_seeds)).mean(axis=1)
    return shares


def interval(estimate: float, draws: Array, n_genes: int) -> Interval:
    """The estimate with the 2.5th and 97.5th percentile of its resamples, (R,).

    Resamples without a score are left out; if half of them have none, or with one gene, there is no interval:
    one gene drawn again and again says nothing of others.
    """
    defined = draws[~np.isnan(draws)]
    if n_genes < 2 or np.isnan(estimate) or not len(defined) or len(defined) < _DEFINED * len(draws):
        return Interval(estimate=estimate, low=float("nan"), high=float("nan"))
    low, high = np.percentile(defined, [2.5, 97.5]).tolist()
    return Interval(estimate=estimate, low=low, high=high)


def two_sided_p(draws: Array, n_genes: int) -> float:
    """How often resamples fall on the other side of zero, twice; NaN where there is no interval.

    2 (1 + min(count <= 0, count >= 0)) / (R + 1), at most 1, so that 2,000 resamples go down to 0.001.
    """
    defined = draws[~np.isnan(draws)]
    if n_genes < 2 or not len(defined) or len(defined) < _DEFINED * len(draws):
        return float("nan")
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    return min(1.0, 2 * float(1 + tail) / (1 + len(defined)))


def mean_over_tissues(scores: Array) -> Array:
    """Mean over the last axis where a score is defined; NaN if none is."""
    defined = ~np.isnan(scores)
    count = defined.sum(axis=-1)
    means: Array = np.where(count > 0, np.nansum(scores, axis=-1) / np.maximum(count, 1), np.nan)
    return means
