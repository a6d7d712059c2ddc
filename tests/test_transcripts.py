import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.annotation import Transcript
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSequenceError, UnknownNameError
from embedcache.genome import Genome, open_genome, reverse_complement, window_bounds
from embedcache.transcripts import check_cds, check_genetic_code, locate_cds, read_coding_sequence, splice

COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
LETTERS = "".join(random.Random(0).choices("ACGT", k=300))


@pytest.fixture(scope="module")
def genome_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(">one some words\n" + "\n".join(LETTERS[i : i + 7] for i in range(0, 300, 7)) + "\n>two\nACGT\n")
    return path


def transcript(exons: list[tuple[int, int]], strand: str = "+", cds: list[tuple[int, int]] | None = None) -> Transcript:
    return Transcript("t", "g", None, "one", strand, None, 1, exons=exons, cds=cds or [])


def oriented(positions: list[int], strand: str) -> str:
    """Bases at genomic positions, in the direction of the transcript; one base at a time."""
    if strand == "+":
        return "".join(LETTERS[p] if 0 <= p < 300 else "N" for p in sorted(positions))
    return "".join(COMPLEMENT[LETTERS[p]] if 0 <= p < 300 else "N" for p in sorted(positions, reverse=True))


PIECES = st.lists(st.integers(0, 300), min_size=2, max_size=12, unique=True).map(
    lambda cuts: list(zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False))
)


# Windows


@given(st.integers(0, 299), st.sampled_from("+-"), st.integers(1, 700))
@settings(deadline=None)
def test_a_window_is_what_counting_base_by_base_gives(genome_path: Path, tss: int, strand: str, length: int) -> None:
    step = 1 if strand == "+" else -1
    positions = [tss + step * (i - length // 2) for i in range(length)]
    expected = "".join(
        ("N" if not 0 <= p < 300 else LETTERS[p] if strand == "+" else COMPLEMENT[LETTERS[p]]) for p in positions
    )
    with open_genome(genome_path) as genome:
        assert genome.window("one", tss, strand, length) == expected


@pytest.mark.parametrize(
    ("strand", "length", "bounds"),
    [("+", 10, (95, 105)), ("-", 10, (96, 106)), ("+", 9, (96, 105)), ("-", 9, (96, 105))],
    ids=["plus", "minus", "plus-odd", "minus-odd"],
)
def test_the_tss_is_the_middle_base_on_its_strand(
    genome_path: Path, strand: str, length: int, bounds: tuple[int, int]
) -> None:
    assert window_bounds(100, strand, length) == bounds
    with open_genome(genome_path) as genome:
        window = genome.window("one", 100, strand, length)
    assert window[length // 2] == (LETTERS[100] if strand == "+" else COMPLEMENT[LETTERS[100]])


# Genome files


@pytest.mark.parametrize("kind", ["plain", "gzip", "crlf", "lower", "mark"])
def test_a_genome_is_read_in_any_form(tmp_path: Path, kind: str) -> None:
    text = ">one\nACGTA\nCCRGU\nTT\n>two\nGGG\n"
    changed = {"mark": "\ufeff" + text, "crlf": text.replace("\n", "\r\n"), "lower": text.lower()}
    text = changed.get(kind, text)
    path = tmp_path / "inputs" / "g.fa"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()) if kind == "gzip" else text.encode())
    with open_genome(path, tmp_path) as genome:
        assert genome.contigs == {"one": 12, "two": 3}
        assert genome.fetch("one", 0, 12) == "ACGTACCNGTTT"
        assert genome.fetch("one", 4, 6) == "AC"
    assert [file.name for file in path.parent.iterdir()] == ["g.fa"]  # nothing beside the input
    assert [file.name for file in tmp_path.iterdir()] == ["inputs"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b">one\nACGT\n>one\nACGT\n", "one"),
        (b">one\nACG\nACGTA\nACG\n", "wrapped at one width"),
        (b"ACGT\n", "g.fa"),
        (gzip.compress(b">one\n" + b"ACGT" * 1000)[:-12], "cut or damaged"),
        (b">one\rACGT\r>two\rACGT\r", "line ends"),
        (b">caf\xe9\nACGT\n", "UTF-8"),
        (">one\nACGT\n".encode("utf-16"), "UTF-16"),
        (b">one\nACGT\nA\0\0T\n", "contig 'one': base 6 is b'.x00'"),
        (b">one\r\nACG\r\nAC\xc5\xbf\r\n", "wrapped at one width"),
        (b">one\nACGTACGTAC\xc5\xbf\n>two\nACGT", "contig 'one': base 11 is b'.xc5'. Allowed letters"),
        (b">one\nACG\nACGTA\n", "contig 'one' has .*wrapped at one width"),
        (b">one\nACGT\nACG\r\nACGT\n", "wrapped at one width"),
        (b">one\r\nACGT\r\nACGTA\nACGT\r\n", "wrapped at one width"),
        (b">one\nACGT\nA\rGT\n", "wrapped at one width"),
        (b">one\nACGT\n\nACGT\n", "wrapped at one width"),
        (b">one\nACGT\n>two\n>three\nA\n", "contig 'two' has no letters"),
        (b">one\n", "contig 'one' has no letters"),
        (b">one\nACGT\n>\nA\n", "record 2: header without ID"),
        (b">one\x0bACGT\nACGT\n", "record 1: ID 'one.x0bACGT' has"),
    ],
    ids=[
        "empty", "twice", "uneven", "no-header", "cut", "old-mac", "latin-1", "utf-16", "zeros", "two-bytes-more",
        "no-letter", "longer-last-line", "one-crlf",
        "one-lf", "cr-inside", "empty-line", "no-letters", "header-only", "no-id", "control",
    ],
)  # fmt: skip
def test_a_genome_that_cannot_be_used_gives_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "g.fa").write_bytes(content)
    with pytest.raises(EmbedCacheError, match=message) as error, open_genome(tmp_path / "g.fa"):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("before", [0, 1, 70_000])
