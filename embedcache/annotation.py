"""Transcripts of a GTF file: where their exons and coding pieces lie on the genome.

Reads the dialects of GENCODE, Ensembl and RefSeq. Coordinates become 0-based and half-open. IDs stay as given.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from embedcache.errors import InvalidInputError
from embedcache.gtf_lines import GtfLine, exon_number, parse_line, read_names, split_line
from embedcache.text import read_lines

__all__ = ["Annotation", "Transcript", "read_gtf"]

_WHOLE = frozenset({"transcript", "mRNA"})  # features that carry the names of a transcript
_PIECES = frozenset({"exon", "CDS", "stop_codon"})
_CODONS = ("start_codon", "Selenocysteine")
_REGIONS = ("UTR", "5UTR", "3UTR", "five_prime_utr", "three_prime_utr", "intron", "intron_CNS", "inter", "inter_CNS")
_NOT_READ = frozenset({"gene", *_CODONS, *_REGIONS})  # what they say follows from exons and CDS
_MOST_FEATURES = 10  # names of unknown features that are counted one by one
_STRANDS = ("+", "-")
_INCOMPLETE_TAGS = ("cds_start_NF", "cds_end_NF")


@dataclass(slots=True)
class Transcript:
    """One transcript: names and pieces on the genome, 0-based and half-open, in ascending order."""

    id: str
    gene_id: str
    gene_name: str | None
    contig: str
    strand: str
    biotype: str | None
    line: int
    cds_incomplete: bool = False
    """The annotation itself says that the start or the end of the CDS was not found."""
    exons: list[tuple[int, int]] = field(default_factory=list)
    cds: list[tuple[int, int]] = field(default_factory=list)
    stop_codon: list[tuple[int, int]] = field(default_factory=list)
    phases: dict[int, int] = field(default_factory=dict)
    """Start of a CDS piece to the number of its bases before the first whole codon."""
    whole: tuple[int, int] | None = None
    """Where a line for the whole transcript places it."""
    numbers: list[int] = field(default_factory=list)
    """Numbers that the exon lines give themselves."""

    @property
    def tss(self) -> int:
        """First transcribed base, 0-based."""
        return self.exons[0][0] if self.strand == "+" else self.exons[-1][1] - 1

    @property
    def first_phase(self) -> int:
        """Bases before the first whole codon of the CDS."""
        first = self.cds[0] if self.strand == "+" else self.cds[-1]
        return self.phases.get(first[0], 0)


@dataclass(slots=True)
class Annotation:
    """The transcripts of a GTF by ID, in file order, and what was left out by reason."""

    path: Path
    transcripts: dict[str, Transcript]
    left_out: Counter[str]
    counts: Counter[str]


def read_gtf(path: Path | str) -> Annotation:
    """Read the transcripts of a GTF file, plain or gzip-compressed.

    Transcripts are built from their exons; lines for whole transcripts, where there are any, give names.
    An ID that is placed on a second contig keeps its first place. One that is placed twice on one contig, has
    no strand, belongs to two genes or lacks exons by its own numbers or bounds is left out. All are counted,
    and so are lines of features that nobody knows.

    Raises:
        InvalidInputError: A line that is not GTF, with its number, or no exon at all.
    """
    path = Path(path)
    reader = _Reader(path)
    for number, text in read_lines(path):
        if not text or text.startswith("#") or text.isspace():
            continue
        where = f"{path}, line {number}"
        fields = split_line(where, text)
        if fields[2] in _WHOLE or fields[2] in _PIECES:
            reader.add(where, number, parse_line(where, fields))
        elif fields[2] not in _NOT_READ:
            reader.skipped[fields[2][:40]] += 1
    return reader.finish()


@dataclass(slots=True)
class _Reader:
    """Turns lines into transcripts, one by one."""

    path: Path
    transcripts: dict[str, Transcript] = field(default_factory=dict)
    copies: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Transcript and another contig that it has lines on, and whether one of them is for the whole of it."""
    unusable: dict[str, str] = field(default_factory=dict)
    without_gene: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, where: str, number: int, line: GtfLine) -> None:
        """Add a line of a transcript, an exon or a coding piece."""
        identifier, is_whole = line.transcript_id, line.feature in _WHOLE
        gene = line.gene_id or identifier
        if not line.gene_id:
            self.without_gene.add(identifier)
        transcript = self.transcripts.get(identifier)
        if transcript is None:
            names = read_names(where, line.attributes)
            transcript = Transcript(identifier, gene, names.gene_name, line.contig, line.strand, names.biotype, number)
            self.transcripts[identifier] = transcript
        elif transcript.contig != line.contig:
            place = (identifier, line.contig)
            self.copies[place] = self.copies.get(place, False) or is_whole
            return
        elif transcript.strand != line.strand or (is_whole and transcript.whole):
            self.unusable[identifier] = "transcript placed twice on one contig"
            return
        elif transcript.gene_id != gene:
            self.unusable[identifier] = "transcript of two genes"
        elif is_whole:  # names may be fuller here than on the exon that came first
            names = read_names(where, line.attributes)
            transcript.gene_name = names.gene_name or transcript.gene_name
            transcript.biotype = names.biotype or transcript.biotype
        if line.strand not in _STRANDS:
            self.unusable[identifier] = "transcript without strand"
        _add_piece(transcript, line)

    def finish(self) -> Annotation:
        """The transcripts that can be used, and what was left out."""
        counts: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        for (identifier, _), has_whole in self.copies.items():
            if self.transcripts[identifier].whole and not has_whole:
                self.unusable[identifier] = "transcript with a piece on another contig"
        kept: dict[str, Transcript] = {}
        for identifier, transcript in self.transcripts.items():
            if not transcript.exons and transcript.cds:  # RefSeq writes mitochondrial genes so
                transcript.exons = sorted({*transcript.cds, *transcript.stop_codon})
                transcript.whole = None
                counts["transcripts whose exons are their CDS"] += 1
            transcript.exons.sort()
            transcript.cds.sort()
            if reason := self.unusable.get(identifier) or _problem(transcript):
                left_out[reason] += 1
            else:
                kept[identifier] = transcript
        counts["transcripts without gene_id, each a gene of its own"] = len(self.without_gene & set(kept))
        if self.copies:
            left_out["second place of a transcript, on another contig"] = len(self.copies)
        if not kept:
            reasons = "".join(f", {n} {reason}" for reason, n in left_out.items()).replace(",", " that can be used:", 1)
            raise InvalidInputError(
                f"{self.path} has no transcript{reasons or ' with exons'}. Give a GTF file with exon lines."
            )
        for feature, n in self.skipped.most_common():
            named = len(self.skipped) <= _MOST_FEATURES
            left_out[f"lines of {f'feature {feature!r}' if named else 'other features'}, which is not known"] += n
        counts.update(transcripts=len(kept), genes=len({transcript.gene_id for transcript in kept.values()}))
        return Annotation(path=self.path, transcripts=kept, left_out=left_out, counts=+counts)


