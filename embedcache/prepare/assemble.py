"""Assembles the rows of a dataset from an annotated genome: one row a transcript, in the order of the GTF."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from embedcache.annotation import Annotation, Transcript
from embedcache.dataset import SAMPLE_COLUMNS
from embedcache.dataset_write import DatasetWriter
from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.genome import Genome, open_genome, window_bounds
from embedcache.prepare.common import Assembled, join_targets, target_frame
from embedcache.splits import SplitError, SplitRule
from embedcache.tables import TargetTable
from embedcache.transcripts import VERTEBRATE_MITOCHONDRIA, check_genetic_code, read_coding_sequence, splice

__all__ = ["AssemblyRules", "MissingContigs", "assemble", "check_dna_length", "choose_genetic_codes"]

MissingContigs = Literal["error", "leave-out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyRules:
    """How rows are made of transcripts; part of the record of a dataset."""

    strip_versions: bool = False
    """Join targets whose IDs differ in their version only."""
    dna_length: int
    """Length of the DNA window in bp."""
    genetic_codes: Mapping[str, int] = field(default_factory=dict)
    """NCBI table of a contig that is not read with table 1."""
    only_measured: bool = False
    """Leave out transcripts without targets."""
    missing_contigs: MissingContigs = "error"
    splits: SplitRule

    def __post_init__(self) -> None:
        check_dna_length(self.dna_length)
        if self.splits.kind == "column":
            raise SplitError("A genome has no column of splits. Split by fractions or by chromosomes.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "genetic_codes": dict(self.genetic_codes), "splits": self.splits.options()}


def check_dna_length(length: int) -> None:
    """A window has at least one base.

    Raises:
        InvalidSettingError: It has not.
    """
    if length < 1:
        raise InvalidSettingError(f"The DNA window has {length} bp. Give at least 1.")


def choose_genetic_codes(contigs: set[str], asked: Mapping[str, int] | None) -> dict[str, int]:
    """NCBI table of each contig that is not read with table 1.

    Raises:
        UnknownNameError: A contig that no transcript is on, or a table that does not exist.
    """
    codes = {contig: 2 for contig in VERTEBRATE_MITOCHONDRIA if contig in contigs}
    for contig, code in (asked or {}).items():
        if contig not in contigs:
            raise UnknownNameError("contig", contig, contigs)
        check_genetic_code(code)
        codes[contig] = code
    return codes


def assemble(
    writer: DatasetWriter,
    annotation: Annotation,
    genome: Path,
    *,
    targets: TargetTable | None,
    rules: AssemblyRules,
) -> Assembled:
    """Write all sequences of the transcripts and return their rows."""
    counts, left_out = Counter(annotation.counts), Counter(annotation.left_out)
    transcripts, values = _with_targets(annotation, targets, counts, left_out, rules)
    with open_genome(genome, writer.scratch) as opened:
        present = _on_known_contigs(opened, annotation, transcripts, rules.missing_contigs)
        left_out["transcripts on contigs that the genome lacks"] = int((~present).sum())
        transcripts = [transcript for transcript, keep in zip(transcripts, present, strict=True) if keep]
        values = values[present] if values is not None else None
        split_names = rules.splits.assign(
            [transcript.gene_id for transcript in transcripts],
            chromosomes=[transcript.contig for transcript in transcripts],
        )
        rows = _Rows(writer=writer, genome=opened, rules=rules, counts=counts, left_out=left_out)
        for transcript, split in tqdm(
            zip(transcripts, split_names, strict=True), total=len(transcripts), desc="transcripts", disable=None
        ):
            rows.add(transcript, split)
    counts["transcripts"], counts["genes"] = len(transcripts), len({transcript.gene_id for transcript in transcripts})
    samples = pd.DataFrame(rows.rows, columns=pd.Index(list(SAMPLE_COLUMNS)))
    frame = None if values is None or targets is None else target_frame(values, targets.tissues)
    return Assembled(samples=samples, targets=frame, counts=counts, left_out=left_out)


def _with_targets(
    annotation: Annotation,
    targets: TargetTable | None,
    counts: Counter[str],
    left_out: Counter[str],
    rules: AssemblyRules,
) -> tuple[list[Transcript], NDArray[np.float64] | None]:
    """Transcripts to keep and their targets, (transcripts, tissues)."""
    transcripts = list(annotation.transcripts.values())
    if targets is None:
        return transcripts, None
    ids = [transcript.id for transcript in transcripts]
    joined = join_targets(targets, ids, strip_versions=rules.strip_versions, where=str(annotation.path))
    counts.update(joined.counts)
    left_out["rows of targets without transcript"] = len(targets.ids) - int(joined.measured.sum())
    if not rules.only_measured:
        return transcripts, joined.values
    left_out["transcripts without targets"] = int((~joined.measured).sum())
    return [transcripts[i] for i in np.flatnonzero(joined.measured)], joined.values[joined.measured]


def _on_known_contigs(
    genome: Genome, annotation: Annotation, transcripts: list[Transcript], missing: MissingContigs
) -> NDArray[np.bool_]:
    present = np.array([transcript.contig in genome for transcript in transcripts], dtype=bool)
    if (missing == "error" and not present.all()) or not present.any():
        first = transcripts[int((~present).argmax())]
        known = list(genome.contigs)
        way_out = ", or leave such transcripts out with --missing-contigs leave-out" if present.any() else ""
        raise InvalidInputError(
            f"{annotation.path}, line {first.line}: contig {first.contig!r} of {int((~present).sum())} transcripts is "
            f"not in {genome.path}, whose contigs are {', '.join(known[:3])}{' ...' if len(known) > 3 else ''}. Give "
            f"the FASTA of the annotation{way_out}."
        )
    return present


@dataclass(slots=True, kw_only=True)
class _Rows:
    """Turns transcripts into rows one by one, and counts."""

    writer: DatasetWriter
    genome: Genome
    rules: AssemblyRules
    counts: Counter[str]
    left_out: Counter[str]
    windows: dict[tuple[str, int, str], bytes] = field(default_factory=dict)  # isoforms of one TSS share a window
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, transcript: Transcript, split: str) -> None:
        code = self.rules.genetic_codes.get(transcript.contig, 1)
        rna = splice(self.genome, transcript)
        row: dict[str, Any] = {
            "transcript_id": transcript.id,
            "gene_id": transcript.gene_id,
            "gene_name": transcript.gene_name,
            "chromosome": transcript.contig,
            "strand": transcript.strand,
            "tss": transcript.tss + 1,
            "biotype": transcript.biotype,
            "genetic_code": code,
            "split": split,
            "dna_key": self._window(transcript),
            "rna_key": self.writer.add("rna", rna),
        }
        if transcript.cds:
            coding = read_coding_sequence(transcript, rna, code)
            if coding.note:
                self.counts[coding.note] += 1
            if coding.protein is None:
                self.left_out[f"protein: {coding.problem}"] += 1
            else:
                self.counts["proteins"] += 1
                row["protein_key"] = self.writer.add("protein", coding.protein)
                row["cds_start"], row["cds_end"] = coding.start, coding.end
        self.rows.append(row)

    def _window(self, transcript: Transcript) -> bytes:
        place = (transcript.contig, transcript.tss, transcript.strand)
        if place not in self.windows:
            start, end = window_bounds(transcript.tss, transcript.strand, self.rules.dna_length)
            if start < 0 or end > self.genome.length(transcript.contig):
                self.counts["DNA windows that leave their contig"] += 1
            self.windows[place] = self.writer.add("dna", self.genome.window(*place, self.rules.dna_length))
        return self.windows[place]
