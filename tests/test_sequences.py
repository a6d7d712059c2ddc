import bz2
import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from damage_bytes import END_OF_BGZF, bgzf
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError, InvalidSequenceError, UnknownNameError
from embedcache.sequences import Modality, SequenceRecord, normalise, normalised, read_fasta, read_header, sequence_key


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_modality_that_is_none_is_not_read_as_rna(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown modality 'RNA'"):
        list(read_fasta(write(tmp_path / "a.fa", ">a\nACGT\n"), "RNA"))  # type: ignore[arg-type]


def test_fasta_is_read_whatever_its_form(tmp_path: Path) -> None:
    text = ">a|b/c d e\r\nac\r\nGU\r\n\r\n>x\nACGTRYN\n NN acgt\n>long" + "l" * 300 + "\nA"
    plain = list(read_fasta(write(tmp_path / "a.fa", text), "rna"))
    assert [(record.id, record.sequence) for record in plain] == [
        ("a|b/c", "ACGT"),
        ("x", "ACGTNNNNNACGT"),
        ("long" + "l" * 300, "A"),
    ]
    (tmp_path / "a.fa.gz").write_bytes(gzip.compress(text.encode()))
    assert list(read_fasta(tmp_path / "a.fa.gz", "rna")) == plain


def test_space_around_and_between_letters_is_none(tmp_path: Path) -> None:
    text = " \t\n\n>a\n\tAC G\tT \n \n\t>no header\n"
    (record,) = read_fasta(write(tmp_path / "a.fa", text.replace("\t>no header", "N\t")), "dna")
    assert record.sequence == "ACGTN"
    with pytest.raises(InvalidSequenceError, match="'>' at position 4"):
        list(read_fasta(write(tmp_path / "a.fa", text), "dna"))


def test_ambiguous_letters_are_counted(tmp_path: Path) -> None:
    text = ">a\nACGURY\nnNk\n>b\nACGT\n"
    assert [record.ambiguous for record in read_fasta(write(tmp_path / "a.fa", text), "rna")] == [3, 0]
    assert [record.ambiguous for record in read_fasta(write(tmp_path / "p.fa", ">a\nMKRY\n"), "protein")] == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "has no record", id="empty file"),
        pytest.param("ACGT\n>a\nA", "line 1: 'ACGT' stands before the first header", id="no header"),
        pytest.param(">a\nA\n> \nC\n", "line 3: header without ID", id="no ID"),
        pytest.param(">a\nA\n>a\nC\n", "line 3: ID 'a' comes a second time", id="duplicate"),
        pytest.param(">a\nA\n>b\n>c\nA", "record 'b' at line 3: dna sequence is empty", id="empty record"),
        pytest.param(">a\nAC\nG*T\n", "record 'a' at line 1: dna sequence has '*' at position 3", id="stop"),
        pytest.param(">a\nAC-G\n", "'-' at position 2", id="gap"),
        pytest.param(">a\nACÄG\n", "at position 2", id="not ASCII"),
        pytest.param(">a\0b\nACG\n", "line 1: ID 'a\\x00b' has '\\x00'", id="NUL in an ID"),
        # what one flipped bit makes of a letter or a line end
        pytest.param(">a\nAC\x0cG\n", "has '\\x0c' at position 2", id="form feed in letters"),
        pytest.param(">a\nACG\n\x1ecat\nACG\n", "has '\\x1e' at position 3", id="header sign lost"),
        pytest.param(">a\x0bACG\nACG\n", "line 1: ID 'a\\x0bACG' has", id="line end of a header lost"),
        pytest.param(">a b\x0bACG\nACG\n", "line 1: header has '\\x0b'", id="control in a description"),
        pytest.param(">a\nACG\rTT\nACG\n", "line 2: ends in CR, but others in LF", id="mixed line ends"),
    ],
)
def test_bad_fasta_says_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((InvalidInputError, InvalidSequenceError)) as caught:
        list(read_fasta(write(tmp_path / "bad.fa", text), "dna"))
    assert message in str(caught.value) and "bad.fa" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(">a\nACG\n".encode("utf-16"), "UTF-16", id="utf-16"),
        pytest.param(bz2.compress(b">a\nACG\n"), "bzip2", id="bzip2"),
        pytest.param(b">a\xe9 x\nACG\n", "line 1: .*UTF-8", id="latin-1"),
    ],
)
def test_a_file_of_another_encoding_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.fa").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        list(read_fasta(tmp_path / "bad.fa", "dna"))
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    assert [record.id for record in read_fasta(write(tmp_path / "a.fa", "\ufeff>a\nACG\n"), "dna")] == ["a"]


