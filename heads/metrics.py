"""How well predictions fit measured expression, over all transcripts and within genes.

Everything is computed on the z-scale of the training rows, on measured cells only. A score that is not defined
(fewer than two measured rows, no variation, constant predictions for a correlation) is NaN and left out of the
mean over tissues.

Shapes: N rows, K tissues, P pairs of isoforms, G genes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Scores", "WithinGene", "mean_defined", "r2_columns", "score", "spearman_columns", "within_gene"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores over transcripts."""

    r2: float
    """1 - SSE / SST of each tissue, mean over tissues."""
    spearman: float
    """Rank correlation of each tissue, mean over tissues."""
    r2_pooled: float
    """1 - SSE / SST over all cells at once, around the mean of all cells."""
    spearman_pooled: float
    """Rank correlation over all cells at once."""
    mse: float
    """Mean squared error over all cells: the loss."""
    n_transcripts: int
    """Rows with at least one measured cell."""
    r2_by_tissue: tuple[float, ...]
    spearman_by_tissue: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined scores are null."""
        return _to_json(asdict(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**_from_json(cls, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinGene:
    """How well isoforms are told apart from the other isoforms of their gene. A gene level that is right scores 0.

    In each tissue, only genes with two or more measured isoforms count, and each value is taken against the mean of
    its gene's measured isoforms (predictions against the mean of the predictions for the same isoforms).
    """

    r2: float
    """1 - sum (d - d')^2 / sum d^2 over all these deviations d, d' predicted; mean over tissues."""
    spearman: float
    """Rank correlation of d and d' over all these isoforms; mean over tissues."""
    kendall: float
    """Kendall's tau-b among the isoforms of each gene; mean over genes, then over tissues. A gene whose predictions
    are all equal scores 0; one whose measured values are all equal does not count."""
    n_genes: int
    """Genes with two or more measured isoforms in some tissue."""
    n_transcripts: int
    """Isoforms of these genes that were measured in such a tissue."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined scores are null."""
        return _to_json(asdict(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**_from_json(cls, found))


def score(targets: Array, predictions: Array) -> Scores:
    """Score predictions over transcripts.

    Args:
        targets: (N, K) on the z-scale, NaN where not measured.
        predictions: (N, K).
    """
    measured = ~np.isnan(targets)
    r2, spearman = r2_columns(targets, predictions), spearman_columns(targets, predictions)
    y, p = targets[measured][:, None], predictions[measured][:, None]  # (cells, 1)
    return Scores(
        r2=mean_defined(r2),
        spearman=mean_defined(spearman),
        r2_pooled=float(r2_columns(y, p)[0]),
        spearman_pooled=float(spearman_columns(y, p)[0]),
        mse=float(((y - p) ** 2).mean()) if len(y) else float("nan"),
        n_transcripts=int(measured.any(axis=1).sum()),
        r2_by_tissue=tuple(r2.tolist()),
        spearman_by_tissue=tuple(spearman.tolist()),
    )


def within_gene(targets: Array, predictions: Array, genes: Ints) -> WithinGene:
    """Score the differences between isoforms of one gene; ``WithinGene`` has the definitions.

    Args:
        targets: (N, K) on the z-scale, NaN where not measured.
        predictions: (N, K).
        genes: (N,) number of each row's gene, from 0 on.
    """
    n_genes = int(genes.max()) + 1 if len(genes) else 0
    measured = ~np.isnan(targets)
    counts = _sum_by_gene(measured.astype(np.float64), genes, n_genes)  # (G, K)
    used = measured & (counts[genes] >= 2)  # (N, K)
    dy, dp = (_deviations(x, used, counts, genes) for x in (targets, predictions))
    sse, sst = (np.where(used, deviations**2, 0.0).sum(axis=0) for deviations in (dy - dp, dy))  # (K,)
    varies = sst > 1e-12 * np.maximum(used.sum(axis=0), 1)
    r2 = np.where(varies, 1 - sse / np.where(varies, sst, 1), np.nan)
    tau = _kendall_by_gene(targets, predictions, used, genes, n_genes)  # (G, K)
    return WithinGene(
        r2=mean_defined(r2),
        spearman=mean_defined(spearman_columns(dy, dp)),
        kendall=mean_defined(np.array([mean_defined(column) for column in tau.T])),
        n_genes=int((counts >= 2).any(axis=1).sum()),
        n_transcripts=int(used.any(axis=1).sum()),
    )


def r2_columns(targets: Array, predictions: Array) -> Array:
    """1 - SSE / SST of each column over its measured rows, (K,); NaN where the targets do not vary."""
    measured = ~np.isnan(targets)
    n = measured.sum(axis=0)
    errors = np.where(measured, targets - predictions, 0.0)  # a prediction that is NaN gives a score that is NaN
    mean = np.nansum(targets, axis=0) / np.maximum(n, 1)
    total = np.nansum((targets - mean) ** 2, axis=0)
    defined = (n >= 2) & (total > 1e-12 * np.maximum(n, 1))
    scores: Array = np.where(defined, 1 - (errors**2).sum(axis=0) / np.where(defined, total, 1), np.nan)
    return scores


def spearman_columns(targets: Array, predictions: Array) -> Array:
    """Spearman's correlation of each column over its measured rows, (K,); NaN where one side does not vary."""
    scores = np.full(targets.shape[1], np.nan)
    for k in range(targets.shape[1]):
        rows = ~np.isnan(targets[:, k])
        y, p = targets[rows, k], predictions[rows, k]
        if len(y) >= 2 and np.ptp(y) > 0 and np.ptp(p) > 0:
            scores[k] = np.corrcoef(stats.rankdata(y), stats.rankdata(p))[0, 1]
    return scores


def mean_defined(scores: Array) -> float:
    """Mean of the scores that are not NaN; NaN if there is none."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if len(defined) else float("nan")


def _sum_by_gene(values: Array, genes: Ints, n_genes: int) -> Array:
    sums = np.zeros((n_genes, *values.shape[1:]))
    np.add.at(sums, genes, values)
    return sums


def _deviations(values: Array, used: NDArray[np.bool_], counts: Array, genes: Ints) -> Array:
    """Each used cell against the mean of its gene in its tissue, NaN elsewhere, (N, K)."""
    filled = np.where(used, values, 0.0)
    means = _sum_by_gene(filled, genes, len(counts)) / np.maximum(counts, 1)  # (G, K)
    deviations: Array = np.where(used, filled - means[genes], np.nan)
    return deviations


def _kendall_by_gene(targets: Array, predictions: Array, used: NDArray[np.bool_], genes: Ints, n_genes: int) -> Array:
    """Tau-b of each gene and tissue, (G, K); NaN where fewer than two isoforms differ in what was measured."""
    first, second = _pairs(genes)  # (P,)
    both = used[first] & used[second]  # (P, K)
    with np.errstate(invalid="ignore"):
        up_y = np.where(both, np.sign(targets[first] - targets[second]), 0.0)
    up_p = np.where(both, np.sign(predictions[first] - predictions[second]), 0.0)
    agreement, y, p = (_sum_by_gene(x, genes[first], n_genes) for x in (up_y * up_p, np.abs(up_y), np.abs(up_p)))
    tau: Array = np.where(y > 0, agreement / np.sqrt(np.maximum(y * p, 1)), np.nan)
    return tau


def _pairs(genes: Ints) -> tuple[Ints, Ints]:
    """All pairs of rows that share a gene, each once."""
    order = np.argsort(genes, kind="stable")
    groups: Sequence[Ints] = np.split(order, np.flatnonzero(np.diff(genes[order])) + 1)
    first, second = [], []
    for rows in groups:
        i, j = np.triu_indices(len(rows), 1)
        first.append(rows[i])
        second.append(rows[j])
    return np.concatenate(first).astype(np.int64), np.concatenate(second).astype(np.int64)


def _to_json(values: dict[str, Any]) -> dict[str, Any]:
    def plain(x: Any) -> Any:
        if isinstance(x, tuple):
            return [plain(item) for item in x]
        return None if isinstance(x, float) and not np.isfinite(x) else x

    return {name: plain(x) for name, x in values.items()}


def _from_json(cls: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    def value(x: Any) -> Any:
        if isinstance(x, list):
            return tuple(value(item) for item in x)
        return float("nan") if x is None else x

    return {item.name: value(found[item.name]) for item in fields(cls)}
