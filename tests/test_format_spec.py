"""docs/reference/format.md: what it says of keys, specs, bytes and numbers is what we write."""

import json
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, fake_spec, random_records
from hypothesis import given
from hypothesis import strategies as st
from spec_pages import ROOT, block, names, read_page, run_python, section, table

from embedcache import sequences
from embedcache.build import build_cache
from embedcache.encoders.pooling import pool_rows
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidSequenceError
from embedcache.store.files import open_files
from embedcache.store.garbage import COLLECT_AFTER_HOURS
from embedcache.store.index import read_all_records
from embedcache.store.layout import ENTRY, FORMAT_VERSION, new_layout
from embedcache.store.leases import TTL_SECONDS, Attempt, Leases
from embedcache.store.numbers import encode_rows
from embedcache.store.quarantine import Poisoned, quarantine
from embedcache.store.write import COMMIT_WITHIN_HOURS, task_name

PAGE = read_page("format.md")
SPEC = run_python("format.md")
GOLDEN = ROOT / "tests" / "golden" / "store_v1"
RECORD = "commits/a1d375c24a8588793c436d2bc3f3ef57"
LETTERS = "acgtuACGTUNRYSWKMBDHVXJ*-\u00df\u0131\n"


@pytest.mark.parametrize("row", table(PAGE, "Modality", "As given"), ids=lambda row: f"{row[0]}-{row[1]}")
def test_keys_are_those_of_the_page(row: list[str]) -> None:
    modality, given_as, normalised, key = row
    for ours in (SPEC, sequences):
        assert ours.normalise(given_as, modality) == normalised
        assert ours.sequence_key(normalised, modality).hex() == key


@given(st.text(st.sampled_from(LETTERS), max_size=8), st.sampled_from(sequences.MODALITIES))
def test_the_page_normalises_as_we_do(letters: str, modality: Any) -> None:
    try:
        expected = sequences.normalise(letters, modality)
    except InvalidSequenceError:
        with pytest.raises(ValueError, match="not a sequence"):
            SPEC.normalise(letters, modality)
    else:
        assert SPEC.normalise(letters, modality) == expected


def test_the_spec_has_the_fields_of_the_page() -> None:
    assert names(section(PAGE, "Encoder spec"), "Field") == [item.name for item in fields(EncoderSpec)]


def test_the_digest_of_a_spec_is_that_of_the_page() -> None:
    golden = json.loads((GOLDEN / "zarr.json").read_text())["attributes"]["encoder"]
    assert json.dumps(golden, sort_keys=True, separators=(",", ":")) == block(PAGE, "canonical spec").strip()
    (shown,) = re.findall("Its digest is `([0-9a-f]+)`", PAGE)
    assert shown == SPEC.spec_digest(golden) == fake_spec(width=4).digest
    for spec in (
        fake_spec(architecture={"b": {"z": 1e-5, "a": [0.1, 2.0, True, None]}, "a": "\u03b1"}),
        fake_spec(max_tokens=9, crop="windows", overlap=3),
        fake_spec(store_dtype="float32", source_dtype="int8"),
    ):
        said = json.loads(json.dumps(spec.to_json()))
        assert SPEC.spec_digest(said) == spec.digest
        assert SPEC.spec_digest({**said, "overlap": spec.overlap, "source_dtype": spec.source_dtype}) == spec.digest


@pytest.mark.parametrize("name", ["zarr.json", "tokens/zarr.json"])
def test_metadata_on_the_page_are_those_of_a_store(name: str) -> None:
    assert json.loads(block(PAGE, name)) == json.loads((GOLDEN / name).read_text())


def test_attributes_of_a_store_are_those_of_the_page(tmp_path: Path) -> None:
    build_cache(random_records(3), FakeEncoder(), tmp_path)
    attributes = json.loads((tmp_path / "zarr.json").read_text())["attributes"]
    assert {*names(section(PAGE, "zarr.json"), "Attribute")} == {*attributes}


@pytest.mark.parametrize("name", ["tokens/c/0/0", RECORD, "index.npy"])
def test_bytes_on_the_page_are_those_of_a_store(name: str) -> None:
    data, text = (GOLDEN / name).read_bytes(), PAGE.split(f"Bytes of `tests/golden/store_v1/{name}`")[1]
    rows = table(text, "Offset", "Bytes")
    assert len(rows) > 4
    for offset, shown, _ in rows:
        expected = bytes.fromhex(re.sub("[` ]", "", shown))
        assert data[int(offset) : int(offset) + len(expected)] == expected, offset


def test_records_have_the_head_and_the_entries_of_the_page(tmp_path: Path) -> None:
    part, line = section(PAGE, "Commit records"), block(PAGE, "head of a record").strip()
    assert names(part, "Entry") == list(ENTRY.names or ())
    shown = json.loads(line)
    assert shown["header_crc32c"] == SPEC.crc32c(line.partition(', "header_crc32c": ')[0].encode())
    build_cache(random_records(3), FakeEncoder(), tmp_path)
    ((_, written),) = read_all_records(open_files(tmp_path))
    assert list(shown) == list(written) and list(shown["rounding"]) == list(written["rounding"])
    assert {*names(part, "Member of the line")} == {*written} - {"rounding"}
    keys = [sequences.sequence_key(sequence, "protein") for sequence in ("W", "MKV", "MKVLAAG")]
    assert f"commits/{task_name(keys)}" == RECORD == f"commits/{shown['task']}"


