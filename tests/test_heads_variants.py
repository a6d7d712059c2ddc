"""Variants on toy genomes: against splicing the changed genome, against hand-made codons, and files of them."""

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.annotation import Transcript
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.genome import open_genome, reverse_complement
from embedcache.transcripts import splice
from heads.interpret.explain.apply import (
    Variant,
    changed_window,
    check_reference,
    consequence_of,
    rna_edits,
    touches_window,
)
from heads.interpret.explain.coding import RnaEdit, apply_edits, coding_change, is_start
from heads.interpret.explain.variant_file import parse_variant, read_variants

LETTERS = "".join(random.Random(1).choices("ACGT", k=120))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome")
    (path / "g.fa").write_text(f">one\n{LETTERS}\n")
    return path


def of_exons(exons: list[tuple[int, int]], strand: str) -> Transcript:
    return Transcript("t", "g", None, "one", strand, None, 1, exons=exons)


EXONS = st.lists(st.integers(10, 110), min_size=2, max_size=8, unique=True).map(
    lambda cuts: list(zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False))
)


@st.composite
def inner_variants(draw: st.DrawFn, exons: list[tuple[int, int]]) -> Variant:
    """Any small variant that does not cross a border of an exon."""
    borders = sorted({0, 120, *(x for exon in exons for x in exon)})
    i = draw(st.integers(0, len(borders) - 2))
    low, high = borders[i : i + 2]
    start = draw(st.integers(low, high - 1))
    end = draw(st.integers(start + 1, min(high, start + 6)))
    rest = draw(st.text("ACGT", min_size=0, max_size=5))
    alt = LETTERS[start] + rest  # anchored, so that what comes in lies behind a letter
    if end == high and len(alt) > end - start:  # it would come in at the border
        alt = alt[: end - start]
    return Variant("one", start + 1, LETTERS[start:end], alt)


@settings(deadline=None, max_examples=150)
@given(st.data(), EXONS, st.sampled_from("+-"))
def test_a_variant_then_splicing_is_splicing_the_changed_genome(
    folder: Path, data: st.DataObject, exons: list[tuple[int, int]], strand: str
) -> None:
    variant, one = data.draw(inner_variants(exons)), of_exons(exons, strand)
    start, end = variant.position - 1, variant.position - 1 + len(variant.ref)
    changed = LETTERS[:start] + variant.alt + LETTERS[end:]
    moved = len(variant.alt) - len(variant.ref)
    shifted = [(s + moved * (s >= end), e + moved * (e >= end)) for s, e in exons]
    (folder / "changed.fa").write_text(f">one\n{changed}\n")
    length = data.draw(st.integers(1, 60))
    other = of_exons(shifted, strand)
    with open_genome(folder / "g.fa") as genome, open_genome(folder / "changed.fa") as after:
        check_reference(genome, variant)
        rna = apply_edits(splice(genome, one), rna_edits(one, variant))
        assert rna == splice(after, other)
        if not start <= one.tss < end:
            expected = after.window("one", other.tss, strand, length)
            assert changed_window(genome, one, variant, length) == expected
            if not touches_window(one, variant, length):
                assert expected == genome.window("one", one.tss, strand, length)


def test_letters_over_a_border_of_an_exon(folder: Path) -> None:
    plus, minus = of_exons([(10, 20), (30, 40)], "+"), of_exons([(10, 20), (30, 40)], "-")
    deletion = Variant("one", 18, LETTERS[17:24], LETTERS[17])  # bases 18 to 23 go, 18 and 19 are of the exon
    assert rna_edits(plus, deletion) == [RnaEdit(8, 10, "")]
    assert rna_edits(minus, deletion) == [RnaEdit(10, 12, "")]
    turn = str.maketrans("ACGT", "GTAC")
    same = Variant("one", 20, LETTERS[19:21], LETTERS[19:21].translate(turn))
    assert rna_edits(plus, same) == [RnaEdit(9, 10, LETTERS[19].translate(turn))]
    same = Variant("one", 30, LETTERS[29:31], LETTERS[29:31].translate(turn))
    assert rna_edits(plus, same) == [RnaEdit(10, 11, LETTERS[30].translate(turn))]
    both = Variant("one", 15, LETTERS[14:36], LETTERS[14])
    assert rna_edits(plus, both) == [RnaEdit(5, 10, ""), RnaEdit(10, 16, "")]
    insertion = Variant("one", 20, LETTERS[19], LETTERS[19] + "T")  # behind the last base of the exon
    assert rna_edits(plus, insertion) == []
    for variant in (deletion, same, insertion):
        assert name(plus, variant) == "splice site"


