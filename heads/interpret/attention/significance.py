"""Is attention on a region more than its share of tokens, or more than before? Paired t-tests over genes.

Isoforms of a gene are alike, so genes are the observations: the mean of their transcripts. P-values are corrected
over all layers, heads and regions of one comparison (Benjamini and Hochberg 1995).

Shapes: N transcripts, G genes, L layers, H heads, R regions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from heads.interpret.attention.scores import RegionScores
from heads.statistics.sums import sum_by_gene

__all__ = ["RegionTests", "adjusted", "compare_to_before", "compare_to_uniform"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ROUNDING = 1e-12
"""A standard deviation of shares up to here is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTests:
    """Means and tests, each (L, H, R). Means are over genes of means over their transcripts."""

    regions: tuple[str, ...]
    mass: Floats
    uniform: Floats
    difference: Floats
    """Mass minus uniform, or after minus before."""
    effect_size: Floats
    """The difference over its standard deviation between genes (Cohen's d of pairs)."""
    p: Floats
    """Two-sided; NaN with fewer than two genes, or where nothing varies."""
    p_adjusted: Floats
    genes: Integers
    transcripts: Integers

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Where the adjusted p is below 0.05, (L, H, R)."""
        return self.p_adjusted < 0.05


def compare_to_uniform(scores: RegionScores) -> RegionTests:
    """Attention mass against the share of tokens."""
    return _test(scores, scores.mass - scores.uniform[:, None, None])


def compare_to_before(after: RegionScores, before: RegionScores) -> RegionTests:
    """Attention mass after fine-tuning against that before, of the same transcripts; ``mass`` is that after."""
    assert np.array_equal(after.rows, before.rows), "the same transcripts"
    return _test(after, after.mass - before.mass)


def adjusted(p: Floats) -> Floats:
    """Benjamini-Hochberg over all p-values of an array that are known; NaN stays."""
    found, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        found[known] = stats.false_discovery_control(p[known])
    return found


def _test(scores: RegionScores, difference: Floats) -> RegionTests:
    genes = np.unique(scores.genes, return_inverse=True)[1].astype(np.int64)
    uniform = np.broadcast_to(scores.uniform[:, None, None], difference.shape)
    known = ~np.isnan(difference)
    by_gene = _mean_by_gene(difference, known, genes)
    n_genes = (~np.isnan(by_gene)).sum(0)
    mean, deviation = _mean(by_gene), _deviation(by_gene)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(deviation > _ROUNDING, mean / deviation, np.nan)
        p = 2 * stats.t.sf(np.abs(effect) * np.sqrt(n_genes), n_genes - 1)
    return RegionTests(
        regions=scores.regions,
        mass=_mean(_mean_by_gene(scores.mass, known, genes)),
        uniform=_mean(_mean_by_gene(uniform, known, genes)),
        difference=mean,
        effect_size=effect,
        p=p,
        p_adjusted=adjusted(p),
        genes=n_genes,
        transcripts=known.sum(0),
    )


def _mean_by_gene(values: Floats, known: NDArray[np.bool_], genes: Integers) -> Floats:
    """Mean over the transcripts of each gene that are known, (N, ...) to (G, ...); NaN without any."""
    n_genes = int(genes.max()) + 1
    flat = np.where(known, values, 0.0).reshape(len(values), -1)
    sums = sum_by_gene(flat, genes, n_genes)
    counts = sum_by_gene(known.reshape(len(values), -1).astype(np.float64), genes, n_genes)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts).reshape(n_genes, *values.shape[1:])


def _mean(by_gene: Floats) -> Floats:
    """Mean over genes, NaN without any."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(by_gene, axis=0) / (~np.isnan(by_gene)).sum(0))


def _deviation(by_gene: Floats) -> Floats:
    """Standard deviation between genes, NaN with fewer than two."""
    n = (~np.isnan(by_gene)).sum(0)
    squares = np.nansum((by_gene - _mean(by_gene)) ** 2, axis=0)
    return np.asarray(np.sqrt(squares / np.where(n > 1, n - 1, np.nan)))