def test_a_description_may_have_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_bytes(b">a caf\xe9\nACG\n")
    assert [record.id for record in read_fasta(tmp_path / "a.fa", "dna")] == ["a"]


@pytest.mark.parametrize("cut", [5, 15, 40])
def test_a_cut_gzip_file_is_an_error(tmp_path: Path, cut: int) -> None:
    whole = gzip.compress(b">a\n" + b"ACGT" * 500 + b"\n>b\nAC\n")
    (tmp_path / "cut.fa.gz").write_bytes(whole[:-cut])
    with pytest.raises(InvalidInputError, match="cut or damaged"):
        list(read_fasta(tmp_path / "cut.fa.gz", "dna"))


@pytest.mark.parametrize("letters", ["MK\u00df", "M\u0131v", "MK\u017f", "M\uff2bV", "MK\udce9"], ids=ascii)
def test_letters_of_other_scripts_do_not_become_residues(letters: str) -> None:
    with pytest.raises(InvalidSequenceError, match="protein sequence has"):
        normalise(letters, "protein")


def test_a_file_of_bgzip_that_is_cut_between_two_blocks_is_an_error(tmp_path: Path) -> None:
    whole = bgzf(b">a\n" + b"ACGT" * 99 + b"\n>b\n" + b"ACGT" * 99 + b"\n")
    (tmp_path / "a.fa.gz").write_bytes(whole)
    assert [record.id for record in read_fasta(tmp_path / "a.fa.gz", "dna")] == ["a", "b"]
    for cut in (whole.removesuffix(END_OF_BGZF), whole[: whole.index(b"\x1f\x8b", 30)]):
        (tmp_path / "a.fa.gz").write_bytes(cut)
        with pytest.raises(InvalidInputError, match="is cut: the last block of bgzip is missing"):
            list(read_fasta(tmp_path / "a.fa.gz", "dna"))


