"""A test by flipping signs of genes, and the correction for several comparisons.

Shapes: N rows, K tissues, G genes, S trainings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heads.statistics.resample import mean_over_tissues
from heads.statistics.sums import GeneSums

__all__ = ["gene_contributions", "holm", "sign_flip_p"]

Array = NDArray[np.float64]

_BYTE = 8


def gene_contributions(ours: GeneSums, theirs: GeneSums) -> Array:
    """What each gene adds to the difference in R2, mean over tissues and trainings: (G,), whose sum is the difference.

    Args:
        ours: For R2, from predictions (S, N, K).
        theirs: The same for the other model; the first trainings that both have are compared.
    """
    assert ours.targets.metric == "r2"
    (_, s, tissues), (_, other, _) = ours.shape, theirs.shape
    s = min(s, other)
    sse = [x.sums.reshape(x.targets.n_genes, -1, tissues)[:, :s].mean(axis=1) for x in (ours, theirs)]  # (G, K)
    variation = ours.targets.moments(ours.targets.sums.sum(axis=0, keepdims=True)).variation  # (1, K)
    added = (sse[1] - sse[0]) / variation
    added[:, np.isnan(added).any(axis=0)] = np.nan  # such a tissue has no score
    return mean_over_tissues(added)


def sign_flip_p(contributions: Array, *, flips: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value when the two models may be swapped within each gene; NaN where contributions are.

    It speaks of these trained models, not of new trainings: with several seeds it finds too much (15% at 5%).

    Args:
        contributions: (G,), see ``gene_contributions``.
        flips: Random choices of signs.
        seed: Of the choices.
    """
    if np.isnan(contributions).any() or len(contributions) < 2:
        return float("nan")
    # the sum over 8 genes has 256 values, one for each choice of signs: a byte drawn looks it up
    padded = np.zeros(-(-len(contributions) // _BYTE) * _BYTE)
    padded[: len(contributions)] = contributions
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)  # (256, 8)
    table = padded.reshape(-1, _BYTE) @ (2.0 * bits.T - 1)  # (G / 8, 256)
    drawn = np.random.default_rng(seed).integers(256, size=(len(table), flips), dtype=np.uint8)
    sums = np.zeros(flips)
    for values, choice in zip(table, drawn, strict=True):
        sums += values[choice]
    extreme = np.abs(sums) >= abs(contributions.sum()) * (1 - 1e-12)
    return float((1 + extreme.sum()) / (1 + flips))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given; below 0.05 means significant at 5% for the whole family.

    One that is NaN stays NaN and does not count: nothing was tested.
    """
    tested = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    adjusted, largest = [float("nan")] * len(p_values), 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(tested) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
