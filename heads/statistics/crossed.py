"""Genes and trainings drawn together: how far a score, or a difference of two, would move with both.

Isoforms of a gene are alike and each training gives another model, so that neither rows nor runs are independent
observations. For every resample genes are drawn with replacement and, crossed with them, trainings; two models are
compared on the same genes, training by training (the pigeonhole bootstrap, Owen 2007, of paired differences). With
one training its variation is not in the interval.

Shapes: N rows, K tissues, G genes, S trainings, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.statistics.resample import Interval, draw_blocks, draw_seeds, interval, mean_over_tissues, two_sided_p
from heads.statistics.sums import GeneSums, Metric, TargetSums

__all__ = ["Comparison", "Scored", "compare", "compare_metrics", "cross", "difference_of", "score_resamples"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scored:
    """A metric of one model, or a difference of two, for every training and every resample."""

    estimate: Array
    """On the genes as they are, (S, K)."""
    draws: Array
    """On drawn genes, (R, S, K)."""
    n_genes: int
    seed: int
    """That the draws were made with; trainings are drawn with it, too."""

    def mean(self) -> Interval:
        """Mean over trainings, then over the tissues where all of them have a score."""
        return interval(self._mean_estimate(), mean_over_tissues(self._crossed()), self.n_genes)

    def by_tissue(self) -> tuple[Interval, ...]:
        """Mean over trainings of each tissue."""
        crossed, estimates = self._crossed(), self.estimate.mean(axis=0).tolist()
        return tuple(interval(x, crossed[:, k], self.n_genes) for k, x in enumerate(estimates))

    def p_value(self) -> float:
        """Two-sided, that the mean over trainings and tissues is zero."""
        return two_sided_p(mean_over_tissues(self._crossed()), self.n_genes)

    def p_by_tissue(self) -> tuple[float, ...]:
        """Two-sided, for each tissue."""
        crossed = self._crossed()
        return tuple(two_sided_p(crossed[:, k], self.n_genes) for k in range(crossed.shape[1]))

    def seed_sd(self) -> float:
        """Standard deviation between trainings of the mean over tissues; NaN with one training."""
        if len(self.estimate) < 2:
            return float("nan")
        shared = ~np.isnan(self.estimate).any(axis=0)  # the same tissues of every training
        return float(self.estimate[:, shared].mean(axis=1).std(ddof=1)) if shared.any() else float("nan")

    def _mean_estimate(self) -> float:
        return float(mean_over_tissues(self.estimate.mean(axis=0)))

    def _crossed(self) -> Array:
        return cross(self.draws, self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model against another on the same genes, training by training."""

    metric: Metric
    mean: Interval
    """Mean over tissues and trainings."""
    p: float
    by_tissue: tuple[Interval, ...]
    p_by_tissue: tuple[float, ...]
    """Not corrected: apply ``holm`` before any tissue is called different."""
    n_seeds: int
    """Trainings that were paired: the first so many of both."""
    n_genes: int
    n_transcripts: int
    resamples: int

    def __str__(self) -> str:
        seeds = f"{self.n_seeds} paired seeds" if self.n_seeds > 1 else "one seed"
        note = "" if self.n_seeds > 1 else "; variation between trainings not included"
        x = self.mean
        return (
            f"{self.metric} {x.estimate:+.3f} [{x.low:+.3f}, {x.high:+.3f}], p = {self.p:.2g}; {self.resamples:,} "
            f"resamples of {self.n_genes:,} genes x {seeds}, {self.n_transcripts:,} transcripts{note}"
        )


def score_resamples(sums: Sequence[GeneSums], *, resamples: int = 2000, seed: int = 0) -> list[Scored]:
    """Scores of several models on the same resamples of genes.

    Args:
        sums: Of each model, from predictions (S, N, K), of the same genes. Models that share their ``TargetSums``
            share its part of the work. Scores of a model do not depend on the others.
        resamples: How often genes are drawn.
        seed: Of the draws.
    """
    n_genes = sums[0].targets.n_genes
    ones = np.ones((1, n_genes))
    estimates = [model.score(ones)[0] for model in sums]
    draws: list[list[Array]] = [[] for _ in sums]
    shared = {id(model.targets): model.targets for model in sums}
    for weights in draw_blocks(n_genes, resamples, seed):
        moments = {key: targets.moments(weights) for key, targets in shared.items()}
        for model, found in zip(sums, draws, strict=True):
            found.append(model.score(weights, moments[id(model.targets)]))
    return [Scored(x, np.concatenate(found), n_genes, seed) for x, found in zip(estimates, draws, strict=True)]


def difference_of(ours: Scored, theirs: Scored) -> Scored:
    """Score of ours minus score of theirs, training by training: the first so many that both have."""
    assert (ours.n_genes, ours.seed) == (theirs.n_genes, theirs.seed)  # else the genes drawn were others
    s = min(len(ours.estimate), len(theirs.estimate))
    return Scored(
        ours.estimate[:s] - theirs.estimate[:s], ours.draws[:, :s] - theirs.draws[:, :s], ours.n_genes, ours.seed
    )


def cross(draws: Array, seed: int = 0) -> Array:
    """Mean over trainings drawn with replacement for every resample: (R, S, K) to (R, K)."""
    shares = draw_seeds(draws.shape[1], len(draws), seed)
    return np.asarray((shares[:, None] @ draws)[:, 0])


def compare(
    metric: Metric, targets: Array, ours: Array, theirs: Array, groups: Ints, *, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Metric of our predictions minus metric of theirs; see ``compare_metrics``."""
    return compare_metrics(targets, ours, theirs, groups, metrics=(metric,), resamples=resamples, seed=seed)[metric]


def compare_metrics(
    targets: Array,
    ours: Array,
    theirs: Array,
    groups: Ints,
    *,
    metrics: Sequence[Metric] = ("r2", "spearman"),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[Metric, Comparison]:
    """Score of our predictions minus score of theirs, with the intervals of the crossed bootstrap.

    Args:
        targets: (N, K), NaN where not measured.
        ours: (S, N, K); training s of both is a pair.
        theirs: (S', N, K). With other numbers of trainings, the first so many that both have are compared.
        groups: (N,) numbers 0 .. G - 1 of what is drawn: genes, or groups of genes that resemble each other.
        metrics: What to compare; all are scored on the same draws.
        resamples: How often genes and trainings are drawn.
        seed: Of the draws.
    """
    shared = [TargetSums.collect(metric, targets, groups) for metric in metrics]
    sums = [GeneSums.of(found, p) for found in shared for p in (ours, theirs)]
    scored = score_resamples(sums, resamples=resamples, seed=seed)
    return {
        metric: Comparison(
            metric=metric,
            mean=difference.mean(),
            p=difference.p_value(),
            by_tissue=difference.by_tissue(),
            p_by_tissue=difference.p_by_tissue(),
            n_seeds=len(difference.estimate),
            n_genes=difference.n_genes,
            n_transcripts=int((~np.isnan(targets)).any(axis=1).sum()),
            resamples=resamples,
        )
        for metric, difference in zip(metrics, map(difference_of, scored[::2], scored[1::2]), strict=True)
    }