def test_numbers_on_the_page_are_stored_so() -> None:
    found = re.findall(r"`([\d.]+)`(?: is stored as| \(a tie\) as) `0x([0-9a-f]{4})`", PAGE)
    assert len(found) == 3
    for number, bits in found:
        assert encode_rows(np.array([[float(number)]], np.float32), "bfloat16")[0, 0] == int(bits, 16)
    words = r"The row `(.+?)` under the mean `(.+?)` is stored as the 8 bytes `(.+?)`"
    ((row, mean, stored),) = re.findall(words, PAGE)
    rows, channel_mean = (np.array([text.split()], np.float32) for text in (row, mean))
    assert encode_rows(rows, "int8", channel_mean[0]).tobytes() == bytes.fromhex(stored)


@pytest.mark.parametrize("row", table(PAGE, "`store_dtype`", "Type in Zarr"), ids=lambda row: row[0])
def test_types_are_those_of_the_page(row: list[str]) -> None:
    dtype, in_zarr, columns, size_bytes, _ = row
    layout = new_layout(fake_spec(store_dtype=dtype, width=12))
    assert json.loads(layout.array_metadata(0))["data_type"] == in_zarr
    assert layout.columns == eval(columns, {"width": 12})
    assert layout.row_bytes == eval(size_bytes.replace("\u00d7", "*"), {"width": 12})


@pytest.mark.parametrize("row", table(PAGE, "`tokens`", "Token"), ids=lambda row: row[0])
def test_sequences_have_the_rows_of_the_page(row: list[str]) -> None:
    rule, _, example, n_rows = row
    letters, _, under = example.replace("`", "").partition(" under ")
    if number := re.fullmatch(r"([\d,]+) letters", letters):
        letters = "A" * int(number[1].replace(",", ""))
    spec = fake_spec(tokens=under or rule)
    assert spec.n_rows(letters) == len(spec.spans(letters)) == int(n_rows)


@pytest.mark.parametrize(("tokens", "most"), [(7, 3), (9, 3), (2, 3), (1000, 7), (0, 3)])
def test_rows_are_pooled_as_the_page_says(tokens: int, most: int) -> None:
    rows = np.arange(2 * tokens, dtype=np.float32).reshape(tokens, 2)
    r = min(tokens, most)
    expected = [rows[i * tokens // r : math.ceil((i + 1) * tokens / r)].mean(axis=0) for i in range(r)]
    assert np.array_equal(pool_rows(rows, f"adaptive-{most}"), np.reshape(expected, (r, 2)))


def test_the_index_is_three_arrays(tmp_path: Path) -> None:
    build_cache(random_records(9), FakeEncoder(), tmp_path)
    with (tmp_path / "index.npy").open("rb") as file:
        entries, tasks, checksum = (np.load(file) for _ in range(3))
        assert not file.read()
    assert entries.dtype.descr == ENTRY.descr and str(ENTRY.descr) in " ".join(PAGE.replace("`", "").split())
    assert tasks.tolist() == sorted(path.name for path in (tmp_path / "commits").iterdir())
    assert checksum.shape == () and int(checksum) == SPEC.crc32c(entries.tobytes())
    keys = list(zip(entries["high"].tolist(), entries["low"].tolist(), strict=True))
    assert keys == sorted(keys) and len(keys) == 9


def test_claims_have_the_members_of_the_page(tmp_path: Path) -> None:
    part, files = section(PAGE, "What carries no correctness"), open_files(tmp_path)
    said = {row[0]: {*re.findall(r"`(\w+)`", row[1])} for row in table(part, "File", "Content")}
    quarantine(files, b"k" * 16, Poisoned("a", "too long"))
    build_cache(random_records(3), FakeEncoder(), tmp_path)
    with Leases(files) as leases:
        leases.acquire(Attempt("task", 0, 0, {}))
        lease = json.loads(files.read("claims/tasks/task-0"))
    (plan,) = files.statuses("claims/plans")
    head, _, keys = files.read(plan).partition(b"\n")
    assert {*lease} == said["claims/tasks/<task>-<n>"]
    assert {*json.loads(head)} == said["claims/plans/<work>/<n>"] and sum(json.loads(head)["tasks"]) * 16 == len(keys)
    found = json.loads(files.read(f"claims/quarantine/{(b'k' * 16).hex()}"))
    assert {*found} == {one for one in said["claims/quarantine/<key>"] if one in ("id", "reason")}


def test_times_and_versions_are_those_of_the_page() -> None:
    words = " ".join(PAGE.split())
    assert f"more than {COMMIT_WITHIN_HOURS:.0f} hours ago" in words
    assert f"orphans of less than {COLLECT_AFTER_HOURS:.0f} hours" in words
    assert f"every {TTL_SECONDS / 4:.0f} seconds" in words and f"for {TTL_SECONDS:.0f} seconds" in words
    assert [row[0] for row in table(PAGE, "Version")] == [str(n + 1) for n in range(FORMAT_VERSION)]
    assert [new_layout(fake_spec(store_dtype=dtype)).version for dtype in ("bfloat16", "int8")] == [1, 2]
