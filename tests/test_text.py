"""Text files and tables as people have them, compared with readers that share no code with ours."""

import csv
import errno
import gzip
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from Bio import SeqIO
from damage_bytes import bgzf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedcache.text as text_module
from embedcache.errors import InvalidInputError, InvalidSequenceError
from embedcache.sequences import read_fasta
from embedcache.table_text import CheckedText
from embedcache.tables import read_table, stream_table
from embedcache.text import control_character, open_text, read_lines, read_start

in_a_folder = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=8), max_size=6)


# Lines


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.sampled_from(["", "mark", "gzip", "mark gzip"]))
@in_a_folder
def test_lines_come_with_their_numbers_whatever_the_form(
    tmp_path: Path, lines: list[str], line_end: str, is_ended: bool, form: str
) -> None:
    text = line_end.join(lines) + (line_end if is_ended else "")
    content = (b"\xef\xbb\xbf" if "mark" in form else b"") + text.encode()
    (tmp_path / "a").write_bytes(gzip.compress(content) if "gzip" in form else content)
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert list(read_lines(tmp_path / "a")) == list(enumerate(expected[:-1] if not expected[-1] else expected, start=1))


def test_controls_are_those_of_unicode_and_its_line_separators() -> None:
    found = {code for code in range(0x3000) if control_character(f"a\t{chr(code)}b") is not None}
    assert found == {c for c in [*range(32), *range(127, 160), 0x2028, 0x2029] if c != ord("\t")}
    assert control_character("\u00e9\x07\x00") == "\x07"


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"a\rb\nc\n", 1), (b"a\r\nb\rc\r\n", 2), (b"a\nb\nc\r", 3), (b"a\r\rb\n", 1)],
    ids=["first", "second", "last", "twice"],
)
def test_a_lone_cr_is_named_with_the_first_line_that_has_it(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"line {line}: ends in CR, but others in LF"):
        list(read_lines(tmp_path / "a"))


@pytest.mark.parametrize(
    ("start", "form"),
    [
        (b"\xff\xfea\0", "UTF-16 text"),
        (b"\xfe\xff\0a", "UTF-16 text"),
        (b"BZh91AY&SY", "compressed by bzip2"),
        (b"\xfd7zXZ\0", "compressed by xz"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed by zstd"),
        (b"PK\x03\x04\x14", "a zip archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_form_is_named(tmp_path: Path, start: bytes, form: str) -> None:
    (tmp_path / "a.gz").write_bytes(start + b"x" * 40)
    with pytest.raises(InvalidInputError, match=f"a.gz is {form}. Give plain UTF-8 text, or compress it with gzip"):
        open_text(tmp_path / "a.gz")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100])
def test_the_start_of_a_file_is_at_most_sixteen_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(size))
    (tmp_path / "a").write_bytes(content)
    assert read_start(tmp_path / "a") == content[:16]


def test_a_plain_gzip_needs_no_last_block_of_bgzip(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(5000))
    for content in (
        gzip.compress(text.encode()),
        bgzf(text.encode()),
        gzip.compress(b"") + gzip.compress(text.encode()),
    ):
        (tmp_path / "a.gz").write_bytes(content)
        assert "".join(f"{line}\n" for _, line in read_lines(tmp_path / "a.gz")) == text


def test_a_disk_that_fails_while_lines_are_read_is_told_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.StringIO):
        def __iter__(self) -> "Failing":
            return self

        def __next__(self) -> str:
            if line := self.readline():
                return line
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(text_module, "open_text", lambda path: Failing("a\nb\n"))
    with pytest.raises(InvalidInputError, match=r"x\.txt cannot be read after line 2: Input/output error"):
        list(read_lines(tmp_path / "x.txt"))


# FASTA


@given(st.lists(st.text("ACGTN", min_size=1, max_size=40), min_size=1, max_size=5), st.integers(1, 15), st.booleans())
@in_a_folder
def test_fasta_is_what_biopython_reads(tmp_path: Path, sequences: list[str], width: int, is_lower: bool) -> None:
    wrapped = ["\n".join(one[i : i + width] for i in range(0, len(one), width)) for one in sequences]
    text = "".join(f">id|{i}.1 of {i}\n{one.lower() if is_lower else one}\n" for i, one in enumerate(wrapped))
    (tmp_path / "a.fa").write_text(text)
    expected = [(one.id, str(one.seq).upper()) for one in SeqIO.parse(io.StringIO(text), "fasta")]
    assert [(one.id, one.sequence) for one in read_fasta(tmp_path / "a.fa", "dna")] == expected


