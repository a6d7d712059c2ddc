"""Intervals of one trained model from resampling genes; variation between trainings is not in them.

Shapes: N rows, K tissues.
"""

import numpy as np
from numpy.typing import NDArray

from heads.statistics.crossed import difference_of, score_resamples
from heads.statistics.resample import Interval
from heads.statistics.sums import GeneSums, Metric, TargetSums

__all__ = ["difference_by_gene", "interval_by_gene"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def interval_by_gene(
    metric: Metric, targets: Array, predictions: Array, genes: Ints, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over tissues of a metric, with the percentile interval of a bootstrap over genes.

    Args:
        metric: ``r2`` or ``spearman``.
        targets: (N, K), NaN where not measured.
        predictions: (N, K).
        genes: (N,) gene numbers 0 .. G - 1.
        resamples: How often genes are drawn.
        seed: Of the draws; equal seeds draw equal genes.
    """
    sums = GeneSums.collect(metric, targets, predictions[None], genes)
    ((scored,),) = score_resamples([[sums]], resamples=resamples, seed=seed)
    return scored.mean()


def difference_by_gene(
    metric: Metric, targets: Array, predictions: Array, baseline: Array, genes: Ints, *, resamples: int = 2000,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Metric of the predictions minus metric of the baseline, both on the same resamples of genes."""
    shared = TargetSums.collect(metric, targets, genes)
    models = [[GeneSums.of(shared, p[None])] for p in (predictions, baseline)]
    (ours,), (theirs,) = score_resamples(models, resamples=resamples, seed=seed)
    return difference_of(ours, theirs).mean()
