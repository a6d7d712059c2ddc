"""What a reader must know of a split: sizes, balance, and how alike its sides are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset, read_dataset
from embedcache.sequences import Modality
from heads.split_config import SplitConfig, SplitUnit
from heads.splits.assign import fold_of_rows, rows_by_split, unit_names
from heads.splits.genes import genes_of
from heads.splits.neighbours import Nearest, nearest_genes
from heads.splits.related import compared, dataset_kmers, least_similarity
from heads.splits.units import split_units

__all__ = ["ClosePair", "Closeness", "Part", "SplitReport", "describe_split"]

Labels = NDArray[np.object_]
Mask = NDArray[np.bool_]

_CLOSEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One split, or the test part of one fold."""

    name: str
    transcripts: int
    genes: int
    units: int
    coding: float
    """Share of transcripts with a protein."""
    target_mean: float | None
    """Mean of all measured targets; None without targets."""
    target_sd: float | None
    chromosomes: dict[str, int]
    """Transcripts on each."""
    biotypes: dict[str, int]
    """Transcripts of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """How similar the transcripts of a part are to their most similar gene among those trained on."""

    part: str
    modality: Modality
    transcripts: int
    """Those that have the modality."""
    median: float
    upper: float
    """90 % are no closer."""
    share_half: float
    """Share with a similarity of at least 0.5."""
    share_high: float
    """Share with a similarity of at least 0.9."""
    least: float
    """From here on genes count as alike."""
    share_alike: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePair:
    """A transcript that is tested on, and the gene trained on that is most similar to it."""

    part: str
    modality: Modality
    transcript_id: str
    gene_id: str
    gene_name: str
    similarity: float
    trained_gene_id: str
    trained_gene_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """All that ``heads splits`` tells; ``part_of_row`` and ``unit_of_row`` have one entry a transcript."""

    dataset: Path
    labels: list[str]
    unit: SplitUnit
    config: dict[str, Any]
    n_units: int
    largest_unit: int
    """Transcripts of the largest unit."""
    parts: list[Part]
    closeness: list[Closeness]
    closest: list[ClosePair]
    """The closest pairs of each modality, one a pair of genes."""
    share_alike: float | None
    """Share of the transcripts looked at whose protein or RNA is alike to a gene trained on; None without either."""
    part_of_row: Sequence[str] = field(repr=False)
    """Empty for rows that a nested split keeps for the end."""
    unit_of_row: Sequence[str] = field(repr=False)
    """The first gene ID of the unit."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without those of single rows."""
        found = asdict(self)
        del found["part_of_row"], found["unit_of_row"]
        return {**found, "dataset": str(self.dataset)}


def describe_split(dataset: Dataset | Path | str, config: SplitConfig, *, folds: bool = False) -> SplitReport:
    """Sizes and balance of a split, and how alike its sides are.

    Args:
        dataset: Opened, or its directory.
        config: How it is split.
        folds: Look at the test part of every fold, each against all others, instead of at train, validation and test.

    Raises:
        SplitError: See ``rows_by_split``.
        InvalidInputError: The dataset cannot be read.
    """
    opened = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    part_of_row = np.full(len(opened.samples), "", dtype=object)
    if folds:
        names = [f"fold {fold}" for fold in range(config.folds)]
        part_of_row[:] = [names[fold] for fold in fold_of_rows(opened, config)]
    else:
        by_split = rows_by_split(opened, config)
        names = list(by_split)
        for name, rows in by_split.items():
            part_of_row[rows] = name
    units = split_units(opened, config)
    closeness, closest, share_alike = _look_across(opened, part_of_row, names, config)
    unit_name = unit_names(opened, units)
    return SplitReport(
        dataset=opened.path,
        labels=opened.labels,
        unit=config.unit,
        config=config.to_json(),
        n_units=len(unit_name),
        largest_unit=int(np.bincount(units).max()),
        parts=[_part(opened, units, name, part_of_row == name) for name in names],
        closeness=closeness,
        closest=closest,
        share_alike=share_alike,
        part_of_row=part_of_row.tolist(),
        unit_of_row=[unit_name[unit] for unit in units],
    )