@pytest.mark.parametrize("behind", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_empty_lines_around_the_letters_say_nothing(tmp_path: Path, before: int, behind: int) -> None:
    (tmp_path / "g.fa").write_text("\n" * before + ">one\nACGT\nAC" + "\n" * behind)
    with open_genome(tmp_path / "g.fa") as genome:
        assert genome.contigs == {"one": 6} and genome.fetch("one", 0, 6) == "ACGTAC"
    (tmp_path / "n.fa").write_text(">one" + "\n" * (behind + 1))
    with pytest.raises(InvalidInputError, match="no letters"), open_genome(tmp_path / "n.fa"):
        pass


def test_a_missing_genome_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"), open_genome(tmp_path / "no.fa"):
        pass


def test_a_letter_that_is_no_base_is_named_with_its_contig(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">one\nACGT\nAC*T\n")
    with pytest.raises(InvalidSequenceError, match=r"contig 'one': base 7 is b'\*'"), open_genome(tmp_path / "g.fa"):
        pass


# Splicing


@given(PIECES, st.sampled_from("+-"))
@settings(deadline=None)
def test_splicing_is_what_picking_base_by_base_gives(
    genome_path: Path, exons: list[tuple[int, int]], strand: str
) -> None:
    with open_genome(genome_path) as genome:
        found = splice(genome, transcript(exons, strand))
    assert found == oriented([p for start, end in exons for p in range(start, end)], strand)


@given(PIECES, st.sampled_from("+-"), st.data())
@settings(deadline=None)
def test_the_cds_is_found_where_counting_gives_it(
    exons: list[tuple[int, int]], strand: str, data: st.DataObject
) -> None:
    positions = [p for start, end in exons for p in range(start, end)]
    if strand == "-":
        positions.reverse()
    first = data.draw(st.integers(0, len(positions) - 1))
    last = data.draw(st.integers(first, len(positions) - 1))
    coding = set(positions[first : last + 1])
    cds = [(max(s, min(coding)), min(e, max(coding) + 1)) for s, e in exons if s <= max(coding) and e > min(coding)]
    assert locate_cds(transcript(exons, strand, cds)) == (first, last + 1)


@pytest.mark.parametrize(
    "cds",
    [[(10, 15), (16, 20)], [(10, 16), (15, 20)], [(10, 25)], [(5, 15)]],
    ids=["skips", "repeats", "out", "before"],
)
def test_a_cds_that_does_not_follow_the_exons_has_no_place(cds: list[tuple[int, int]]) -> None:
    assert locate_cds(transcript([(8, 22)], cds=cds)) is None or cds[0][0] < 8 or cds[-1][1] > 22
    assert read_coding_sequence(transcript([(8, 22)], cds=cds), "A" * 14, 1).protein is None


def test_an_exon_past_its_contig_is_an_error(genome_path: Path) -> None:
    with (
        open_genome(genome_path) as genome,
        pytest.raises(InvalidInputError, match=r"line 1 of the GTF.* ends at 301.*has 300 bp"),
    ):
        splice(genome, transcript([(290, 301)]))


# Coding sequences


@pytest.mark.parametrize(
    ("rna", "bounds", "code", "expected"),
    [
        ("GGATGAAATAACC", (2, 8), 1, (2, 8, "MK")),
        ("GGATGAAATAACC", (2, 11), 1, (2, 8, "MK")),  # the stop codon is part of the annotated CDS
        ("GGATGNAATAACC", (2, 8), 1, (2, 8, "MX")),
        ("ATAATATGATAA", (0, 9), 2, (0, 9, "MMW")),
        ("ATTATATGATA", (0, 11), 2, (0, 9, "MMW")),  # polyadenylation completes TA to TAA
        ("GTGCTTTAA", (0, 6), 3, (0, 6, "MT")),
    ],
    ids=["stop-behind", "stop-inside", "unknown-base", "mitochondrion", "polyadenylation", "yeast-mitochondrion"],
)
def test_a_whole_cds_is_translated(
    rna: str, bounds: tuple[int, int], code: int, expected: tuple[int, int, str]
) -> None:
    found = check_cds(rna, *bounds, code)
    assert (found.start, found.end, found.protein) == expected
    assert found.end - found.start == 3 * len(expected[2])


@pytest.mark.parametrize(
    ("rna", "bounds", "problem"),
    [
        ("ATGAAAATAA", (0, 7), "not a multiple of 3"),
        ("CTGAAATAA", (0, 6), "without start codon"),
        ("ATGAAACCC", (0, 6), "without stop codon"),
        ("ATGAAA", (0, 6), "without stop codon"),
        ("ATGTGAAAATAA", (0, 9), "stop codon inside"),
        ("ATGTA", (0, 5), "not a multiple of 3"),
        ("TAA", (0, 3), "without start codon"),
    ],
    ids=["length", "start", "stop", "cut", "inside", "nuclear-TA", "stop-only"],
)
def test_a_broken_cds_has_no_protein_and_a_reason(rna: str, bounds: tuple[int, int], problem: str) -> None:
    found = check_cds(rna, *bounds, 1)
    assert found.protein is None
    assert problem in str(found.problem)


def test_an_unknown_genetic_code_lists_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="Unknown genetic code '99'"):
        check_genetic_code(99)


def test_reverse_complement_twice_is_the_identity() -> None:
    assert reverse_complement("ACGTN") == "NACGT"
    assert reverse_complement(reverse_complement(LETTERS)) == LETTERS


def test_the_whole_genome_is_not_read_for_a_piece(genome_path: Path) -> None:
    with open_genome(genome_path) as genome:
        assert isinstance(genome, Genome)
        assert genome.fetch("two", 1, 3) == "CG"
        assert genome.fetch("two", 2, 2) == ""