def test_a_change_right_before_the_tss_moves_it(folder: Path) -> None:
    one = of_exons([(40, 60)], "+")
    last = "A" if LETTERS[39] != "A" else "C"
    first = "G" if LETTERS[36] != "G" else "T"
    variant = Variant("one", 37, LETTERS[36:40], first + last)
    with open_genome(folder / "g.fa") as genome:
        assert changed_window(genome, one, variant, 10) == LETTERS[33:36] + first + last + LETTERS[40:45]


def name(transcript: Transcript, variant: Variant) -> str:
    rna = "".join(LETTERS[s:e] for s, e in transcript.exons)
    rna = rna if transcript.strand == "+" else reverse_complement(rna)
    return consequence_of(transcript, variant, rna=rna, cds=None, code=1, protein=None).consequence


@pytest.mark.parametrize(
    ("position", "plus", "minus"),
    [
        (5, "upstream", "downstream"),
        (11, "non-coding exon", "non-coding exon"),
        (21, "splice site", "splice site"),
        (22, "splice site", "splice site"),
        (23, "intron", "intron"),
        (28, "intron", "intron"),
        (29, "splice site", "splice site"),
        (31, "non-coding exon", "non-coding exon"),
        (41, "downstream", "upstream"),
    ],
)
def test_where_a_variant_lies(position: int, plus: str, minus: str) -> None:
    ref = LETTERS[position - 1]
    variant = Variant("one", position, ref, "A" if ref != "A" else "C")
    assert name(of_exons([(10, 20), (30, 40)], "+"), variant) == plus
    assert name(of_exons([(10, 20), (30, 40)], "-"), variant) == minus


RNA = "GG" + "ATGGCTTGGAAA" + "TAA" + "CCTAGC"  # MAWK, bounds 2 to 14


@pytest.mark.parametrize(
    ("edit", "consequence", "protein", "residue"),
    [
        ((0, 1, "T"), "5' UTR", "MAWK", ""),
        ((0, 2, ""), "5' UTR", "MAWK", ""),
        ((2, 2, "CC"), "5' UTR", "MAWK", ""),
        ((17, 18, "T"), "3' UTR", "MAWK", ""),
        ((17, 17, "T"), "3' UTR", "MAWK", ""),
        ((2, 3, "C"), "start lost", None, "M1?"),
        ((3, 3, "G"), "start lost", None, "M1?"),
        ((1, 3, ""), "start lost", None, "M1?"),
        ((7, 8, "C"), "synonymous", "MAWK", "A2="),
        ((5, 6, "A"), "missense", "MTWK", "A2T"),
        ((9, 10, "A"), "stop gained", "MA", "W3*"),
        ((14, 15, "C"), "stop lost", "MAWKQPS", "*5Q"),
        ((16, 17, "G"), "synonymous", "MAWK", "*5="),
        ((5, 6, ""), "frameshift", "MLGNNL", "A2fs"),
        ((5, 5, "A"), "frameshift", "MSLEIT", "A2fs"),
        ((5, 8, ""), "inframe", "MWK", "A2del"),
        ((5, 5, "GGG"), "inframe", "MGAWK", "A2ins"),
        ((5, 5, "TAG"), "stop gained", "M", "A2*"),
        ((14, 17, ""), "stop lost", "MAWKPS", "*5P"),
        ((14, 14, "CCC"), "inframe", "MAWKP", "*5ins"),
        ((11, 17, ""), "stop lost", "MAWPS", "K4P"),
    ],
    ids=str,
)
def test_consequences_by_hand(edit: tuple[int, int, str], consequence: str, protein: str | None, residue: str) -> None:
    found = coding_change(RNA, [RnaEdit(*edit)], (2, 14), 1)
    assert (found.consequence, found.protein, found.residue) == (consequence, protein, residue)