def _part(dataset: Dataset, units: NDArray[np.int64], name: str, mask: Mask) -> Part:
    samples = dataset.samples[mask]
    targets = None if dataset.targets is None else dataset.targets.to_numpy(dtype=np.float64)[mask]
    measured = np.zeros(0) if targets is None else targets[np.isfinite(targets)]
    return Part(
        name=name,
        transcripts=len(samples),
        genes=samples["gene_id"].nunique(),
        units=len(np.unique(units[mask])),
        coding=float(samples["protein_key"].notna().mean()) if len(samples) else 0.0,
        target_mean=float(measured.mean()) if len(measured) else None,
        target_sd=float(measured.std()) if len(measured) else None,
        chromosomes={str(key): int(n) for key, n in samples["chromosome"].value_counts().sort_index().items()},
        biotypes={str(key): int(n) for key, n in samples["biotype"].value_counts().sort_index().items()},
    )


def _look_across(
    dataset: Dataset, part_of_row: Labels, names: Sequence[str], config: SplitConfig
) -> tuple[list[Closeness], list[ClosePair], float | None]:
    """Each part against what is trained on when it is tested: the training rows, or all other folds."""
    closeness, closest = list[Closeness](), list[ClosePair]()
    is_alike, was_asked = np.zeros(len(part_of_row), dtype=bool), np.zeros(len(part_of_row), dtype=bool)
    modalities = compared(dataset)
    for modality in modalities:
        kmers = dataset_kmers(dataset, modality)
        least = least_similarity(modality, config.similarity)
        pairs = list[ClosePair]()
        for name in names:
            if name == "train":
                continue
            asked = part_of_row == name
            trained = part_of_row == "train" if "train" in names else ~asked
            nearest = nearest_genes(dataset, kmers, asked, trained)
            was_asked |= asked
            is_alike[nearest.rows[nearest.similarity >= least]] = True
            closeness.append(_closeness(name, modality, nearest, least))
            pairs += _closest(dataset, name, modality, nearest)
        closest += sorted(pairs, key=lambda pair: (-pair.similarity, pair.transcript_id))[:_CLOSEST]
    return closeness, closest, float(is_alike[was_asked].mean()) if modalities else None


def _closeness(part: str, modality: Modality, nearest: Nearest, least: float) -> Closeness:
    found = nearest.similarity
    median, upper = np.quantile(found, [0.5, 0.9]) if len(found) else (0.0, 0.0)
    half, high, alike = (float((found >= limit).mean()) if len(found) else 0.0 for limit in (0.5, 0.9, least))
    return Closeness(
        part=part,
        modality=modality,
        transcripts=len(found),
        median=float(median),
        upper=float(upper),
        share_half=half,
        share_high=high,
        least=least,
        share_alike=alike,
    )


def _closest(dataset: Dataset, part: str, modality: Modality, nearest: Nearest) -> list[ClosePair]:
    """The closest transcripts, one a pair of genes."""
    genes, gene_of_row = genes_of(dataset)
    samples = dataset.samples
    names = dict(zip(samples["gene_id"], samples["gene_name"].fillna("").astype(str), strict=True))
    found = dict[tuple[int, int], ClosePair]()
    for i in np.lexsort((nearest.rows, -nearest.similarity)):
        row, trained = int(nearest.rows[i]), int(nearest.gene[i])
        if trained < 0 or len(found) == _CLOSEST:
            break
        gene = genes[gene_of_row[row]]
        pair = ClosePair(
            part=part,
            modality=modality,
            transcript_id=samples["transcript_id"].iloc[row],
            gene_id=gene,
            gene_name=names[gene],
            similarity=float(nearest.similarity[i]),
            trained_gene_id=genes[trained],
            trained_gene_name=names[genes[trained]],
        )
        found.setdefault((int(gene_of_row[row]), trained), pair)
    return list(found.values())