def _problem(transcript: Transcript) -> str | None:
    """Why the exons of a transcript cannot be trusted."""
    exons, numbers = transcript.exons, sorted(transcript.numbers)
    if not exons:
        return "transcript without exon"
    if any(left[1] > right[0] for left, right in pairwise(exons)):
        return "transcript with overlapping exons"
    if transcript.whole not in (None, (exons[0][0], exons[-1][1])):
        return "transcript whose exons do not reach its ends"
    if len(numbers) == len(exons) and (numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(exons)))):
        return "transcript whose exon numbers have gaps"
    return None


def _add_piece(transcript: Transcript, line: GtfLine) -> None:
    """Add a line to its transcript: an exon, a coding piece, or the bounds of the whole."""
    piece = (line.start, line.end)
    if any(tag in line.attributes for tag in _INCOMPLETE_TAGS):
        transcript.cds_incomplete = True
    if line.feature in _WHOLE:
        transcript.whole = piece
    elif line.feature == "exon":
        transcript.exons.append(piece)
        if (number := exon_number(line.attributes)) is not None:
            transcript.numbers.append(number)
    elif line.feature == "stop_codon":
        transcript.stop_codon.append(piece)
    else:
        transcript.cds.append(piece)
        if line.phase in ("1", "2"):
            transcript.phases[line.start] = int(line.phase)