def test_a_record_comes_before_the_rest_of_the_file_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">a\nAC\n>b\nGT\n>c\nA!\n")
    records = read_fasta(tmp_path / "a.fa", "rna")
    assert isinstance(records, Iterator)
    assert [next(records).sequence, next(records).sequence] == ["AC", "GT"]
    with pytest.raises(InvalidSequenceError, match="record 'c' at line 5"):
        next(records)


# Tables

CELLS = st.text('ab", \u00e9\t;0', max_size=5)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",\t"), st.booleans())
@in_a_folder
def test_a_table_is_what_the_csv_module_wrote(
    tmp_path: Path, rows: list[tuple[str, str, str]], separator: str, is_crlf: bool
) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\r\n" if is_crlf else "\n")
        writer.writerows([("id", "second one", "third"), *rows])
    found = read_table(tmp_path / "t.csv")
    assert list(found.columns) == ["id", "second one", "third"]
    assert [tuple(row) for row in found.itertuples(index=False)] == rows


@given(st.integers(0, 2**32), st.integers(1, 40))
@in_a_folder
def test_a_check_does_not_depend_on_the_blocks_that_are_read(tmp_path: Path, seed: int, size: int) -> None:
    rng = random.Random(seed)
    content = "".join(
        rng.choices(['"', ",", "a", "\n", "\r\n", "\r", "\x07", "b"], [2, 8, 30, 6, 2, 0.2, 0.2, 20], k=80)
    )

    def outcome(read: Callable[[CheckedText], Any]) -> str:
        try:
            return str(read(CheckedText(tmp_path, io.BytesIO(content.encode()), ",")))
        except InvalidInputError as error:
            return f"error: {error}"

    def in_pieces(file: CheckedText) -> bytes:
        return b"".join(iter(lambda: file.read(size), b""))

    # in one piece two kinds of damage are told in the order of the checks, in small ones in that of the file
    whole, pieces = outcome(lambda file: file.read() + file.read()), outcome(in_pieces)
    assert whole.startswith("error") == pieces.startswith("error")
    if not whole.startswith("error"):
        assert whole == pieces == str(content.encode())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\x00,4\n", "line 3: '\\x00' is no text"),
        ("a,b\n1,2\u0085\n", "line 2: '\\x85' is no text"),
        ("a,b\n1,2\n3,4\n5,6\x7f", "line 4: '\\x7f' is no text"),
        ("a,b\r\n1,2\r\n3\r,4\r\n", "line 3: has CR, where other lines end in LF"),
        ("a,b\r1,2\r3,4\n5,6\n", "line 1: has CR, where other lines end in LF"),
        ('a,b\n"1""2",x\n"3,4\n', "line 3: quotes that neither open nor close a field"),
        ('a,b\n1,2\n3,4"\n', "line 3: quotes that neither open nor close a field"),
        ('a,b\n1,2\n3,"4', "line 3: quotes that neither open nor close a field"),
    ],
    ids=["nul", "next-line", "delete-at-the-end", "late-cr", "early-cr", "open", "lone", "open-at-the-end"],
)
def test_a_wrong_byte_has_its_line_in_blocks_of_any_size(tmp_path: Path, content: str, message: str, size: int) -> None:
    file = CheckedText(tmp_path / "t.csv", io.BytesIO(b"\xef\xbb\xbf" + content.encode()), ",")
    with pytest.raises(InvalidInputError) as error:
        while file.read(size):
            pass
    assert message in str(error.value) and "t.csv" in str(error.value)


def test_old_mac_line_ends_are_one_kind_of_line_end(tmp_path: Path) -> None:
    file = CheckedText(tmp_path, io.BytesIO(b"a,b\r1,2\r"), ",")
    assert file.readable() and file.read() == b"a,b\r1,2\r" and file.read() == b""


@pytest.mark.parametrize("block_bytes", [60, 100, 1000])
def test_a_stream_gives_the_table_whatever_its_blocks(tmp_path: Path, block_bytes: int) -> None:
    frame = pd.DataFrame({"id": [f"t{i}" for i in range(200)], "x": [str(i * 7919 % 1013) for i in range(200)]})
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    pieces = list(stream_table(tmp_path / "t.tsv", block_bytes=block_bytes))
    assert pieces[0].empty and list(pieces[0].columns) == ["id", "x"]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), frame, check_dtype=False)


def test_a_quoted_name_of_a_column_may_hold_the_separator(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"id, or name","a ""b"""\n007,1\n')
    found = read_table(tmp_path / "t.csv")
    assert found.to_dict("list") == {"id, or name": ["007"], 'a "b"': ["1"]}