def test_only_a_file_that_can_be_read_twice_is_an_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, message in [
        (tmp_path / "pipe", "a pipe"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / "loop", "cannot"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            list(read_fasta(path, "dna"))


def test_an_error_is_one_printable_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    for name in ("line\nend", "\x1b[31mred", "\udce9"):
        with pytest.raises(InvalidSequenceError, match="Allowed letters") as caught:
            list(read_fasta(write(tmp_path / name, ">a\n" + "!" * 9), "dna"))
        assert str(caught.value).isprintable() and name.encode("unicode_escape").decode() in str(caught.value)
    with pytest.raises(InvalidInputError) as long:
        list(read_fasta(write(tmp_path / "a.fa", ">" + "x" * 70_000 + "\x07\nA\n"), "dna"))
    assert len(str(long.value)) <= 2000 and str(long.value).endswith("Write IDs in printable UTF-8.")


def test_a_missing_file_and_a_directory_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.fa", tmp_path):
        with pytest.raises(InvalidInputError, match=str(path)):
            list(read_fasta(path, "dna"))


@pytest.mark.parametrize(
    ("line", "identifier"),
    [
        (">a\tb", "a"),
        (">a b\tc", "a"),
        ("> a b", "a"),
        (">\ta", "a"),
        (">a ", "a"),
        (">a\x01b", None),
        (">sp|P1|X_Y first\x01sp|P2|Z second", "sp|P1|X_Y"),
        (">\u00e9\u4e2d d", "\u00e9\u4e2d"),
        (">a\u00a0b", None),
        (">", None),
        (">\t ", None),
    ],
    ids=["tab", "late-tab", "space-first", "tab-first", "space-last", "joined", "merged", "other-script", "no-break",
         "nothing", "blank"],
)  # fmt: skip
def test_the_id_is_the_first_word_of_a_header(line: str, identifier: str | None) -> None:
    if identifier is None:
        with pytest.raises(
            InvalidInputError, match=r"here: (header without ID|ID 'a.* has '.*'\. Write IDs in printable)"
        ):
            read_header("here", line)
    else:
        assert read_header("here", line) == identifier


@pytest.mark.parametrize(
    ("letters", "modality", "message"),
    [
        ("AC!G", "dna", "dna sequence has '!' at position 2 (0-based). Allowed letters: ACGTNU and IUPAC codes. "
         "Replace it with N, or drop the record."),
        ("ACGE", "rna", "rna sequence has 'E' at position 3 (0-based). Allowed letters: ACGTNU and IUPAC codes. "
         "Replace it with N, or drop the record."),
        ("1MK", "protein", "protein sequence has '1' at position 0 (0-based). Allowed letters: "
         "ABCDEFGHIJKLMNOPQRSTUVWXYZ. Replace it with X, or drop the record."),
        ("MKELLPFQI*", "rna", "rna sequence has 'E' at position 2 (0-based). Allowed letters: ACGTNU "
         "and IUPAC codes. It reads like a protein: give it as one."),
        ("EELL" + "ACGT" * 20, "dna", "dna sequence has 'E' at position 0 (0-based). Allowed letters: ACGTNU and IUPAC "
         "codes. Replace it with N, or drop the record."),
        ("EE!LLPPFFQ", "dna", "dna sequence has 'E' at position 0 (0-based). Allowed letters: ACGTNU and IUPAC "
         "codes. Replace it with N, or drop the record."),
        ("*", "protein", "protein sequence is empty. Give it letters, or drop the record."),
    ],
    ids=["dna", "rna", "protein", "a-protein-as-rna", "a-few-residues", "more-than-residues", "only-a-stop"],
)  # fmt: skip
def test_what_is_no_letter_is_told_with_what_may_stand_there(letters: str, modality: Modality, message: str) -> None:
    with pytest.raises(InvalidSequenceError) as error:
        normalise(letters, modality)
    assert str(error.value) == message


@given(st.text("ACGTUNRYSWKMBDHVacgtunryswkmbdhv", min_size=1))
def test_every_code_for_several_bases_is_read_as_n(text: str) -> None:
    bases = {"A": "A", "C": "C", "G": "G", "T": "T", "U": "T"}
    assert normalise(text, "rna") == "".join(bases.get(letter.upper(), "N") for letter in text)


def test_proteins_keep_all_letters_and_lose_only_the_last_stop() -> None:
    assert normalise("mkuoBZJx*", "protein") == "MKUOBZJX"
    for wrong in ("MK*V", "MK**", "MK-V", "MK.V", "M1"):
        with pytest.raises(InvalidSequenceError):
            normalise(wrong, "protein")


@given(st.text("ACGTUNRYSWKMBDHVacgtunry", min_size=1))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text, "dna")
    assert normalise(once, "dna") == once and len(once) == len(text) and set(once) <= set("ACGTN")


def test_a_key_depends_on_letters_and_modality_only() -> None:
    modalities: tuple[Modality, ...] = ("dna", "rna", "protein")
    keys = {sequence_key(sequence, modality) for sequence in ("A", "AC", "CA") for modality in modalities}
    assert len(keys) == 9 and {len(key) for key in keys} == {16}
    # the key is a promise to every cache on disk
    assert sequence_key("ACGT", "rna").hex() == "0e3ae6443137a2e056b9da9ded561e6d"


@pytest.mark.parametrize(
    ("sequence", "modality", "found"),
    [
        ("mkv*", "protein", "MKV"),
        ("ACGU", "rna", "ACGT"),
        ("MK1V", "protein", r"record 'a': protein sequence has '1' at position 2"),
        ("", "protein", "record 'a': protein sequence is empty"),
        (None, "protein", "is no SequenceRecord of letters. Give SequenceRecord(id, letters, modality)"),
    ],
)
def test_records_from_anywhere_are_brought_to_the_one_form(sequence: Any, modality: Modality, found: str) -> None:
    record = SequenceRecord("a", sequence, modality)
    if found.isalpha():
        assert normalised(record) == SequenceRecord("a", found, modality)
    else:
        with pytest.raises(InvalidSequenceError) as error:
            normalised(record)
        assert found in str(error.value)
