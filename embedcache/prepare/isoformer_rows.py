"""One row of the published IsoFormer table: its sequences, checked against each other."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcache.dataset_write import DatasetWriter
from embedcache.errors import InvalidInputError, InvalidSequenceError, UnknownNameError
from embedcache.genome import Genome
from embedcache.sequences import normalise
from embedcache.transcripts import VERTEBRATE_MITOCHONDRIA, check_cds

__all__ = ["RowReader", "contig_aliases"]

_STRANDS = {"+": "+", "1": "+", "-": "-", "-1": "-"}


def contig_aliases(name: str) -> list[str]:
    """Other names of a contig: with and without ``chr``, and those of the mitochondrial genome."""
    bare = name.removeprefix("chr")
    if bare in ("M", "MT"):
        return [other for other in ("chrM", "MT", "chrMT", "M") if other != name]
    return [bare if name.startswith("chr") else f"chr{name}"]


def _is_place(text: str) -> bool:
    """Whether a text is a 1-based coordinate on any genome there is."""
    return text.isascii() and text.isdigit() and len(text) < 16 and int(text) >= 1


@dataclass(slots=True, kw_only=True)
class RowReader:
    """Turns rows of the table into samples one by one, and counts."""

    path: Path
    writer: DatasetWriter
    genome: Genome | None
    dna_length: int
    genetic_codes: dict[str, int]
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    contigs: dict[str, str] = field(default_factory=dict)  # name in the table to name in the genome
    windows: dict[tuple[str, int, str], bytes] = field(default_factory=dict)

    def codes_used(self) -> dict[str, int]:
        """NCBI table of each contig that is not read with table 1."""
        names = {row["chromosome"]: row["genetic_code"] for row in self.rows}
        return {name: code for name, code in names.items() if code != 1}

    def check_genetic_codes(self) -> None:
        """Raise UnknownNameError if a code was chosen for a contig that no row is on."""
        contigs = {str(row["chromosome"]) for row in self.rows}
        for contig in self.genetic_codes:
            if contig not in contigs:
                raise UnknownNameError("contig", contig, contigs)

    def add(self, line: int, row: Mapping[str, str]) -> bool:
        """Add a row of the table; False if it has no RNA and was left out."""
        identifier = row["transcript_id_gtex"]
        if not identifier:
            raise InvalidInputError(f"{self.path}, line {line}: no transcript ID. Give every row its ID.")
        for name in (identifier, row["gene_id_gtex"], row["chr"]):
            if not name.isprintable():
                raise InvalidInputError(f"{self.path}, line {line}: {name!r} is no name. Write printable letters.")
        if (first := self.lines.setdefault(identifier, line)) != line:
            raise InvalidInputError(
                f"{self.path}, line {line}: transcript {identifier!r} was on line {first}. Give each one row."
            )
        if not row["RNA"]:
            self.left_out["transcripts without RNA"] += 1
            return False
        if not row["gene_id_gtex"]:
            self.counts["transcripts that are genes of their own"] += 1
        contig = row["chr"]
        code = self.genetic_codes.get(contig, 2 if contig in VERTEBRATE_MITOCHONDRIA else 1)
        rna = normalise(row["RNA"], "rna")
        strand, tss = self._tss(line, row)
        sample: dict[str, Any] = {
            "transcript_id": identifier,
            "gene_id": row["gene_id_gtex"] or identifier,
            "gene_name": row.get("gene_name") or None,
            "chromosome": contig,
            "strand": strand,
            "tss": tss + 1,
            "genetic_code": code,
            "rna_key": self.writer.add("rna", rna),
        }
        if self.genome is not None:
            sample["dna_key"] = self._window(line, self.genome, contig, tss, strand)
        if row["Protein"]:
            self._add_protein(sample, row, rna, code)
        self.counts["transcripts"] += 1
        self.rows.append(sample)
        return True

    def _tss(self, line: int, row: Mapping[str, str]) -> tuple[str, int]:
        """Strand and 0-based TSS."""
        strand = _STRANDS.get(row["strand"].removesuffix(".0"))
        start, end = (row[name].removesuffix(".0") for name in ("start", "end"))
        if strand is None or not (_is_place(start) and _is_place(end) and int(start) <= int(end)):
            raise InvalidInputError(
                f"{self.path}, line {line}: strand {row['strand']!r}, start {row['start']!r}, end {row['end']!r}. "
                "Expected + or -, and 1-based start <= end."
            )
        return strand, (int(start) if strand == "+" else int(end)) - 1

    def _window(self, line: int, genome: Genome, contig: str, tss: int, strand: str) -> bytes:
        if contig not in self.contigs:
            names = [name for name in (contig, *contig_aliases(contig)) if name in genome]
            if not names:
                raise InvalidInputError(
                    f"{self.path}, line {line}: contig {contig!r} is not in {genome.path}. Give the FASTA of hg38."
                )
            self.contigs[contig] = names[0]
        name = self.contigs[contig]
        self.counts["transcripts whose contig has another name in the genome"] += name != contig
        if tss >= genome.length(name):
            raise InvalidInputError(
                f"{self.path}, line {line}: TSS {tss + 1} lies past the end of contig {name!r} ({genome.length(name)} "
                f"bp) of {genome.path}. Give the FASTA of hg38."
            )
        place = (name, tss, strand)
        if place not in self.windows:
            self.windows[place] = self.writer.add("dna", genome.window(*place, self.dna_length))
        return self.windows[place]

    def _add_protein(self, sample: dict[str, Any], row: Mapping[str, str], rna: str, code: int) -> None:
        """The protein of the table, and the bounds of its CDS where the two agree."""
        try:
            protein = normalise(row["Protein"], "protein")
        except InvalidSequenceError:
            self.left_out["protein: letters that are not allowed (a stop inside)"] += 1
            return
        self.counts["proteins"] += 1
        sample["protein_key"] = self.writer.add("protein", protein)
        if not row.get("CDS"):
            self.counts["proteins without CDS"] += 1
            return
        cds = normalise(row["CDS"], "rna")
        start = self._cds_start(row, rna, cds)
        if start is None:
            self.counts["CDS that cannot be placed on the RNA"] += 1
            return
        coding = check_cds(rna, start, start + len(cds), code)
        if coding.protein != protein:
            self.counts["CDS that does not translate to the protein given"] += 1
            return
        sample["cds_start"], sample["cds_end"] = coding.start, coding.end

    def _cds_start(self, row: Mapping[str, str], rna: str, cds: str) -> int | None:
        """Where the CDS starts: behind the 5'UTR if the three pieces make the RNA, else where it is found once."""
        pieces = (row.get(name, "") for name in ("5UTR", "3UTR"))
        before, after = (normalise(piece, "rna") if piece else "" for piece in pieces)
        if f"{before}{cds}{after}" == rna:
            return len(before)
        if before or after:
            self.counts["RNA that is not 5'UTR + CDS + 3'UTR"] += 1
        start = rna.find(cds)
        return start if start >= 0 and rna.find(cds, start + 1) < 0 else None
