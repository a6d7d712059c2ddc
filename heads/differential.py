"""Whether a model knows which isoform a tissue uses: what DNA alone cannot know of isoforms that share a promoter.

Usage of an isoform in a tissue is its share of the TPM of its gene there, and differential usage the difference of its
usage between two tissues: isoform fraction (IF) and dIF of IsoformSwitchAnalyzeR (Vitting-Seerup and Sandelin 2017,
doi:10.1158/1541-7786.MCR-16-0459), as is the cut-off of 0.1. Ours is the rest:

- the isoforms of a gene are those that are measured in some tissue, at least two; a tissue counts for the gene if all
  of them are measured there and their TPM together reach 1: shares among others, or of nothing, cannot be compared
- predicted usage is a share of predicted TPM, negative ones taken as 0; where all are 0 the isoforms share alike
- a gene switches if one isoform is the most used in one tissue and another in another one, and each leads the other
  there by the cut-off or more

A model that predicts the same usage in every tissue scores 0, or 0.5 where that is chance.

Shapes: N isoforms, K tissues, S trainings with different seeds, G genes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.plain import from_plain, to_plain
from heads.statistics.sums import centred_ranks, sum_by_gene

__all__ = ["DifferentialUsage", "differential_usage", "switch_strength", "usage"]

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentialUsage:
    """Measured and predicted differences of usage between tissues; means over trainings, NaN where undefined."""

    pearson: float
    """Correlation of measured and predicted differences over isoforms, for each pair of tissues; mean over pairs."""
    r2: float
    """1 - sum (d - d')^2 / sum d^2 over all isoforms and pairs of tissues; 0 for no difference at all."""
    direction: float
    """Of the measured differences of at least the cut-off, the share with the right sign predicted; no difference
    counts half, so that chance is 0.5."""
    top_isoform: float
    """Share of genes and tissues whose most used isoform is predicted to be that; equal predictions share alike."""
    top_isoform_chance: float
    """The same for isoforms drawn at random."""
    switch_auroc: float
    """Probability that a gene that switches has a greater predicted ``switch_strength`` than one that does not;
    equal ones count half, so that chance is 0.5."""
    n_genes: int
    """Genes with two or more isoforms that count in two or more tissues."""
    n_isoforms: int
    n_switching: int
    n_differences: int
    """Measured differences of at least the cut-off, over isoforms and pairs of tissues."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined scores are null."""
        return to_plain(asdict(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**from_plain(cls, found))


def differential_usage(
    measured: Array, predicted: Array, genes: Ints, *, min_tpm: float = 1.0, cutoff: float = 0.1
) -> DifferentialUsage:
    """Compare measured and predicted usage; the head of this file has the definitions.

    Args:
        measured: (N, K) log1p of TPM, NaN where not measured.
        predicted: (N, K), or (S, N, K) of several trainings, on the same scale: undo the z-scale first.
        genes: (N,) number of each row's gene, from 0 on.
        min_tpm: Of all isoforms of a gene together, for a tissue to count.
        cutoff: Least difference of usage that is called one.
    """
    trainings = predicted.reshape(-1, *measured.shape)
    counted = _counted(measured, genes, min_tpm)
    rows = np.flatnonzero(counted.any(axis=1))
    genes, counted = np.unique(genes[rows], return_inverse=True)[1].astype(np.int64), counted[rows]
    u = usage(measured[rows], counted, genes)
    p = np.stack([usage(x[rows], counted, genes) for x in trainings])  # (S, N, K)
    strength = switch_strength(u, counted, genes)  # (G,)
    pairs = [_pairwise(u, x, counted) for x in p]
    signs = [_direction(u, x, counted, cutoff) for x in p]
    switches = strength >= cutoff
    top = [_top(u, x, counted, genes) for x in p]
    return DifferentialUsage(
        pearson=float(np.mean([pearson for pearson, _ in pairs])),
        r2=float(np.mean([r2 for _, r2 in pairs])),
        direction=float(np.mean([share for share, _ in signs])),
        top_isoform=float(np.mean([found for found, _ in top])),
        top_isoform_chance=top[0][1],
        switch_auroc=float(np.mean([_auroc(switch_strength(x, counted, genes), switches) for x in p])),
        n_genes=len(strength),
        n_isoforms=len(rows),
        n_switching=int(switches.sum()),
        n_differences=signs[0][1],
    )


def usage(log1p_tpm: Array, counted: Bools, genes: Ints) -> Array:
    """Share of each isoform in the TPM of its gene, (N, K); 0 where the tissue does not count for the gene.

    Args:
        log1p_tpm: (N, K); negative values are taken as 0.
        counted: (N, K), the same for all isoforms of a gene.
        genes: (N,) gene numbers 0 .. G - 1.
    """
    n_genes = int(genes.max()) + 1 if len(genes) else 0
    tpm = np.where(counted, np.expm1(np.maximum(log1p_tpm, 0.0)), 0.0)
    total = sum_by_gene(tpm, genes, n_genes)[genes]
    isoforms = np.bincount(genes, minlength=n_genes)[genes][:, None]
    shares = np.where(total == 0, 1 / isoforms, tpm / np.where(total == 0, 1.0, total))
    return np.where(counted, shares, 0.0)


def switch_strength(shares: Array, counted: Bools, genes: Ints) -> Array:
    """How clearly the most used isoform of each gene changes between tissues, (G,), from 0 to 1.

    For two tissues with different most used isoforms it is the smaller of their leads over each other, and the
    greatest such number of all pairs of tissues counts; 0 where the same isoform is the most used everywhere.

    Args:
        shares: (N, K), see ``usage``.
        counted: (N, K), the same for all isoforms of a gene.
        genes: (N,) gene numbers 0 .. G - 1.
    """
    order = np.argsort(genes, kind="stable")
    ends = np.cumsum(np.bincount(genes))
    strength = np.zeros(len(ends))
    for gene, rows in enumerate(np.split(order, ends[:-1]) if len(ends) else []):
        u = shares[rows][:, counted[rows[0]]]  # (isoforms, tissues that count)
        of_top = u[
            u.argmax(axis=0)
        ]  # (T, T): in every tissue (column), usage of the isoform that tops each tissue (row)
        lead = np.diagonal(of_top) - of_top  # row b, column a: in tissue a, its top over the top of tissue b
        strength[gene] = np.minimum(lead, lead.T).max(initial=0.0)
    return strength


def _counted(measured: Array, genes: Ints, min_tpm: float) -> Bools:
    """Which tissues count for the gene of each row, (N, K); none for rows that are not measured at all."""
    n_genes = int(genes.max()) + 1 if len(genes) else 0
    is_measured = ~np.isnan(measured)
    isoform = is_measured.any(axis=1)
    isoforms = np.bincount(genes[isoform], minlength=n_genes)[:, None]  # (G, 1)
    tpm = np.where(is_measured, np.expm1(np.where(is_measured, measured, 0.0)), 0.0)
    n_measured = sum_by_gene(is_measured.astype(np.float64), genes, n_genes)
    tissues: Bools = np.logical_and(n_measured == isoforms, isoforms >= 2)
    tissues &= sum_by_gene(tpm, genes, n_genes) >= min_tpm
    tissues[tissues.sum(axis=1) < 2] = False
    counted: Bools = tissues[genes]
    counted[~isoform] = False
    return counted


def _pairwise(u: Array, p: Array, counted: Bools) -> tuple[float, float]:
    """Pearson of the differences, mean over pairs of tissues, and R2 around no difference over all of them.

    Differences of a gene sum to 0, so that their mean is 0 without being taken off. Sums over the isoforms that count
    in both tissues, for all pairs at once: sum (u_k - u_l)(p_k - p_l) from matrix products (K, K).
    """
    both = counted.astype(np.float64)

    def products(a: Array, b: Array) -> Array:
        own = (a * b).T @ both  # sum of a_k b_k where l counts, too
        return np.asarray((own + own.T - a.T @ b - b.T @ a)[np.triu_indices(u.shape[1], 1)])

    uu, pp, up = products(u, u), products(p, p), products(u, p)
    least = 1e-12 * max(len(u), 1)
    varies = uu > least
    if not varies.any():
        return float("nan"), float("nan")
    uu, pp, up = uu[varies], pp[varies], up[varies]
    none = pp <= least  # no differences predicted; NaN is not that, and stays
    pearson = np.where(none, 0.0, up / np.sqrt(uu * np.where(none, 1.0, pp)))
    return float(pearson.mean()), float(1 - (uu + pp - 2 * up).sum() / uu.sum())


def _direction(u: Array, p: Array, counted: Bools, cutoff: float) -> tuple[float, int]:
    """Share of right signs among measured differences of at least the cut-off, and how many there are."""
    right, n = 0.0, 0
    for k in range(u.shape[1] - 1):
        du, dp = u[:, k, None] - u[:, k + 1 :], p[:, k, None] - p[:, k + 1 :]
        large: Bools = counted[:, k, None] & counted[:, k + 1 :] & (np.abs(du) >= cutoff)
        agreement = (np.sign(du) * np.sign(np.where(np.abs(dp) > 1e-12, dp, 0.0 * dp)))[large]
        right += float((1 + agreement).sum()) / 2
        n += int(large.sum())
    return (right / n if n else float("nan")), n


def _top(u: Array, p: Array, counted: Bools, genes: Ints) -> tuple[float, float]:
    """Share of genes and tissues whose top isoform is the predicted one, and what chance gives."""
    n_genes = int(genes.max()) + 1 if len(genes) else 0
    tops = []
    for x in (u, p):
        largest = np.full((n_genes, u.shape[1]), -np.inf)
        np.maximum.at(largest, genes, x)
        top = (x >= largest[genes] - 1e-12) & counted
        tops.append(top / np.maximum(sum_by_gene(top.astype(np.float64), genes, n_genes)[genes], 1))
    cells = sum_by_gene(counted.astype(np.float64), genes, n_genes)  # isoforms of each gene and tissue, or 0
    n = int((cells > 0).sum())
    if not n or np.isnan(p).any():
        return float("nan"), float("nan")
    return float((tops[0] * tops[1]).sum() / n), float((1 / cells[cells > 0]).mean())


def _auroc(scores: Array, positive: Bools) -> float:
    """Mann-Whitney U of the positive ones over all pairs, by ranks."""
    n, others = int(positive.sum()), int((~positive).sum())
    if not n or not others or np.isnan(scores).any():
        return float("nan")
    # centred ranks: U / (n others) = 1/2 + (their sum over the positive ones) / (n others)
    return float(0.5 + centred_ranks(scores[:, None])[positive].sum() / (n * others))
