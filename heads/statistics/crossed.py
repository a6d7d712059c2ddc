"""Genes and trainings drawn together: how far a score, or a difference of two, would move with both.

Isoforms of a gene are alike and each training gives another model, so that neither rows nor runs are independent
observations. For every resample genes are drawn with replacement and, crossed with them, trainings; two models are
compared on the same genes, training by training (the pigeonhole bootstrap, Owen 2007, of paired differences). With
one training its variation is not in the interval.

Shapes: N rows, K tissues, G genes, S trainings, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

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


def score_resamples(
    models: Sequence[Sequence[GeneSums]], *, resamples: int = 2000, seed: int = 0
) -> list[tuple[Scored, ...]]:
    """Scores of several models on the same resamples of genes.

    Args:
        models: For each model its sums, one for each metric, from predictions (S, N, K). All have the same metrics in
            the same order, and share the ``TargetSums`` of the first.
        resamples: How often genes are drawn.
        seed: Of the draws.

    Returns:
        For each model its scores by each metric, the same bits in whatever company of models.
    """
    targets = [sums.targets for sums in models[0]]
    assert all(sums.targets is shared for model in models for sums, shared in zip(model, targets, strict=True))
    n_genes = targets[0].n_genes
    shared = _Columns([found.sums for found in targets])
    own = [_Columns([sums.sums for sums in model]) for model in models]
    draws: list[list[list[Array]]] = [[[] for _ in targets] for _ in models]
    for weights in chain([np.ones((1, n_genes))], draw_blocks(n_genes, resamples, seed)):  # genes as they are, first
        moments = [found.moments(x) for found, x in zip(targets, shared.weighted(weights), strict=True)]
        for model, columns, found in zip(models, own, draws, strict=True):
            for sums, x, of_targets, scores in zip(model, columns.weighted(weights), moments, found, strict=True):
                scores.append(sums.scores(x, of_targets))
    return [
        tuple(Scored(first[0], np.concatenate([first[:0], *rest]), n_genes, seed) for first, *rest in found)
        for found in draws
    ]


class _Columns:
    """Sums side by side, (G, C): one wide matrix product is a third faster than several narrow ones."""

    def __init__(self, parts: Sequence[Array]) -> None:
        self._sums = np.hstack(parts)
        self._ends = np.cumsum([part.shape[1] for part in parts])[:-1]

    def weighted(self, weights: Array) -> list[Array]:
        """``weights @ part`` of each part, (R, C of the part)."""
        return np.split(weights @ self._sums, self._ends, axis=1)


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
    models = [[GeneSums.of(found, p) for found in shared] for p in (ours, theirs)]
    pair = score_resamples(models, resamples=resamples, seed=seed)
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
        for metric, difference in zip(metrics, map(difference_of, *pair), strict=True)
    }
