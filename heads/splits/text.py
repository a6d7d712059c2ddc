"""A split as text for people, and its rows as a table for programs."""

import csv
import io
from pathlib import Path
from typing import get_args

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError
from embedcache.store.files import replace_file
from heads.split_config import SplitUnit
from heads.splits.describe import ClosePair, Part, SplitReport
from heads.table import format_table

__all__ = ["format_report", "write_rows"]

_HEADER = ["transcript_id", "gene_id", "unit", "part"]
_SHOWN = 5
_UNITS: dict[SplitUnit, str] = {
    "given": "as given in the dataset",
    "gene": "by gene",
    "chromosome": "by chromosome",
    "similarity": "by sequence similarity",
    "column": "by column",
}
assert set(_UNITS) == set(get_args(SplitUnit))


def format_report(report: SplitReport) -> str:
    """The whole report, ready to print."""
    config = report.config
    drawn = "" if report.unit == "given" else f", seed {config['seed']}"
    head = [
        f"{report.dataset}: split {_UNITS[report.unit]}{drawn}{_place(report)}",
        f"{report.n_units:,} units stay together, the largest has {report.largest_unit:,} transcripts",
    ]
    if report.labels:
        head.append(f"NOTE: {'; '.join(report.labels)}")
    if kept := sum(not part for part in report.part_of_row):
        head.append(f"{kept:,} transcripts of the outer test part are in none of these splits")
    blocks = ["\n".join(head), format_table(_sizes(report))]
    if report.closeness:
        blocks += [format_table(_closeness(report)), _notes(report)]
        blocks += [_closest(report, modality) for modality in dict.fromkeys(one.modality for one in report.closeness)]
    return "\n\n".join([*blocks, _verdict(report)])


def write_rows(report: SplitReport, dataset: Dataset, output: Path) -> None:
    """Write transcript_id, gene_id, unit and part of each row as TSV; an older file of this kind is replaced.

    Raises:
        InvalidInputError: The output is a directory or a file of something else, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(_HEADER)
    ids = dataset.samples["transcript_id"], dataset.samples["gene_id"]
    writer.writerows(zip(*ids, report.unit_of_row, report.part_of_row, strict=True))
    try:
        if output.exists() and output.read_bytes()[:100].partition(b"\n")[0] != "\t".join(_HEADER).encode():
            raise InvalidInputError(f"{output} exists and is no table of a split. Choose another output, or remove it.")
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, [text.getvalue().encode()])
    except OSError as error:
        raise InvalidInputError(
            f"{output} cannot be written: {error.strerror or error}. Choose another output, or free space."
        ) from error


def _place(report: SplitReport) -> str:
    if report.unit == "given":
        return ""
    config = report.config
    folds = f", {config['folds']} folds"
    if report.parts[0].name != "train":
        return folds
    inner = f", inner fold {config['inner_fold']} of {config['inner_folds']}" if config["inner_folds"] else ""
    return f"{folds}, tested on fold {config['fold']}{inner}"


def _sizes(report: SplitReport) -> list[list[str]]:
    rows = [["", "transcripts", "genes", "units", "with protein", "mean target", "sd", "chromosomes"]]
    return rows + [_size(part) for part in report.parts]


def _size(part: Part) -> list[str]:
    mean, sd = ("-" if value is None else f"{value:.2f}" for value in (part.target_mean, part.target_sd))
    counts = [part.transcripts, part.genes, part.units]
    n_chromosomes = f"{len(part.chromosomes)}" if part.chromosomes else "-"
    return [part.name, *(f"{count:,}" for count in counts), f"{part.coding:.0%}", mean, sd, n_chromosomes]


def _closeness(report: SplitReport) -> list[list[str]]:
    rows = [["closest trained gene", "transcripts", "median", "90 %", ">= 0.5", ">= 0.9", "alike"]]
    return rows + [
        [
            f"{one.modality}, {one.part}",
            f"{one.transcripts:,}",
            f"{one.median:.2f}",
            f"{one.upper:.2f}",
            *(f"{share:.1%}" for share in (one.share_half, one.share_high, one.share_alike)),
        ]
        for one in report.closeness
    ]


def _notes(report: SplitReport) -> str:
    least = {one.modality: one.least for one in report.closeness}
    alike = " and ".join(f"{limit:g} for {modality}" for modality, limit in least.items())
    return (
        "Similarity is the share of equal letters that the common k-mers tell of, 0 where they are fewer than three;\n"
        f"alike from {alike} on. 90 %: nine of ten transcripts are no closer."
    )


def _closest(report: SplitReport, modality: str) -> str:
    pairs = [pair for pair in report.closest if pair.modality == modality and pair.similarity > 0][:_SHOWN]
    if not pairs:
        return f"{modality}: no transcript has anything in common with a trained gene."
    return "\n".join([f"closest in {modality}:", *map(_pair, pairs)])


def _pair(pair: ClosePair) -> str:
    tested, trained = pair.gene_name or pair.gene_id, pair.trained_gene_name or pair.trained_gene_id
    return f"  {pair.similarity:.2f}  {pair.transcript_id} of {tested} ({pair.part}) and {trained}"


def _verdict(report: SplitReport) -> str:
    if report.share_alike is None:
        return "Nothing to compare: the dataset has neither RNAs nor proteins."
    if report.share_alike == 0:
        return "No transcript held out is alike to a gene trained on."
    found = f"{report.share_alike:.1%} of the transcripts held out are alike to a gene trained on"
    if report.unit == "similarity":
        return f"{found}, as this looks closer than the tool that made the groups."
    return f"Relatives leak: {found}. `--by similarity` keeps them together."
