"""A variant of the genome carried into the DNA window and the RNA of a transcript.

Splicing is taken as unchanged: exons keep their borders. A variant that may change it is called so.
"""

from dataclasses import dataclass
from itertools import pairwise

from embedcache.annotation import Transcript
from embedcache.errors import InvalidInputError
from embedcache.genome import Genome, reverse_complement, window_bounds
from embedcache.transcripts import joined_intervals
from heads.interpret.explain.coding import CodingChange, RnaEdit, coding_change

__all__ = ["Variant", "changed_window", "check_reference", "consequence_of", "rna_edits", "touches_window"]

_SPLICE = 2  # bases of an intron beside an exon without which it is not spliced


@dataclass(frozen=True, slots=True)
class Variant:
    """Letters of the forward strand that become others."""

    contig: str
    position: int
    """Of the first letter, 1-based, as in a VCF."""
    ref: str
    alt: str
    name: str = ""
    where: str = ""
    """File and line, for messages."""

    def __str__(self) -> str:
        return f"{self.contig}:{self.position}:{self.ref}:{self.alt}"

    @property
    def change(self) -> RnaEdit:
        """The least that changes: [start, end) of the contig, 0-based, and the new letters.

        Letters that both begin with are left out, then those that both end with, so an insertion of a VCF begins
        behind its anchor base.
        """
        ref, alt, start = self.ref, self.alt, self.position - 1
        while ref and alt and ref[0] == alt[0]:
            ref, alt, start = ref[1:], alt[1:], start + 1
        while ref and alt and ref[-1] == alt[-1]:
            ref, alt = ref[:-1], alt[:-1]
        return RnaEdit(start, start + len(ref), alt)


def check_reference(genome: Genome, variant: Variant) -> None:
    """Refuse a variant of another genome.

    Raises:
        InvalidInputError: The contig is not there, or has other letters at this place.
    """
    where = f"{variant.where}: " if variant.where else ""
    if variant.contig not in genome:
        known = list(genome.contigs)
        raise InvalidInputError(
            f"{where}variant {variant} lies on contig {variant.contig!r}, which {genome.path} does not have; its "
            f"contigs are {', '.join(known[:3])}{' ...' if len(known) > 3 else ''}. Write names as the genome does."
        )
    start, end = variant.position - 1, variant.position - 1 + len(variant.ref)
    size = genome.length(variant.contig)
    found = genome.fetch(variant.contig, start, end) if end <= size else ""
    if found != variant.ref:
        shown = f"has {found[:30]!r} there" if found else f"ends at {size}"
        raise InvalidInputError(
            f"{where}variant {variant}: REF is {variant.ref[:30]!r}, but {genome.path} {shown}. Give variants of this "
            "assembly, with 1-based positions on the forward strand."
        )


def touches_window(transcript: Transcript, variant: Variant, length: int) -> bool:
    """Whether the DNA window of a transcript has letters of a variant."""
    return variant.change.touches(*window_bounds(transcript.tss, transcript.strand, length))


def changed_window(genome: Genome, transcript: Transcript, variant: Variant, length: int) -> str:
    """The window around the TSS of the changed genome, on the strand of the transcript.

    The TSS stays its middle base, so what an insertion pushes out on one side is lost there. A TSS that is deleted
    moves to the first base behind the deletion in the direction of reading along the forward strand.
    """
    start, end, letters = variant.change
    tss, margin = transcript.tss, length + (end - start) + len(letters) + 1
    first = window_bounds(tss, "+", 2 * margin)[0]
    wide = genome.window(transcript.contig, tss, "+", 2 * margin)
    moved = tss
    if first <= start and end <= first + len(wide):
        wide = wide[: start - first] + letters + wide[end - first :]
        if end <= tss:
            moved += len(letters) - (end - start)
        elif start <= tss and len(letters) != end - start:
            moved = start
    low, high = window_bounds(moved - first, transcript.strand, length)
    forward = wide[low:high]
    return forward if transcript.strand == "+" else reverse_complement(forward)


def rna_edits(transcript: Transcript, variant: Variant) -> list[RnaEdit]:
    """What a variant changes in the spliced RNA, in its direction; nothing if it lies outside all exons.

    Letters that come in count if the whole variant lies in one exon, an insertion between two of its letters. Of a
    variant across the border of an exon, as many letters as before replace each other and others are lost.
    """
    low, high, letters = variant.change
    edits, offset = [], 0
    exons = joined_intervals(transcript.exons)
    for start, end in exons if transcript.strand == "+" else reversed(exons):
        first, last = max(low, start), min(high, end)
        if variant.change.touches(start, end):
            own = letters
            if not (start <= low and high <= end):
                own = letters[first - low : last - low] if len(letters) == high - low else ""
            if transcript.strand == "+":
                edits.append(RnaEdit(offset + first - start, offset + last - start, own))
            else:
                edits.append(RnaEdit(offset + end - last, offset + end - first, reverse_complement(own)))
        offset += end - start
    return edits


def consequence_of(
    transcript: Transcript,
    variant: Variant,
    *,
    rna: str,
    cds: tuple[int, int] | None,
    code: int,
    protein: str | None,
) -> CodingChange:
    """What a variant does to a transcript; the gravest word.

    Args:
        transcript: On the genome.
        variant: The change.
        rna: Its RNA without the change.
        cds: Bounds of the coding part on it, without the stop codon; None without a protein.
        code: NCBI table.
        protein: Without the change.
    """
    edits = rna_edits(transcript, variant)
    change = CodingChange(consequence="intron", protein=protein)
    if edits:
        change = coding_change(rna, edits, cds, code)
    if _at_splice_site(transcript, variant):
        return CodingChange(consequence="splice site", protein=change.protein, residue=change.residue)
    low, high, _ = variant.change
    start, end = transcript.exons[0][0], transcript.exons[-1][1]
    if not edits and (high <= start or low >= end):
        before = high <= start if transcript.strand == "+" else low >= end
        return CodingChange(consequence="upstream" if before else "downstream", protein=protein)
    return change


def _at_splice_site(transcript: Transcript, variant: Variant) -> bool:
    """Whether a variant has a base of an intron next to an exon, or letters come in at a border."""
    exons = joined_intervals(transcript.exons)
    change = variant.change
    for (_, start), (end, _) in pairwise(exons):
        if change.touches(start, min(start + _SPLICE, end)) or change.touches(max(end - _SPLICE, start), end):
            return True
        if change.start == change.end and change.start in (start, end):
            return True
    return False
