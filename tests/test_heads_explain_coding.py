"""Changes of a coding RNA against Biopython, edits against a walk over letters, and variants as users write them."""

import gzip
from pathlib import Path

import pytest
from Bio.Seq import Seq
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError, InvalidSettingError
from heads.interpret.explain.coding import RnaEdit, apply_edits, coding_change
from heads.interpret.explain.variant_file import LONGEST, parse_variant, read_variants

CODONS = st.sampled_from(["GCT", "TGG", "AAA", "TTT", "GGG", "CAC", "GTA", "AGC"])
TAIL = "CCTAGCTGACC"


@st.composite
def rnas(draw: st.DrawFn) -> tuple[str, tuple[int, int]]:
    """A 5'UTR, ATG, some codons, a stop codon, a 3'UTR; and the bounds of the coding part without the stop."""
    before = draw(st.text("ACGT", max_size=6))
    coding = "ATG" + "".join(draw(st.lists(CODONS, min_size=1, max_size=6)))
    return before + coding + draw(st.sampled_from(["TAA", "TAG", "TGA"])) + TAIL, (
        len(before),
        len(before) + len(coding),
    )


def protein_of(rna: str, start: int) -> str:
    letters = rna[start:]
    return str(Seq(letters[: len(letters) // 3 * 3]).translate(to_stop=True))


def changed(rna: str, edit: RnaEdit) -> str:
    """Letter by letter."""
    found = [letter for i, letter in enumerate(rna) if not edit.start <= i < edit.end]
    return "".join(found[: edit.start]) + edit.letters + "".join(found[edit.start :])


@settings(max_examples=150, deadline=None)
@given(rnas(), st.data())
def test_a_letter_that_is_another_one(given_rna: tuple[str, tuple[int, int]], data: st.DataObject) -> None:
    rna, (start, end) = given_rna
    place = data.draw(st.integers(0, len(rna) - 1))
    letter = data.draw(st.sampled_from("ACGT"))
    assume(letter != rna[place])
    found = coding_change(rna, [RnaEdit(place, place + 1, letter)], (start, end), 1)
    before, new = protein_of(rna, start), changed(rna, RnaEdit(place, place + 1, letter))
    after = protein_of(new, start)
    if place < start:
        wanted, after = "5' UTR", before
    elif place >= end + 3:
        wanted, after = "3' UTR", before
    elif place < start + 3:
        wanted = "start lost"
    elif after == before:
        wanted = "synonymous"
    else:
        wanted = "missense" if len(after) == len(before) else "stop gained" if len(after) < len(before) else "stop lost"
    assert found.consequence == wanted
    if wanted == "start lost":
        assert (found.protein, found.residue) == (None, "M1?")
        return
    assert found.protein == after
    if wanted in ("missense", "stop gained"):
        i = (place - start) // 3
        new_residue = after[i] if wanted == "missense" else "*"
        assert found.residue == f"{before[i]}{i + 1}{new_residue}"
    if wanted == "synonymous":
        i = (place - start) // 3
        assert found.residue == f"{(before + '*')[i]}{i + 1}="


@settings(max_examples=150, deadline=None)
@given(rnas(), st.data())
def test_letters_that_come_or_go_inside_the_coding_part(
    given_rna: tuple[str, tuple[int, int]], data: st.DataObject
) -> None:
    rna, (start, end) = given_rna
    at = data.draw(st.integers(start + 3, end - 1))
    gone = data.draw(st.integers(0, end - at))
    letters = data.draw(st.text("ACGT", max_size=7))
    assume(len(letters) != gone)
    edit = RnaEdit(at, at + gone, letters)
    found = coding_change(rna, [edit], (start, end), 1)
    before, after = protein_of(rna, start), protein_of(changed(rna, edit), start)
    assert found.protein == after
    if after == before:
        assert found.consequence == "synonymous"
    elif (len(letters) - gone) % 3:
        assert found.consequence == "frameshift"
        first = next(i for i, (a, b) in enumerate(zip(before + "*", after + "*", strict=False)) if a != b)
        assert found.residue == f"{(before + '*')[first]}{first + 1}fs"
    elif len(after) < len(before) + (len(letters) - gone) // 3:
        assert found.consequence == "stop gained"
    else:
        assert found.consequence == "inframe"
        assert found.residue.endswith("ins" if len(after) > len(before) else "del")


@settings(max_examples=100, deadline=None)
@given(st.text("ACGT", min_size=1, max_size=30), st.data())
def test_edits_are_applied_together_as_one_by_one_from_the_end(sequence: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(sequence)), max_size=6)))
    edits = [
        RnaEdit(first, last, data.draw(st.text("acgt", max_size=3)))
        for first, last in zip(places[::2], places[1::2], strict=False)
    ]
    wanted = sequence
    for edit in reversed(edits):
        wanted = changed(wanted, edit)
    assert apply_edits(sequence, data.draw(st.permutations(edits))) == wanted
    assert len(wanted) == len(sequence) + sum(edit.added for edit in edits)


