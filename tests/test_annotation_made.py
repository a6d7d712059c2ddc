"""Annotations written from known transcripts, and what is told of those that cannot be."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.annotation import Annotation, Transcript, read_gtf
from embedcache.errors import InvalidInputError
from embedcache.transcripts import locate_cds, read_coding_sequence, splice


@dataclass(frozen=True)
class Made:
    """A transcript as we know it; pieces 0-based and half-open."""

    id: str
    gene: str
    contig: str
    strand: str
    exons: tuple[tuple[int, int], ...]
    cds: tuple[tuple[int, int], ...]


def gtf_line(made: Made, feature: str, piece: tuple[int, int], extra: str = "", phase: str = ".") -> str:
    names = f'gene_id "{made.gene}"; transcript_id "{made.id}";{extra}'
    fields = [made.contig, "x", feature, piece[0] + 1, piece[1], ".", made.strand, phase, names]
    return "\t".join(map(str, fields))


def gtf(made: Made, *, has_whole: bool, is_numbered: bool) -> list[str]:
    order = list(made.exons if made.strand == "+" else reversed(made.exons))
    numbers = [f" exon_number {i + 1};" if is_numbered else "" for i in range(len(order))]
    lines = [gtf_line(made, "exon", exon, number) for exon, number in zip(order, numbers, strict=True)]
    lines += [gtf_line(made, "CDS", piece, phase="0") for piece in made.cds]
    whole = [gtf_line(made, "transcript", (made.exons[0][0], made.exons[-1][1]))] if has_whole else []
    return whole + lines


@st.composite
def made_transcripts(draw: Callable[..., object]) -> list[Made]:
    rng = random.Random(draw(st.integers(0, 2**32)))  # type: ignore[arg-type]
    found = []
    for i in range(rng.randint(1, 4)):
        cuts = sorted(rng.sample(range(1000), 2 * rng.randint(1, 4)))
        exons = tuple(zip(cuts[::2], cuts[1::2], strict=True))
        low, high = sorted(rng.sample(range(exons[0][0], exons[-1][1] + 1), 2))
        cds = tuple((max(a, low), min(b, high)) for a, b in exons if a < high and b > low)
        found.append(Made(f"t{i}", f"g{i // 2}", rng.choice("12"), rng.choice("+-"), exons, cds))
    return found


def read(folder: Path, lines: list[str]) -> Annotation:
    (folder / "a.gtf").write_text("\n".join(lines) + "\n")
    return read_gtf(folder / "a.gtf")


@given(made_transcripts(), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_transcripts_are_read_as_they_were_made_in_whatever_order_their_lines_come(
    tmp_path_factory: pytest.TempPathFactory, made: list[Made], has_whole: bool, is_numbered: bool, seed: int
) -> None:
    lines = [line for one in made for line in gtf(one, has_whole=has_whole, is_numbered=is_numbered)]
    random.Random(seed).shuffle(lines)
    found = read(tmp_path_factory.mktemp("gtf"), lines)
    assert set(found.transcripts) == {one.id for one in made} and not found.left_out
    assert found.counts == {"transcripts": len(made), "genes": len({one.gene for one in made})}
    for one in made:
        other = found.transcripts[one.id]
        assert (other.gene_id, other.contig, other.strand) == (one.gene, one.contig, one.strand)
        assert (tuple(other.exons), tuple(other.cds)) == (one.exons, one.cds)
        assert other.tss == (one.exons[0][0] if one.strand == "+" else one.exons[-1][1] - 1)
        assert (other.whole is not None) == has_whole and len(other.numbers) == is_numbered * len(one.exons)
        assert not one.cds or other.first_phase == 0
        assert lines[other.line - 1].count(f'"{one.id}"') == 1


EXON = Made("t", "g", "1", "+", ((10, 20), (30, 40)), ())


def test_names_are_taken_from_whichever_line_has_them(tmp_path: Path) -> None:
    first = gtf_line(EXON, "exon", (10, 20), ' gene_name "early"; gene_type "b";')
    second = gtf_line(EXON, "exon", (30, 40), ' gene_name "ignored";')
    whole = gtf_line(EXON, "transcript", (10, 40), ' gene_name "late"; transcript_type "lncRNA";')
    bare = gtf_line(EXON, "mRNA", (10, 40))

    def names(*lines: str) -> tuple[str | None, str | None]:
        found = read(tmp_path, list(lines)).transcripts["t"]
        return found.gene_name, found.biotype

    assert names(first, second) == ("early", "b")
    assert names(first, second, whole) == ("late", "lncRNA")
    assert names(first, second, bare) == ("early", "b")
    assert names(whole, first, second) == ("late", "lncRNA")
    assert names(bare, first, second) == (None, None)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([gtf_line(EXON, "transcript", (10, 40))], "transcript without exon"),
        ([gtf_line(EXON, "stop_codon", (10, 13))], "transcript without exon"),
        ([gtf_line(EXON, "exon", (10, 20)), gtf_line(EXON, "exon", (19, 30))], "transcript with overlapping exons"),
        ([gtf_line(EXON, "transcript", (9, 40)), gtf_line(EXON, "exon", (10, 40))],
         "transcript whose exons do not reach its ends"),
        ([gtf_line(EXON, "transcript", (10, 40)), gtf_line(EXON, "exon", (10, 39))],
         "transcript whose exons do not reach its ends"),
        ([gtf_line(EXON, "exon", (10, 20), " exon_number 2;")], "transcript whose exon numbers have gaps"),
        ([gtf_line(EXON, "exon", (10, 20), " exon_number 1;"), gtf_line(EXON, "exon", (30, 40), " exon_number 1;")],
         "transcript whose exon numbers have gaps"),
    ],
    ids=["no-exon", "codon-only", "overlap", "start", "end", "first-number", "equal-numbers"],
)  # fmt: skip
def test_a_transcript_whose_exons_cannot_be_trusted_is_left_out(tmp_path: Path, lines: list[str], reason: str) -> None:
    other = Made("u", "h", "1", "+", ((0, 5),), ())
    found = read(tmp_path, [*lines, gtf_line(other, "exon", (0, 5))])
    assert (list(found.transcripts), found.left_out) == (["u"], {reason: 1})
    with pytest.raises(InvalidInputError, match=rf"a\.gtf has no transcript that can be used: 1 {reason}\. Give a GTF"):
        read(tmp_path, lines)


@pytest.mark.parametrize(
    ("numbers", "is_kept"),
    [((1, 2), True), ((2, 1), True), ((0, 1), True), ((1, 3), False), ((2, 3), False), ((1, None), True)],
    ids=["forward", "backward", "from-0", "gap", "late", "one-unnumbered"],
)
def test_numbers_of_exons_follow_each_other(tmp_path: Path, numbers: tuple[int | None, ...], is_kept: bool) -> None:
    extras = ["" if number is None else f" exon_number {number};" for number in numbers]
    lines = [gtf_line(EXON, "exon", piece, extra) for piece, extra in zip(EXON.exons, extras, strict=True)]
    other = gtf_line(Made("u", "h", "1", "+", (), ()), "exon", (0, 5))
    assert ("t" in read(tmp_path, [*lines, other]).transcripts) == is_kept


def test_touching_exons_are_two_and_their_cds_one(tmp_path: Path) -> None:
    lines = [gtf_line(EXON, "exon", piece) for piece in ((10, 16), (16, 22))]
    found = read(tmp_path, [*lines, gtf_line(EXON, "CDS", (10, 19), phase="0")]).transcripts["t"]
    assert found.exons == [(10, 16), (16, 22)]
    assert locate_cds(found) == (0, 9)  # one coding piece over two exons that touch


@pytest.mark.parametrize(
    ("strand", "phases", "is_incomplete"),
    [("+", "0.", False), ("+", "02", False), ("+", "10", True), ("-", "10", False), ("-", "01", True)],
)
def test_the_phase_of_the_first_coding_piece_decides(
    tmp_path: Path, strand: str, phases: str, is_incomplete: bool
) -> None:
    made = Made("t", "g", "1", strand, ((10, 20), (30, 40)), ())
    lines = [gtf_line(made, "exon", piece) for piece in made.exons]
    lines += [gtf_line(made, "CDS", piece, phase=phase) for piece, phase in zip(made.exons, phases, strict=True)]
    found = read(tmp_path, lines).transcripts["t"]
    assert bool(found.first_phase) == is_incomplete
    problem = read_coding_sequence(found, "A" * 20, 1).problem
    assert (problem == "CDS annotated as incomplete") == is_incomplete


@pytest.mark.parametrize("tag", ["cds_start_NF", "cds_end_NF", "mRNA_start_NF"])
def test_a_tag_says_that_a_cds_is_incomplete(tmp_path: Path, tag: str) -> None:
    lines = [gtf_line(EXON, "exon", piece, f' tag "{tag}";') for piece in EXON.exons]
    assert read(tmp_path, lines).transcripts["t"].cds_incomplete == tag.startswith("cds")


def test_counts_of_copies_and_of_features_that_nobody_knows(tmp_path: Path) -> None:
    exons = [gtf_line(EXON, "exon", piece) for piece in EXON.exons]
    elsewhere = Made("t", "g", "2", "-", ((0, 9),), ())
    copies = [gtf_line(elsewhere, feature, (0, 9)) for feature in ("transcript", "exon", "exon")]
    odd = [gtf_line(EXON, "x" * 50, (0, 1))] * 2 + [gtf_line(EXON, "y", (0, 1))]
    known = [gtf_line(EXON, one, (0, 1)) for one in ("gene", "start_codon", "Selenocysteine", "UTR", "5UTR", "3UTR",
             "five_prime_utr", "three_prime_utr", "intron", "intron_CNS", "inter", "inter_CNS")]  # fmt: skip
    found = read(tmp_path, [*exons, *copies, *odd, *known])
    assert found.transcripts["t"].exons == [(10, 20), (30, 40)]
    assert found.left_out == {
        "second place of a transcript, on another contig": 1,
        f"lines of feature {'x' * 40!r}, which is not known": 2,
        "lines of feature 'y', which is not known": 1,
    }


class Letters:
    """A genome of one contig, without a file."""

    path = Path("g.fa")

    def length(self, contig: str) -> int:
        return {"1": 40}[contig]

    def fetch(self, contig: str, start: int, end: int) -> str:
        return ("ACGTN" * 8)[start:end]


@pytest.mark.parametrize("end", [40, 41])
def test_an_exon_may_end_with_its_contig(end: int) -> None:
    one = Transcript("t", "g", None, "1", "+", None, 7, exons=[(0, 2), (38, end)])
    if end == 40:
        assert splice(Letters(), one) == "ACTN"  # type: ignore[arg-type]
    else:
        with pytest.raises(
            InvalidInputError, match=r"'t' \(line 7 of the GTF\) ends at 41, but contig '1' of g.fa has 40"
        ):
            splice(Letters(), one)  # type: ignore[arg-type]
