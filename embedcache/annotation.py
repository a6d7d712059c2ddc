"""Transcripts of a GTF file: where their exons and coding pieces lie on the genome.

Reads the dialects of GENCODE, Ensembl and RefSeq. Coordinates become 0-based and half-open. IDs stay as given.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from embedcache.errors import InvalidInputError
from embedcache.sequences import read_lines

__all__ = ["Annotation", "Transcript", "read_gtf"]

_TRANSCRIPT_ID = re.compile(r'(?:^|[;\s])transcript_id\s+(?:"([^"]+)"|([^";\s]+))')
_ATTRIBUTE = re.compile(r'(\w+)\s+(?:"([^"]*)"|([^";\s]+))')
_WHOLE = frozenset({"transcript", "mRNA"})  # features that carry the names of a transcript
_PIECES = frozenset({"exon", "CDS", "stop_codon"})
_BIOTYPES = ("transcript_type", "transcript_biotype", "gene_type", "gene_biotype")
_STRANDS = ("+", "-")
_NO_STRAND = (".", "?")
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
    named: bool = False  # a line for the whole transcript was seen

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
    no strand or belongs to two genes is left out. All are counted.

    Raises:
        InvalidInputError: A line that is not GTF, with its number, or no exon at all.
    """
    path = Path(path)
    transcripts: dict[str, Transcript] = {}
    copies: dict[str, set[str]] = {}
    unusable: dict[str, str] = {}
    for number, text in read_lines(path):
        if not text or text.startswith("#") or text.isspace():
            continue
        fields = text.split("\t")
        if len(fields) < 9:
            raise InvalidInputError(
                f"{path}, line {number}: {len(fields)} tab-separated fields instead of 9. Give a GTF file."
            )
        feature = fields[2]
        if feature not in _WHOLE and feature not in _PIECES:
            continue
        match = _TRANSCRIPT_ID.search(fields[8])
        if match is None:
            raise InvalidInputError(
                f'{path}, line {number}: {feature} without transcript_id "...". Give a GTF file (GFF3 is not read).'
            )
        _check_text(path, number, text)
        identifier = match[1] or match[2]
        transcript = transcripts.get(identifier)
        if transcript is None:
            transcript = transcripts[identifier] = _new_transcript(path, number, identifier, fields)
        elif transcript.contig != fields[0]:
            copies.setdefault(identifier, set()).add(fields[0])
            continue
        elif transcript.strand != fields[6] or (feature in _WHOLE and transcript.named):
            unusable[identifier] = "transcript placed twice on one contig"
            continue
        elif transcript.gene_id not in fields[8]:
            unusable[identifier] = "transcript of two genes"
        if fields[6] not in _STRANDS:
            unusable[identifier] = "transcript without strand"
        _add(path, number, transcript, fields)
    return _finish(path, transcripts, copies, unusable)


def _check_text(path: Path, number: int, text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{path}, line {number}: text is not UTF-8. Save the file as UTF-8.") from None


def _new_transcript(path: Path, number: int, identifier: str, fields: list[str]) -> Transcript:
    if fields[6] not in _STRANDS and fields[6] not in _NO_STRAND:
        raise InvalidInputError(
            f"{path}, line {number}: transcript {identifier!r} has strand {fields[6]!r}. Expected +, - or . (unknown). "
            "Mend the line."
        )
    attributes = _attributes(fields[8])
    return Transcript(
        id=identifier,
        gene_id=attributes.get("gene_id") or identifier,
        gene_name=attributes.get("gene_name") or attributes.get("gene") or None,
        contig=fields[0],
        strand=fields[6],
        biotype=_biotype(attributes),
        line=number,
    )


def _attributes(text: str) -> dict[str, str]:
    return {name: quoted or bare for name, quoted, bare in _ATTRIBUTE.findall(text)}


def _biotype(attributes: Mapping[str, str]) -> str | None:
    return next((attributes[name] for name in _BIOTYPES if attributes.get(name)), None)


def _add(path: Path, number: int, transcript: Transcript, fields: list[str]) -> None:
    """Add a line to its transcript: an exon, a coding piece, or the names of the whole."""
    feature, text = fields[2], fields[8]
    if feature in _WHOLE:
        transcript.named = True
        if number != transcript.line:  # names may be fuller here than on the exon that came first
            attributes = _attributes(text)
            transcript.gene_name = attributes.get("gene_name") or attributes.get("gene") or transcript.gene_name
            transcript.biotype = _biotype(attributes) or transcript.biotype
    if any(tag in text for tag in _INCOMPLETE_TAGS):
        transcript.cds_incomplete = True
    if feature in _WHOLE:
        return
    are_numbers = all(place.isascii() and place.isdigit() for place in fields[3:5])
    start, end = (int(fields[3]) - 1, int(fields[4])) if are_numbers else (0, 0)
    if not 0 <= start < end:
        raise InvalidInputError(
            f"{path}, line {number}: {feature} from {fields[3]!r} to {fields[4]!r}. Expected 1-based start <= end."
        )
    if feature == "exon":
        transcript.exons.append((start, end))
    elif feature == "stop_codon":
        transcript.stop_codon.append((start, end))
    else:
        transcript.cds.append((start, end))
        if fields[7] in ("1", "2"):
            transcript.phases[start] = int(fields[7])


def _finish(
    path: Path, transcripts: dict[str, Transcript], copies: Mapping[str, set[str]], unusable: Mapping[str, str]
) -> Annotation:
    left_out: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    kept: dict[str, Transcript] = {}
    for identifier, transcript in transcripts.items():
        if not transcript.exons and transcript.cds:  # RefSeq writes mitochondrial genes so
            transcript.exons = sorted({*transcript.cds, *transcript.stop_codon})
            counts["transcripts whose exons are their CDS"] += 1
        transcript.exons.sort()
        transcript.cds.sort()
        exons = transcript.exons
        if identifier in unusable:
            left_out[unusable[identifier]] += 1
        elif not exons:
            left_out["transcript without exon"] += 1
        elif any(left[1] > right[0] for left, right in pairwise(exons)):
            left_out["transcript with overlapping exons"] += 1
        else:
            kept[identifier] = transcript
    if copies:
        left_out["second place of a transcript, on another contig"] = sum(len(contigs) for contigs in copies.values())
    if not kept:
        reasons = "".join(f", {n} {reason}" for reason, n in left_out.items()).replace(",", " that can be used:", 1)
        raise InvalidInputError(f"{path} has no transcript{reasons or ' with exons'}. Give a GTF file with exon lines.")
    counts.update(transcripts=len(kept), genes=len({transcript.gene_id for transcript in kept.values()}))
    return Annotation(path=path, transcripts=kept, left_out=left_out, counts=counts)
