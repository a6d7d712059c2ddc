"""From a transcript on the genome to its RNA, the bounds of its CDS and its protein."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from embedcache.annotation import Transcript
from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.genome import Genome, reverse_complement

__all__ = [
    "VERTEBRATE_MITOCHONDRIA",
    "CodingSequence",
    "check_cds",
    "check_genetic_code",
    "joined_intervals",
    "locate_cds",
    "read_coding_sequence",
    "splice",
    "translate",
]

VERTEBRATE_MITOCHONDRIA = ("chrM", "chrMT", "MT", "NC_012920.1")
"""Contigs that are read with NCBI table 2 unless the caller says otherwise; all others with table 1."""


@dataclass(frozen=True, slots=True)
class CodingSequence:
    """Bounds on the RNA, 0-based, half-open and without the stop codon, and the protein; or why there is none."""

    start: int = 0
    end: int = 0
    protein: str | None = None
    problem: str | None = None
    note: str | None = None
    """Something unusual that was accepted, for the counts."""


@cache
def _table(code: int) -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """Codon to residue, start codons and stop codons of an NCBI table."""
    from Bio.Data import CodonTable

    tables: dict[int, Any] = CodonTable.unambiguous_dna_by_id
    if code not in tables:
        raise UnknownNameError("genetic code", str(code), map(str, tables))
    table = tables[code]
    # The standard table lists rare starts as well; annotations and databases of proteins count ATG only.
    starts = frozenset({"ATG"}) if code == 1 else frozenset(table.start_codons)
    return dict(table.forward_table), starts, frozenset(table.stop_codons)


def check_genetic_code(code: int) -> None:
    """Raise UnknownNameError unless ``code`` is the number of an NCBI table."""
    _table(code)


def translate(cds: str, code: int) -> str:
    """Residues of whole codons; X where a codon has N, ``*`` at a stop. The first residue is read as any other."""
    residues, _, stops = _table(code)
    codons = (cds[i : i + 3] for i in range(0, len(cds) - 2, 3))
    return "".join(residues.get(codon, "*" if codon in stops else "X") for codon in codons)


def splice(genome: Genome, transcript: Transcript) -> str:
    """The RNA of a transcript in the letters A C G T N, 5' to 3'.

    Raises:
        InvalidInputError: An exon ends past its contig.
    """
    last = transcript.exons[-1][1]
    if last > (size := genome.length(transcript.contig)):
        raise InvalidInputError(
            f"Transcript {transcript.id!r} (line {transcript.line} of the GTF) ends at {last}, but contig "
            f"{transcript.contig!r} of {genome.path} has {size} bp. Give the FASTA of the assembly that the annotation "
            "was made on."
        )
    forward = "".join(genome.fetch(transcript.contig, start, end) for start, end in transcript.exons)
    return forward if transcript.strand == "+" else reverse_complement(forward)


def locate_cds(transcript: Transcript) -> tuple[int, int] | None:
    """Bounds of the annotated CDS on the RNA, 0-based and half-open; None if it does not follow the exons.

    A CDS with a programmed frameshift skips or repeats a base and so is not one piece of the RNA.
    """
    low, high = transcript.cds[0][0], transcript.cds[-1][1]
    # Cut to the span of the CDS, the exons must be the coding pieces themselves; pieces that touch count as one.
    inside = [(max(start, low), min(end, high)) for start, end in transcript.exons if start < high and end > low]
    if joined_intervals(inside) != joined_intervals(transcript.cds):
        return None
    length = sum(end - start for start, end in inside)
    if transcript.strand == "+":
        before = sum(min(end, low) - start for start, end in transcript.exons if start < low)
    else:
        before = sum(end - max(start, high) for start, end in transcript.exons if end > high)
    return before, before + length


def joined_intervals(pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals (start, end) in their order, of which those that touch are one."""
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def read_coding_sequence(transcript: Transcript, rna: str, code: int) -> CodingSequence:
    """Protein of a transcript that has a CDS, or the reason why it is broken.

    The annotated CDS may end before its stop codon (GENCODE, Ensembl) or behind it (RefSeq). A whole CDS counts
    whatever the biotype, so a transcript subject to nonsense-mediated decay can have a protein.
    """
    if transcript.cds_incomplete or transcript.first_phase:
        return CodingSequence(problem="CDS annotated as incomplete")
    bounds = locate_cds(transcript)
    if bounds is None:
        return CodingSequence(problem="CDS that does not follow the exons (frameshift)")
    return check_cds(rna, *bounds, code)


def check_cds(rna: str, start: int, end: int, code: int) -> CodingSequence:
    """Translate ``rna[start:end]``, with or without its stop codon, and check that it is a whole CDS."""
    _, starts, stops = _table(code)
    cds, note = rna[start:end], None
    if len(cds) % 3:
        if code == 1 or end != len(rna) or cds[len(cds) // 3 * 3 :] not in ("T", "TA"):
            return CodingSequence(problem="CDS whose length is not a multiple of 3")
        note = "stop codons completed by polyadenylation"
        cds = cds[: len(cds) // 3 * 3]
    elif cds[-3:] in stops:
        cds = cds[:-3]
    elif rna[end : end + 3] not in stops:
        return CodingSequence(problem="CDS without stop codon")
    if cds[:3] not in starts:
        return CodingSequence(problem="CDS without start codon")
    protein = translate(cds, code)
    if "*" in protein:
        return CodingSequence(problem="CDS with a stop codon inside (or selenocysteine)")
    if cds[:3] != "ATG":
        note = note or "start codons other than ATG"
    # Whatever the start codon, the first residue is methionine.
    return CodingSequence(start=start, end=start + len(cds), protein="M" + protein[1:], note=note)