@given(st.integers(0, 9), st.integers(0, 4), st.integers(0, 9), st.integers(1, 5))
def test_an_edit_touches_letters_that_change_or_part(first: int, gone: int, start: int, size: int) -> None:
    edit = RnaEdit(first, first + gone, "A")
    letters = set(range(start, start + size))
    wanted = bool(letters & set(range(first, first + gone))) if gone else {first - 1, first} <= letters
    assert edit.touches(start, start + size) == wanted


def test_two_changes_of_one_rna_are_read_together() -> None:
    rna = "GGATGGCTTGGAAATAACCTAGC"  # MAWK from 2 on
    shift, back = RnaEdit(5, 5, "A"), RnaEdit(8, 9, "")
    assert coding_change(rna, [shift], (2, 14), 1).consequence == "frameshift"
    both = coding_change(rna, [back, shift], (2, 14), 1)
    assert (both.consequence, both.protein, both.residue) == ("missense", "MSWK", "A2S")
    moved = coding_change(rna, [RnaEdit(0, 1, "TTTT"), RnaEdit(5, 6, "A")], (2, 14), 1)
    assert (moved.consequence, moved.protein) == ("missense", "MTWK"), "the start moved with the 5'UTR"
    assert coding_change(rna, [shift], None, 1).consequence == "non-coding exon"


# --- variants as they are written ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chr1:5:A", "is not CHROM:POS:REF:ALT"),
        ("chr1:five:A:G", "position 'five' is no number"),
        ("chr1:0:A:G", "position '0' is no number from 1 on"),
        ("chr1:-3:A:G", "position '-3'"),
        ("chr1:\u0663:A:G", "is no number from 1 on"),
        (f"chr1:{'9' * 19}:A:G", "is no number from 1 on"),
        (":5:A:G", "name of the contig is ''"),
        ("chr1:5:A:X", "allele 'X' is not in the letters"),
        ("chr1:5::G", "allele '' is not in the letters"),
        ("chr1:5:A:a", "allele that is the reference"),
        ("chr1:5:A:*", "allele without letters"),
        ("chr1:5:A:<DUP>", "allele without letters"),
        (f"chr1:5:A:{'C' * (LONGEST + 1)}", "allele of more than 1000 letters"),
    ],
)
def test_a_variant_that_cannot_be_applied_is_told(text: str, words: str) -> None:
    with pytest.raises(InvalidSettingError, match=words) as caught:
        parse_variant(text)
    assert "\n" not in str(caught.value)


def test_a_variant_on_a_contig_with_colons() -> None:
    found = parse_variant("HLA:A*01:7:ac:G")
    assert (found.contig, found.position, found.ref, found.alt) == ("HLA:A*01", 7, "AC", "G")
    assert parse_variant(f"1:5:A:{'C' * LONGEST}").alt == "C" * LONGEST


def test_columns_are_found_by_any_of_their_names_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "v.tsv").write_text("ALT\tnote\tPosition\tID\treference\tChromosome\nG,T\tx\t5\trs9\tA\tchr-é\n\n")
    found = read_variants(tmp_path / "v.tsv")
    assert [(one.contig, one.position, one.ref, one.alt, one.name) for one in found.variants] == [
        ("chr-é", 5, "A", "G", "rs9"), ("chr-é", 5, "A", "T", "rs9"),
    ]  # fmt: skip


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    rows = ["1\t5\t.\tA\tG", "1\t5\t.\tA\tG", "1\t6\t.\tA\t<DEL>,*,.", "1\t7\t.\tA\tA", f"1\t8\t.\tA\t{'C' * 1001}"]
    with gzip.open(tmp_path / "v.vcf.gz", "wt") as file:
        file.write("##x\n#CHROM\tPOS\tID\tREF\tALT\n" + "\n".join(rows) + "\n")
    found = read_variants(tmp_path / "v.vcf.gz")
    assert len(found.variants) == 1
    assert found.variants[0].name == ""
    assert sorted(found.left_out.values()) == [1, 1, 1, 3]
    assert found.left_out["variant that comes a second time"] == 1
    assert found.left_out["allele without letters (symbolic, missing or a break end)"] == 3
    (tmp_path / "none.tsv").write_text("chrom\tpos\tref\talt\n1\t7\tA\tA\n1\t9\tC\tC\n")
    with pytest.raises(InvalidInputError, match=r"has no variant: 2 allele that is the reference. Give one a line"):
        read_variants(tmp_path / "none.tsv")
