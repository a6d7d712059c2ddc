"""How well predictions fit measured expression, over all transcripts and within genes.

Everything is computed on the z-scale of the training rows, on measured cells only. A score that is not defined
(fewer than two measured rows, no variation, constant predictions for a correlation) is NaN and left out of the
mean over tissues.

Shapes: N rows, K tissues, P pairs of isoforms, G genes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.plain import from_plain, to_plain
from heads.statistics.sums import centred_ranks, sum_by_gene

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
        return to_plain(asdict(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**from_plain(cls, found))


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
        return to_plain(asdict(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**from_plain(cls, found))


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
        predictions: (N, K), or (S, N, K) of several trainings, whose scores are averaged.
        genes: (N,) number of each row's gene, from 0 on.
    """
    n_genes = int(genes.max()) + 1 if len(genes) else 0
    measured = ~np.isnan(targets)
    counts = sum_by_gene(measured.astype(np.float64), genes, n_genes)  # (G, K)
    used = measured & (counts[genes] >= 2)  # (N, K)
    dy = _deviations(targets, used, counts, genes)
    trainings = predictions if predictions.ndim == 3 else predictions[None]
    dp = np.stack([_deviations(p, used, counts, genes) for p in trainings])
    r2 = [mean_defined(r2_columns(dy, d)) for d in dp]
    spearman = [mean_defined(row) for row in spearman_columns(dy, dp)]
    first, second = pairs = _pairs(genes)
    with np.errstate(invalid="ignore"):
        up_y = np.where(used[first] & used[second], np.sign(targets[first] - targets[second]), np.nan)  # (P, K)
    kendall = [_kendall(up_y, p, pairs, genes, n_genes) for p in trainings]
    return WithinGene(
        r2=float(np.mean(r2)),
        spearman=float(np.mean(spearman)),
        kendall=float(np.mean(kendall)),
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
    """Spearman's correlation of each column over its measured rows; NaN where one side does not vary.

    Args:
        targets: (N, K), NaN where not measured.
        predictions: (N, K) gives (K,), and (S, N, K) of several trainings gives (S, K).
    """
    measured = ~np.isnan(targets)
    y = np.where(measured, centred_ranks(targets), 0.0)
    scores = np.full((*predictions.shape[:-2], targets.shape[1]), np.nan)
    trainings = predictions if predictions.ndim == 3 else predictions[None]
    for row, x in zip(scores.reshape(len(trainings), -1), trainings, strict=True):
        # a prediction that is NaN stays NaN
        p = np.where(measured, centred_ranks(np.where(measured, x, np.nan)), 0.0)
        variation = (y * y).sum(axis=0) * (p * p).sum(axis=0)  # exactly 0 where all are equal
        row[:] = np.where(variation > 0, (y * p).sum(axis=0) / np.sqrt(np.where(variation > 0, variation, 1)), np.nan)
    return scores


def mean_defined(scores: Array) -> float:
    """Mean of the scores that are not NaN; NaN if there is none."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if len(defined) else float("nan")


def _deviations(values: Array, used: NDArray[np.bool_], counts: Array, genes: Ints) -> Array:
    """Each used cell against the mean of its gene in its tissue, NaN elsewhere, (N, K)."""
    filled = np.where(used, values, 0.0)
    means = sum_by_gene(filled, genes, len(counts)) / np.maximum(counts, 1)  # (G, K)
    deviations: Array = np.where(used, filled - means[genes], np.nan)
    return deviations


def _kendall(up_y: Array, predictions: Array, pairs: tuple[Ints, Ints], genes: Ints, n_genes: int) -> float:
    """Mean tau-b; ``up_y`` is the sign of each pair, (P, K), NaN where a pair does not count."""
    first, second = pairs
    used = ~np.isnan(up_y)
    y = np.where(used, up_y, 0.0)
    p = np.where(used, np.sign(predictions[first] - predictions[second]), 0.0)
    agreement, n_y, n_p = (sum_by_gene(x, genes[first], n_genes) for x in (y * p, np.abs(y), np.abs(p)))
    tau = np.where(n_y > 0, agreement / np.sqrt(np.maximum(n_y * n_p, 1)), np.nan)  # (G, K)
    return mean_defined(np.array([mean_defined(column) for column in tau.T]))


def _pairs(genes: Ints) -> tuple[Ints, Ints]:
    """All pairs of rows that share a gene, each once."""
    order = np.argsort(genes, kind="stable")
    ordered = genes[order]
    largest = int(np.bincount(genes).max()) if len(genes) else 0
    first, second = [order[:0]], [order[:0]]
    for distance in range(1, largest):
        start = np.flatnonzero(ordered[distance:] == ordered[:-distance])
        first.append(order[start])
        second.append(order[start + distance])
    return np.concatenate(first).astype(np.int64), np.concatenate(second).astype(np.int64)
