"""A dataset from FASTA files, one a modality, with or without a table of targets; joined by ID."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from embedcache.dataset import SAMPLE_COLUMNS, Dataset, read_dataset
from embedcache.dataset_write import DatasetWriter, made_by_same_command
from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.prepare.common import (
    Assembled,
    check_header,
    check_unit,
    finish_dataset,
    join_targets,
    provenance,
    target_frame,
)
from embedcache.sequences import Modality, read_fasta
from embedcache.splits import SplitRule, split_name
from embedcache.tables import TargetTable, read_names, read_table, read_target_table

__all__ = ["prepare_fasta", "read_genes"]

_MANY_LETTERS = 100


def prepare_fasta(
    *,
    output: Path,
    dna: Path | None = None,
    rna: Path | None = None,
    protein: Path | None = None,
    targets: Path | None = None,
    genes: Path | None = None,
    id_column: str | None = None,
    gene_column: str | None = None,
    drop_columns: Sequence[str] = (),
    already_log: bool = False,
    target_unit: str | None = None,
    strip_versions: bool = False,
    only_measured: bool = False,
    splits: SplitRule | None = None,
    encoders: Mapping[Modality, str] | None = None,
) -> Dataset:
    """Prepare a dataset from FASTA files; an ID that is in any of them is a row, in the order of the files.

    Args:
        output: Directory to make.
        dna: FASTA of DNA windows.
        rna: FASTA of RNA, in letters with T or U.
        protein: FASTA of proteins.
        targets: Table of transcripts by tissues, TSV, CSV or Parquet; empty = not measured.
        genes: Table of transcript and gene in its first two columns. A transcript that neither this table nor
            the column of genes knows is a gene of its own, and is counted.
        id_column: Column of transcript IDs in the targets; the first without it.
        gene_column: Column of gene IDs in the targets.
        drop_columns: Columns of the targets that are no tissues.
        already_log: Targets are on a log scale and are taken as they are; without it they are TPM.
        target_unit: Unit of such values, for the record.
        strip_versions: Join targets whose IDs differ in their version only.
        only_measured: Leave out IDs without targets.
        splits: How genes are split; a rule by column reads that column of the ``genes`` table.
        encoders: Default encoder of a modality.
    """
    splits = splits or SplitRule()
    files: dict[Modality, Path | None] = {"dna": dna, "rna": rna, "protein": protein}
    _check_settings(files, targets, genes, splits, only_measured=only_measured)
    check_unit(target_unit, already_log=already_log)
    columns: dict[str, Any] = {"id_column": id_column, "gene_column": gene_column, "drop_columns": list(drop_columns)}
    scale = {"already_log": already_log, "target_unit": target_unit}
    joining = {"strip_versions": strip_versions, "only_measured": only_measured, "splits": splits.options()}
    optional = (*files.items(), ("targets", targets), ("genes", genes))
    given = {"files": [name for name, path in optional if path]}
    options = {**columns, **scale, **joining, **given}
    info = provenance("fasta", (*files.values(), targets, genes), options, encoders)
    if found := made_by_same_command(output, info):
        return found
    table = read_target_table(targets, already_log=already_log, unit=target_unit, **columns) if targets else None
    with DatasetWriter(output) as writer:
        made = _make_rows(
            writer, files, table, genes, splits, strip_versions=strip_versions, only_measured=only_measured
        )
        finish_dataset(writer, info, made, {}, table.unit if table else None)
    return read_dataset(output)


def _make_rows(
    writer: DatasetWriter,
    files: Mapping[Modality, Path | None],
    table: TargetTable | None,
    genes: Path | None,
    splits: SplitRule,
    *,
    strip_versions: bool,
    only_measured: bool,
) -> Assembled:
    """Write all sequences and return their rows, with targets, genes and splits."""
    gene_of, split_of = read_genes(genes, splits)
    rows, counts = _read_sequences(writer, files)
    left_out = Counter[str]()
    if genes is not None:
        _check_genes(genes, gene_of, rows, left_out)
    rows, frame = _join(rows, table, counts, left_out, strip_versions=strip_versions, only_measured=only_measured)
    _give_genes(rows, gene_of, counts)
    _give_splits(rows, splits, genes, split_of)
    for modality in files:
        counts[f"transcripts with {modality}"] = sum(f"{modality}_key" in row for row in rows)
    samples = pd.DataFrame(rows, columns=pd.Index(list(SAMPLE_COLUMNS)))
    return Assembled(samples=samples, targets=frame, counts=counts, left_out=left_out)


def _check_settings(
    files: Mapping[Modality, Path | None],
    targets: Path | None,
    genes: Path | None,
    splits: SplitRule,
    *,
    only_measured: bool,
) -> None:
    if not any(files.values()):
        raise InvalidSettingError("No sequences are given. Give --dna, --rna or --protein, or several of them.")
    if only_measured and targets is None:
        raise InvalidSettingError("Only measured transcripts are wanted, but there are no targets. Give --targets.")
    if splits.kind == "column" and genes is None:
        raise InvalidSettingError(f"The split is to come from column {splits.column!r}, but of no table. Give --genes.")


def _give_splits(
    rows: list[dict[str, Any]], splits: SplitRule, genes: Path | None, split_of: Mapping[str, str] | None
) -> None:
    values = None if split_of is None else [_known_split(genes, split_of, row["transcript_id"]) for row in rows]
    for row, split in zip(rows, splits.assign([r["gene_id"] for r in rows], column_values=values), strict=True):
        row["split"] = split


def read_genes(path: Path | None, splits: SplitRule) -> tuple[dict[str, str], dict[str, str] | None]:
    """Gene of each transcript from a two-column table, and its split if the rule reads a column of it."""
    if path is None:
        return {}, None
    table = read_table(path)
    if len(table.columns) < 2:
        raise InvalidInputError(f"{path} has one column. Give a table with a header: transcript, gene.")
    ids, genes = (read_names(path, table, str(column)) for column in table.columns[:2])
    twice = [name for name, n in Counter(ids).items() if n > 1]
    if twice:
        raise InvalidInputError(f"{path}: transcript {twice[0]!r} comes twice. Give each one row.")
    split_of = None
    if splits.kind == "column":
        if splits.column not in table.columns:
            raise UnknownNameError(f"column of {path}:", splits.column, map(str, table.columns))
        values = read_names(path, table, splits.column)
        for line, value in enumerate(values, start=2):
            split_name(value, f"{path}, line {line}: ")
        split_of = dict(zip(ids, values, strict=True))
    return dict(zip(ids, genes, strict=True)), split_of


def _check_genes(
    path: Path, gene_of: Mapping[str, str], rows: Sequence[Mapping[str, Any]], left_out: Counter[str]
) -> None:
    """Refuse a table of genes of other transcripts, and count what it has beyond ours."""
    ids = {row["transcript_id"] for row in rows}
    check_header(path, str(read_table(path).columns[0]), ids)
    strangers = [name for name in gene_of if name not in ids]
    if len(strangers) == len(gene_of):
        raise InvalidInputError(
            f"No transcript of {path} is in the FASTA files: IDs look like {next(iter(gene_of), '')!r} and "
            f"{rows[0]['transcript_id']!r}. Give matching IDs in its first column."
        )
    left_out["rows of genes without sequence"] = len(strangers)


def _known_split(path: Path | None, split_of: Mapping[str, str], identifier: str) -> str:
    if identifier not in split_of:
        raise InvalidInputError(f"{path} has no row for transcript {identifier!r}. Give every transcript its split.")
    return split_of[identifier]


def _read_sequences(
    writer: DatasetWriter, files: Mapping[Modality, Path | None]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """One row an ID, with the keys of the modalities it has, and counts for the record."""
    rows: dict[str, dict[str, Any]] = {}
    counts = Counter[str]()
    for modality, path in files.items():
        if path is not None:
            n_letters, letters = 0, set[str]()
            for record in tqdm(read_fasta(path, modality), desc=modality, unit=" records", disable=None):
                row = rows.setdefault(record.id, {"transcript_id": record.id})
                row[f"{modality}_key"] = writer.add(modality, record.sequence)
                counts[f"ambiguous {modality} letters read as N"] += record.ambiguous
                n_letters += len(record.sequence)
                letters.update(record.sequence)
            # nucleotides are letters of proteins too, so that a file in the wrong place would pass
            if modality == "protein" and n_letters >= _MANY_LETTERS and set("ACG") <= letters <= set("ACGTUN"):
                raise InvalidInputError(
                    f"{path} holds no proteins: its {n_letters:,} letters are all of A, C, G, T, U and N. Give it as "
                    "--rna or --dna, or give the proteins."
                )
    return list(rows.values()), Counter({"transcripts": len(rows)}) + counts


def _join(
    rows: list[dict[str, Any]],
    table: TargetTable | None,
    counts: Counter[str],
    left_out: Counter[str],
    *,
    strip_versions: bool,
    only_measured: bool,
) -> tuple[list[dict[str, Any]], pd.DataFrame | None]:
    """Targets in the order of the rows; gives rows the gene that the targets name."""
    if table is None:
        return rows, None
    ids = [row["transcript_id"] for row in rows]
    joined = join_targets(table, ids, strip_versions=strip_versions, where="the FASTA files")
    values, measured = joined.values, joined.measured
    for row, at in zip(rows, joined.rows.tolist(), strict=True):
        if at >= 0 and table.genes is not None:
            row["gene_id"] = table.genes[at]
    counts.update(joined.counts)
    left_out["rows of targets without sequence"] = len(table.ids) - int(measured.sum())
    if only_measured:
        left_out["transcripts without targets"] = int((~measured).sum())
        rows = [rows[i] for i in np.flatnonzero(measured)]
        values = values[measured]
    return rows, target_frame(values, table.tissues)


def _give_genes(rows: list[dict[str, Any]], gene_of: Mapping[str, str], counts: Counter[str]) -> None:
    """Gene of each row: from the table of genes, else from the targets, else the transcript itself."""
    for row in rows:
        gene = gene_of.get(row["transcript_id"]) or row.get("gene_id")
        if not gene:
            counts["transcripts that are genes of their own"] += 1
        row["gene_id"] = gene or row["transcript_id"]
    counts["genes"] = len({row["gene_id"] for row in rows})
