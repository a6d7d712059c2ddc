"""A dataset from the published IsoFormer table (one row a transcript), with DNA cut from a genome FASTA.

``start`` and ``end`` of the table are 1-based and inclusive; RNA, CDS and protein are in the table.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from embedcache.dataset import SAMPLE_COLUMNS, Dataset, read_dataset
from embedcache.dataset_write import DatasetWriter, made_by_same_command
from embedcache.errors import InvalidInputError, InvalidSequenceError, UnknownNameError
from embedcache.genome import open_genome
from embedcache.prepare.assemble import check_dna_length
from embedcache.prepare.common import Assembled, finish_dataset, provenance, target_frame
from embedcache.prepare.isoformer_rows import RowReader
from embedcache.sequences import Modality
from embedcache.splits import SplitRule, split_name
from embedcache.tables import MOST_TPM, stream_table

__all__ = ["TISSUES", "TableValues", "prepare_isoformer"]

TableValues = Literal["z-score", "log1p", "tpm"]
_UNITS = {"z-score": "z_score_of_log1p_tpm", "log1p": "log1p_tpm", "tpm": "log1p_tpm"}

TISSUES = (
    "Adipose Tissue", "Adrenal Gland", "Bladder", "Blood", "Blood Vessel", "Brain", "Breast", "Cervix Uteri",
    "Colon", "Esophagus", "Fallopian Tube", "Heart", "Kidney", "Liver", "Lung", "Muscle", "Nerve", "Ovary",
    "Pancreas", "Pituitary", "Prostate", "Salivary Gland", "Skin", "Small Intestine", "Spleen", "Stomach",
    "Testis", "Thyroid", "Uterus", "Vagina",
)  # fmt: skip
"""The tissues of GTEx v8 that the table has: SMTS without Bone Marrow."""

_REQUIRED = ("transcript_id_gtex", "gene_id_gtex", "chr", "strand", "start", "end", "RNA", "Protein")
_BLOCK_BYTES = 16 << 20  # more than the longest line


def prepare_isoformer(
    *,
    table: Path,
    output: Path,
    genome: Path | None = None,
    values: TableValues = "z-score",
    tissues: Sequence[str] | None = None,
    dna_length: int = 12_288,
    genetic_codes: Mapping[str, int] | None = None,
    splits: SplitRule | None = None,
    encoders: Mapping[Modality, str] | None = None,
) -> Dataset:
    """Prepare a dataset from the published table, read in pieces.

    Args:
        table: ``GTEx_final.csv``, plain or gzip-compressed.
        output: Directory to make.
        genome: FASTA of hg38; without it the dataset has no DNA.
        values: What the table holds. The file of the default revision is z-scored by its authors, over rows that
            may include the test split; revision ``un-standardized-values`` is not. The unit goes into
            ``dataset.json``; ``tpm`` is brought to log1p, the others stay as they are.
        tissues: Columns of targets; by default those that bear the name of one of the 30 GTEx tissues.
        dna_length: Length of the DNA window in bp.
        genetic_codes: NCBI table of a contig of ``table``; 2 for chrMT and its other names, else 1.
        splits: How genes are split; the column ``split`` of the table without it.
        encoders: Default encoder of a modality.

    Raises:
        InvalidInputError: A row that is not what it should be, with its number in the file.
        UnknownNameError: A column that is not there.
        SplitError: A gene is in two splits.
    """
    splits = splits or SplitRule(kind="column", column="split")
    check_dna_length(dna_length)
    options = {
        "values": values,
        "tissues": list(tissues) if tissues is not None else None,
        "dna_length": dna_length if genome else None,
        "genetic_codes": dict(genetic_codes or {}),
        "splits": splits.options(),
    }
    info = provenance("isoformer", (table, genome), options, encoders)
    if found := made_by_same_command(output, info):
        return found
    columns = read_columns(table, splits)
    names = choose_tissues(table, columns, tissues)
    with DatasetWriter(output) as writer:
        with open_genome(genome, writer.scratch) if genome else nullcontext() as opened:
            reader = RowReader(
                path=table, writer=writer, genome=opened, dna_length=dna_length, genetic_codes=dict(genetic_codes or {})
            )
            targets, split_values = _read_rows(table, reader, names, values, splits)
        reader.check_genetic_codes()
        _assign_splits(reader.rows, splits, split_values)
        made = _assembled(reader, target_frame(targets, names))
        finish_dataset(writer, info, made, reader.codes_used(), _UNITS[values])
    return read_dataset(output)


def _assembled(reader: RowReader, targets: pd.DataFrame) -> Assembled:
    reader.counts["genes"] = len({row["gene_id"] for row in reader.rows})
    samples = pd.DataFrame(reader.rows, columns=pd.Index(list(SAMPLE_COLUMNS)))
    return Assembled(samples=samples, targets=targets, counts=reader.counts, left_out=reader.left_out)


def _assign_splits(rows: list[dict[str, Any]], splits: SplitRule, values: list[str]) -> None:
    names = splits.assign(
        [row["gene_id"] for row in rows],
        chromosomes=[row["chromosome"] for row in rows],
        column_values=values if splits.kind == "column" else None,
    )
    for row, name in zip(rows, names, strict=True):
        row["split"] = name


def read_columns(path: Path, splits: SplitRule) -> list[str]:
    """Names of the columns; those that are always needed must be there."""
    found = [str(name) for name in next(stream_table(path)).columns]
    for name in (*_REQUIRED, *([splits.column] if splits.kind == "column" else [])):
        if name not in found:
            raise UnknownNameError(f"column of {path}:", name, found)
    return found


def choose_tissues(path: Path, columns: Sequence[str], asked: Sequence[str] | None) -> list[str]:
    """Target columns, in the order of the file unless they were asked for by name."""
    if asked is not None:
        for name in asked:
            if name not in columns:
                raise UnknownNameError(f"column of {path}:", name, columns)
        return list(dict.fromkeys(asked))
    known = {name.lower() for name in TISSUES}
    chosen = [name for name in columns if name.replace("_", " ").lower() in known]
    if not chosen:
        raise InvalidInputError(f"{path} has no column named like a GTEx tissue. Name the target columns (--tissue).")
    return chosen


def _read_rows(
    path: Path, reader: RowReader, tissues: list[str], values: TableValues, splits: SplitRule
) -> tuple[NDArray[np.float64], list[str]]:
    targets: list[NDArray[np.float64]] = []
    split_values: list[str] = []
    n_read = 0
    progress = tqdm(desc="transcripts", unit=" rows", disable=None)
    for chunk in stream_table(path, block_bytes=_BLOCK_BYTES):
        chunk.index = pd.RangeIndex(n_read + 2, n_read + 2 + len(chunk))  # lines of the file
        n_read += len(chunk)
        numbers = _targets(path, chunk, tissues, values)
        for at, (line, row) in enumerate(zip(chunk.index, chunk.to_dict("records"), strict=True)):
            try:
                kept = reader.add(int(line), {str(name): str(value) for name, value in row.items()})
            except InvalidSequenceError as error:
                raise InvalidSequenceError(f"{path}, line {line}: {error}") from None
            if kept:
                if splits.kind == "column":
                    split_name(str(row[splits.column]), f"{path}, line {line}: ")
                targets.append(numbers[at])
                split_values.append(str(row.get(splits.column, "")))
        progress.update(len(chunk))
    progress.close()
    if not targets:
        raise InvalidInputError(f"{path} has no row{' with RNA' if n_read else ''}. Give the published table.")
    return np.stack(targets), split_values


def _targets(path: Path, chunk: pd.DataFrame, tissues: list[str], values: TableValues) -> NDArray[np.float64]:
    cells = chunk[tissues]
    numbers: NDArray[np.float64] = cells.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = (~np.isfinite(numbers) & (cells != "").to_numpy()) | ((numbers < 0) & (values != "z-score"))
    bad |= (numbers > MOST_TPM) & (values == "tpm")
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InvalidInputError(
            f"{path}, line {chunk.index[row]}, column {tissues[column]!r}: {cells.iat[row, column]!r} is no value of "
            f"the kind {values}. Choose what the table holds: z-score, log1p or tpm."
        )
    return np.log1p(numbers) if values == "tpm" else numbers