def test_the_genetic_code_counts() -> None:
    rna = "ATATGGAGATAA"  # mitochondria of vertebrates: ATA starts, TGG is W, AGA stops
    assert coding_change(rna, [RnaEdit(0, 1, "A")], (0, 6), 2).protein == "MW"
    assert coding_change(rna, [RnaEdit(5, 6, "A")], (0, 6), 2).consequence == "synonymous"
    assert is_start("ATA", 2)
    assert not is_start("ATA", 1)
    assert coding_change("ATGGCTTA", [RnaEdit(5, 6, "C")], (0, 6), 2).protein == "MA"  # a stop that the tail completes


# Files


def test_vcf_and_table_and_text_are_the_same_variants(tmp_path: Path) -> None:
    vcf = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\none\t5\trs1\tA\tG,AT\t.\none\t9\t.\tac\t<DEL>\t.\n"
    with gzip.open(tmp_path / "v.vcf.gz", "wt") as file:
        file.write(vcf + "one\t5\t.\tA\tG\t.\n")
    (tmp_path / "v.tsv").write_text("chrom\tpos\tref\talt\none\t5\tA\tG\none\t5\tA\tAT\n")
    found, table = read_variants(tmp_path / "v.vcf.gz"), read_variants(tmp_path / "v.tsv")
    typed = [parse_variant("one:5:A:G"), parse_variant("one:5:a:at")]
    assert [*map(str, found.variants)] == [*map(str, table.variants)] == [*map(str, typed)]
    assert [one.name for one in found.variants] == ["rs1", "rs1"]
    assert sum(found.left_out.values()) == 2


HEADER = "chrom\tpos\tref\talt\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\t5\tA\tG\n", r"line 1: no column 'contig' among 'one', '5'"),
        (HEADER + "one\t5\tA\n", r"line 2: 3 columns, expected at least 4"),
        (HEADER + "one\t0\tA\tG\n", r"line 2: position '0' is no number from 1 on"),
        (HEADER + "one\tx\tA\tG\n", r"line 2: position 'x'"),
        (HEADER + "one\t5\tA\tG\none\t5\tQ\tG\n", r"line 3: allele 'Q' is not in the letters"),
        (HEADER + "one\t5\tA\t<DUP>\n", r"has no variant: 1 allele without letters"),
        (HEADER, r"has no variant\. "),
        ("", r"has no variant\. "),
        (HEADER + "one\t5\x00\tA\tG\n", r"line 2: holds a control character"),
    ],
    ids=["no-header", "short", "zero", "word", "letter", "symbolic", "only-header", "empty", "control"],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "v.tsv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_variants(path)


def test_other_genomes_are_refused(folder: Path) -> None:
    wrong = "A" if LETTERS[4] != "A" else "C"
    with open_genome(folder / "g.fa") as genome:
        with pytest.raises(InvalidInputError, match=f"REF is '{wrong}', but .* has '{LETTERS[4]}' there"):
            check_reference(genome, Variant("one", 5, wrong, "T"))
        with pytest.raises(InvalidInputError, match="ends at 120"):
            check_reference(genome, Variant("one", 121, "A", "T"))
        with pytest.raises(InvalidInputError, match="line 7: variant chr1:5:A:T lies on contig 'chr1'"):
            check_reference(genome, Variant("chr1", 5, "A", "T", where="v.vcf, line 7"))
    with pytest.raises(InvalidSettingError, match="is not CHROM:POS:REF:ALT"):
        parse_variant("one:5:A")
    with pytest.raises(InvalidSettingError, match="cannot be applied"):
        parse_variant("one:5:A:A")
