"""How sure a score is: intervals from resampling genes, because the transcripts of a gene are alike.

A metric of a resample needs only a few sums over each gene, so a resample is a vector of gene counts and all resamples
are one matrix product:

    sums of a gene   n, sum y, sum y^2, and sum (y - p)^2 for R2; the same of ranks for Spearman
    resamples        W (R, G): how often each gene was drawn
    R2               1 - (W sse) / (W syy - (W sy)^2 / W n)

Spearman is Pearson's correlation of ranks taken once, over all rows. These intervals speak of one trained model:
variation between trainings is not in them.

Shapes: N rows, K tissues, G genes, R resamples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["GeneSums", "Interval", "Metric", "difference_by_gene", "draw_genes", "interval_by_gene"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Literal["r2", "spearman"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A score and its 95% percentile interval; NaN where it is not defined, as for a single gene."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class GeneSums:
    """What a metric needs of each gene: arrays (G, K) by name."""

    metric: Metric
    sums: dict[str, Array]

    @classmethod
    def collect(cls, metric: Metric, targets: Array, predictions: Array, genes: Ints) -> "GeneSums":
        """Sum over the rows of each gene.

        Args:
            metric: ``r2`` or ``spearman``.
            targets: (N, K), NaN where not measured.
            predictions: (N, K).
            genes: (N,) gene numbers 0 .. G - 1.
        """
        measured = ~np.isnan(targets)
        p = np.where(measured, predictions, np.nan)
        if metric == "r2":
            more = {"sse": (targets - p) ** 2}
            # a shift leaves R2 alone and keeps rounding errors small
            y = targets - np.nansum(targets, axis=0) / np.maximum(measured.sum(axis=0), 1)
        else:
            y, p = _centred_ranks(targets), _centred_ranks(p)
            more = {"p": p, "pp": p * p, "yp": y * p}
        columns = {"n": measured.astype(np.float64), "y": y, "yy": y * y, **more}
        n_genes = int(genes.max()) + 1
        sums = {name: np.zeros((n_genes, targets.shape[1])) for name in columns}
        for name, column in columns.items():
            np.add.at(sums[name], genes, np.where(measured, column, 0.0))
        return cls(metric, sums)

    def score(self, weights: Array) -> Array:
        """The metric of every resample and tissue, (R, G) to (R, K); NaN where it is not defined."""
        w = {name: weights @ x for name, x in self.sums.items()}
        n = np.where(w["n"] > 0, w["n"], np.nan)
        syy = w["yy"] - w["y"] ** 2 / n
        syy = np.where(syy > 1e-12 * n, syy, np.nan)
        if self.metric == "r2":
            return np.asarray(1 - w["sse"] / syy)
        spp = w["pp"] - w["p"] ** 2 / n
        spp = np.where(spp > 1e-12 * n, spp, np.nan)
        return np.asarray((w["yp"] - w["y"] * w["p"] / n) / np.sqrt(syy * spp))


def draw_genes(n_genes: int, resamples: int, seed: int = 0) -> Array:
    """How often each gene is drawn with replacement: (R, G), every row sums to G."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_genes, np.full(n_genes, 1 / n_genes), resamples).astype(np.float64)


def interval_by_gene(
    metric: Metric, targets: Array, predictions: Array, genes: Ints, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over tissues of a metric, with the percentile interval of a bootstrap over genes."""
    sums = GeneSums.collect(metric, targets, predictions, genes)
    weights = draw_genes(int(genes.max()) + 1, resamples, seed)
    ones = np.ones((1, weights.shape[1]))
    return _interval(_mean(sums.score(ones)), _mean(sums.score(weights)), weights.shape[1])


def difference_by_gene(
    metric: Metric, targets: Array, predictions: Array, baseline: Array, genes: Ints, *, resamples: int = 2000,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Metric of the predictions minus metric of the baseline, both on the same resamples of genes."""
    ours, theirs = (GeneSums.collect(metric, targets, p, genes) for p in (predictions, baseline))
    weights = draw_genes(int(genes.max()) + 1, resamples, seed)
    ones = np.ones((1, weights.shape[1]))
    estimate = ours.score(ones) - theirs.score(ones)
    return _interval(_mean(estimate), _mean(ours.score(weights) - theirs.score(weights)), weights.shape[1])


def _interval(estimate: Array, draws: Array, n_genes: int) -> Interval:
    draws = draws[~np.isnan(draws)]
    if not len(draws) or n_genes < 2:  # one gene drawn again and again says nothing of others
        return Interval(estimate=float(estimate[0]), low=float("nan"), high=float("nan"))
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return Interval(estimate=float(estimate[0]), low=low, high=high)


def _mean(scores: Array) -> Array:
    """Mean over the tissues where a score is defined, (R, K) to (R,)."""
    defined = ~np.isnan(scores)
    count = defined.sum(axis=-1)
    means: Array = np.where(count > 0, np.nansum(scores, axis=-1) / np.maximum(count, 1), np.nan)
    return means


def _centred_ranks(x: Array) -> Array:
    """Average ranks of each column over its measured rows, shifted to mean zero; NaN stays NaN."""
    ranks = np.full(x.shape, np.nan)
    for k in range(x.shape[1]):
        rows = ~np.isnan(x[:, k])
        if rows.any():
            ranked = stats.rankdata(x[rows, k])
            ranks[rows, k] = ranked - ranked.mean()
    return ranks
