"""What a change of an RNA does to its protein, and the word for it.

The start codon stays where the annotation has it: where it is lost there is no protein, for nobody knows which start
the cell would take. Reading goes on to the first stop codon in frame, and to the end of the RNA where there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

from embedcache.transcripts import check_cds, translate

__all__ = ["CodingChange", "Consequence", "RnaEdit", "apply_edits", "coding_change", "is_start", "read_protein"]

Consequence = Literal[
    "splice site", "stop gained", "frameshift", "stop lost", "start lost", "inframe", "missense", "synonymous",
    "5' UTR", "3' UTR", "non-coding exon", "intron", "upstream", "downstream",
]  # fmt: skip
"""From the gravest on, nearly."""


class RnaEdit(NamedTuple):
    """Letters that take the place of [start, end) of an RNA, 0-based; ``start == end`` inserts."""

    start: int
    end: int
    letters: str

    @property
    def added(self) -> int:
        """Letters that come in less those that go."""
        return len(self.letters) - (self.end - self.start)

    def touches(self, start: int, end: int) -> bool:
        """Whether letters of [start, end) change, or some come in between them."""
        if self.start == self.end:
            return start < self.start < end
        return self.start < end and self.end > start


@dataclass(frozen=True, slots=True, kw_only=True)
class CodingChange:
    """A protein after a change of its RNA."""

    consequence: Consequence
    protein: str | None
    residue: str = ""
    """First residue that is another one, such as ``A12V``, ``W26*``, ``Q5fs`` or ``L7=``; 1-based, empty if none is."""


def apply_edits(sequence: str, edits: Sequence[RnaEdit]) -> str:
    """A sequence after edits that do not overlap."""
    for edit in sorted(edits, reverse=True):
        sequence = sequence[: edit.start] + edit.letters + sequence[edit.end :]
    return sequence


def is_start(codon: str, code: int) -> bool:
    """Whether a protein may start with a codon under an NCBI table, by the rule that datasets are made with."""
    codons = ("".join(letters) for letters in product("TAGC", repeat=3))
    stop = next((one for one in codons if translate(one, code) == "*"), "TAA")
    return check_cds(codon + stop, 0, 6, code).problem is None


def read_protein(rna: str, start: int, code: int) -> str:
    """Residues from a start codon to the first stop in frame, or to the last whole codon."""
    residues = translate(rna[start:], code).partition("*")[0]
    return "M" + residues[1:]  # whatever the start codon


def coding_change(rna: str, edits: Sequence[RnaEdit], cds: tuple[int, int] | None, code: int) -> CodingChange:
    """Read the protein of an RNA after edits.

    Args:
        rna: Before them.
        edits: At least one; they do not overlap.
        cds: Bounds of the coding part, without its stop codon; None for an RNA without a protein.
        code: NCBI table.
    """
    if cds is None:
        return CodingChange(consequence="non-coding exon", protein=None)
    start, end = cds
    before = read_protein(rna[:end], start, code)
    inside = [edit for edit in edits if edit.touches(start, min(end + 3, len(rna)))]
    if not inside:
        upstream = any(edit.end <= start for edit in edits)
        return CodingChange(consequence="5' UTR" if upstream else "3' UTR", protein=before)
    changed = apply_edits(rna, edits)
    moved = start + sum(edit.added for edit in edits if edit.end <= start and edit not in inside)
    if any(edit.start < start and edit.added for edit in inside) or not is_start(changed[moved : moved + 3], code):
        return CodingChange(consequence="start lost", protein=None, residue="M1?")
    after = read_protein(changed, moved, code)
    found = _name(before, after, inside, (start, end))
    return CodingChange(consequence=found, protein=after, residue=_residue(before, after, found, inside[0], start))


def _name(before: str, after: str, inside: Sequence[RnaEdit], cds: tuple[int, int]) -> Consequence:
    """The word for a change inside a coding part, its stop codon included."""
    start, end = cds
    if after == before:
        return "synonymous"
    kept = [one for one in inside if one.added and (one.touches(start, end) or one.start == one.end == end)]
    added = sum(len(edit.letters) - (min(edit.end, end) - max(edit.start, start)) for edit in kept)
    expected = len(before) + added // 3
    if len(after) > expected and any(edit.touches(end, end + 3) for edit in inside):
        return "stop lost"
    if added % 3:
        return "frameshift"
    if len(after) < expected:
        return "stop gained"
    return "inframe" if added else "missense"


def _residue(before: str, after: str, found: Consequence, edit: RnaEdit, start: int) -> str:
    if found == "synonymous":
        i = max(edit.start - start, 0) // 3
        return f"{before[i] if i < len(before) else '*'}{i + 1}="
    pairs = zip(before + "*", after + "*", strict=False)
    i = next(i for i, (old, new) in enumerate(pairs) if old != new)
    old, new = (before + "*")[i], (after + "*")[i]
    if found == "frameshift":
        return f"{old}{i + 1}fs"
    if found == "inframe":
        return f"{old}{i + 1}{'ins' if len(after) > len(before) else 'del'}"
    return f"{old}{i + 1}{new}"
