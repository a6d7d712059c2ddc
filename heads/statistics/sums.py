"""Sums over genes that R2 and Spearman need, and the scores of weighted genes.

A resample of genes is a vector of gene counts, and all resamples are one matrix product:

    sums of a gene   n, sum y, sum y^2, and for R2 sum (y - p)^2; for Spearman sum p, sum p^2, sum y p of ranks
    resamples        W (R, G): how often each gene was drawn
    R2               1 - (W sse) / (W syy - (W sy)^2 / W n)

Spearman is Pearson's correlation of ranks taken once, over all rows; ranks taken anew in each resample give the same
interval to the third figure, at a thousand times the cost. What comes from the targets alone is summed once for all
models, and each model has a matrix product of its own, whatever its company.

Shapes: N rows, K tissues, G genes (or other groups of rows), S trainings with different seeds, R resamples.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["GeneSums", "Metric", "Moments", "TargetSums", "centred_ranks", "sum_by_gene"]

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Metric = Literal["r2", "spearman"]


class Moments(NamedTuple):
    """Of the targets of each resample and tissue, (R, K)."""

    n: Array
    """Measured rows, NaN where there are none; (R, 1) if every tissue has the same."""
    y: Array
    """Their sum."""
    variation: Array
    """Sum of squares around their mean; NaN where they do not vary."""


@dataclass(frozen=True, slots=True)
class TargetSums:
    """What all models share: targets or their ranks, around their mean, and their sums over genes."""

    metric: Metric
    genes: Ints
    """(N,)"""
    n_genes: int
    measured: Bools
    """(N, K)"""
    values: Array
    """Centred targets or ranks, 0 where not measured, (N, K)."""
    shift: Array
    """What was taken off the targets, (K,); 0 for ranks."""
    sums: Array
    """Of n, y and y^2, side by side: (G, 1 + 2 K) if every tissue has the same measured rows, else (G, 3 K)."""

    @classmethod
    def collect(cls, metric: Metric, targets: Array, genes: Ints) -> "TargetSums":
        """Sum over the rows of each gene.

        Args:
            metric: ``r2`` or ``spearman``.
            targets: (N, K), NaN where not measured.
            genes: (N,) gene numbers 0 .. G - 1.
        """
        measured = ~np.isnan(targets)
        shift = np.zeros(targets.shape[1])
        if metric == "r2":
            # a shift leaves R2 alone and keeps rounding errors small
            shift = np.where(measured, targets, 0.0).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
            values = np.where(measured, targets - shift, 0.0)
        else:
            values = np.where(measured, centred_ranks(targets), 0.0)
        n_genes = int(genes.max()) + 1 if len(genes) else 0
        alike = (measured == measured[:, :1]).all()
        counts = (measured[:, :1] if alike else measured).astype(np.float64)
        sums = sum_by_gene(np.hstack([counts, values, values * values]), genes, n_genes)
        return cls(metric, genes, n_genes, measured, values, shift, sums)

    def moments(self, weighted: Array) -> Moments:
        """Of every resample, given the sums weighted with how often it has each gene: ``weights @ sums``."""
        tissues = self.values.shape[1]
        n, y, yy = np.split(weighted, [-2 * tissues, -tissues], axis=1)
        n = np.where(n > 0, n, np.nan)
        return Moments(n, y, _variation(n, y, yy))


@dataclass(frozen=True, slots=True)
class GeneSums:
    """What a metric needs of each gene, of one model with one training or several."""

    targets: TargetSums
    sums: Array
    """(G, P * S * K): P is 1 for R2, 3 for Spearman."""
    shape: tuple[int, ...]
    """(P, K) of one training, (P, S, K) of several."""

    @classmethod
    def collect(cls, metric: Metric, targets: Array, predictions: Array, genes: Ints) -> "GeneSums":
        """Sum over the rows of each gene.

        Args:
            metric: ``r2`` or ``spearman``.
            targets: (N, K), NaN where not measured.
            predictions: (N, K), or (S, N, K) of several trainings.
            genes: (N,) gene numbers 0 .. G - 1.
        """
        return cls.of(TargetSums.collect(metric, targets, genes), predictions)

    @classmethod
    def of(cls, targets: TargetSums, predictions: Array) -> "GeneSums":
        """Sum over the rows of each gene, with what is known of the targets; predictions (N, K) or (S, N, K)."""
        columns = []
        for p in predictions.reshape(-1, *predictions.shape[-2:]):
            columns.append(_terms(targets, p))  # P arrays (N, K)
        parts = [sum_by_gene(seed[part], targets.genes, targets.n_genes) for part in range(len(columns[0]))
                 for seed in columns]  # fmt: skip
        shape = (len(columns[0]), *predictions.shape[:-2], predictions.shape[-1])
        return cls(targets, np.hstack(parts), shape)

    def score(self, weights: Array) -> Array:
        """The metric of every resample: (R, G) to (R, K), or (R, S, K); NaN where it is not defined.

        Args:
            weights: How often each resample has each gene.
        """
        return self.scores(weights @ self.sums, self.targets.moments(weights @ self.targets.sums))

    def scores(self, weighted: Array, moments: Moments) -> Array:
        """``score``, given ``weights @ sums`` and the moments of the targets with the same weights."""
        n, y, variation = moments
        if len(self.shape) == 3:
            n, y, variation = n[:, None], y[:, None], variation[:, None]  # (R, 1, K)
        found = weighted.reshape(len(weighted), *self.shape)  # (R, P, ..., K)
        if self.targets.metric == "r2":
            return np.asarray(1 - found[:, 0] / variation)
        p, pp, yp = found[:, 0], found[:, 1], found[:, 2]
        return np.asarray((yp - y * p / n) / np.sqrt(variation * _variation(n, p, pp)))


def sum_by_gene(values: Array, genes: Ints, n_genes: int) -> Array:
    """(N, C) to (G, C)."""
    rows = np.arange(len(genes))
    membership = sparse.csr_array((np.ones(len(genes)), (genes, rows)), shape=(n_genes, len(genes)))
    return np.asarray(membership @ values)


def centred_ranks(x: Array) -> Array:
    """Average ranks of each column over its rows that are not NaN, shifted to mean zero; NaN stays NaN. (N, K)."""
    columns = np.ascontiguousarray(x.T)  # sorting is several times as fast along memory
    tissues, rows = columns.shape
    order = columns.argsort(axis=1)  # NaN last
    order += rows * np.arange(tissues)[:, None]  # places in the flat array, which is quick to index
    ordered = columns.ravel()[order]
    is_first = np.ones(ordered.shape, dtype=bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    unmeasured = np.isnan(columns)
    n = rows - unmeasured.sum(axis=1)
    ranks = np.empty(columns.size)
    if is_first.all():
        ranks[order] = np.arange(rows) - (n[:, None] - 1) / 2
    else:
        starts = np.flatnonzero(is_first)  # of runs of equal values, over all columns
        lengths = np.diff(starts, append=is_first.size)
        # equal values from position a to a + m - 1, counted from 0, share the rank a + (m + 1) / 2
        rank = starts % rows + (lengths - n[starts // rows]) / 2
        ranks[order.ravel()] = np.repeat(rank, lengths)
    ranks[unmeasured.ravel()] = np.nan
    return np.asarray(ranks.reshape(columns.shape).T)


def _terms(targets: TargetSums, predictions: Array) -> list[Array]:
    """What is summed of one training, each (N, K); a measured row whose prediction is NaN stays NaN."""
    if targets.metric == "r2":
        return [np.where(targets.measured, (targets.values - (predictions - targets.shift)) ** 2, 0.0)]
    ranks = centred_ranks(np.where(targets.measured, predictions, np.nan))
    p = np.where(targets.measured, ranks, 0.0)
    return [p, p * p, targets.values * p]


def _variation(n: Array, total: Array, squares: Array) -> Array:
    """Sum of squares around the mean; NaN where it is no more than rounding."""
    variation = squares - total**2 / n
    return np.where(variation > 1e-12 * (n + squares), variation, np.nan)
