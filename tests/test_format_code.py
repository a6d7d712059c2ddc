"""The code of docs/reference/format.md: its reader reads our stores, its writer makes stores that we read.

That code is written from the page alone and imports nothing of this package.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder, fake_spec, random_records
from numpy.typing import NDArray
from spec_pages import read_page, run_python

from embedcache.build import build_cache
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import CacheError
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore, commit_task, create_store, write_index
from embedcache.store.care import check_store
from embedcache.store.index import encode_record
from embedcache.store.layout import new_layout
from embedcache.store.numbers import encode_rows

PAGE = read_page("format.md")
SPEC = run_python("format.md")
DTYPES = ("float32", "float16", "bfloat16", "int8")


class Kept(FakeEncoder):
    """Keeps the row of a special token on either side."""

    def rows(self, sequence: str) -> NDArray[np.float32]:
        return super().rows(f"<{sequence}>")


STORES = {
    **{dtype: {"store_dtype": dtype} for dtype in DTYPES},
    "mean": {"pooling": "mean"},
    "adaptive int8": {"pooling": "adaptive-3", "store_dtype": "int8"},
    "windows": {"max_tokens": 16, "crop": "windows", "overlap": 4},
    "kept": {"special_tokens": "kept-1-1", "store_dtype": "float32"},
    "mixed": {"architecture": {"eps": 1e-5, "name": "\u03b1"}},
}


def test_the_code_of_the_page_imports_nothing_of_ours() -> None:
    code = "\n".join(re.findall(r"^```python.*?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    assert not re.search(r"(import|from) +(embedcache|heads)\b", code)


@pytest.mark.parametrize("changes", STORES.values(), ids=STORES)
def test_the_reader_of_the_page_reads_what_we_write(tmp_path: Path, changes: dict[str, Any]) -> None:
    encoder: Any = (Kept if "special_tokens" in changes else FakeEncoder)(**changes)
    if changes.get("crop") == "windows":
        encoder = WindowedEncoder(encoder)
    build_cache(random_records(20), encoder, tmp_path, shard_bytes=1 << 14)
    build_cache(random_records(40), encoder, tmp_path, shard_bytes=1 << 14)
    store, entries = EmbeddingStore(tmp_path), SPEC.read_entries(tmp_path)
    assert len(store) == 40 and entries.keys() == set(store)
    for key, place in entries.items():
        rows = SPEC.read_rows(tmp_path, place)
        assert np.array_equal(rows, store[key]) and rows.dtype == store[key].dtype
        stored = store.view(int(store.find([key])[0])).view(torch.uint8).numpy()
        assert np.ascontiguousarray(SPEC.rows_with_zarr(tmp_path, key)).tobytes() == stored.tobytes()


def test_of_two_commits_the_lower_shard_counts(tmp_path: Path) -> None:
    create_store(tmp_path, fake_spec())
    rows = np.arange(24, dtype=np.float16).reshape(2, 12)
    for i, name in enumerate(("b", "a")):
        commit_task(tmp_path, [(b"k" * 16, rows + i)], task=name)
    write_index(tmp_path)
    ((key, place),) = SPEC.read_entries(tmp_path).items()
    for found in (SPEC.read_rows(tmp_path, place), SPEC.rows_with_zarr(tmp_path, key), EmbeddingStore(tmp_path)[key]):
        assert np.array_equal(found, rows)


@pytest.mark.parametrize("name", ["zarr.json", "commits", "tokens/c/0/0", "mean.npy"])
def test_the_reader_of_the_page_refuses_damage(tmp_path: Path, name: str) -> None:
    build_cache(random_records(3), FakeEncoder(store_dtype="int8"), tmp_path)
    path = next((tmp_path / name).iterdir()) if name == "commits" else tmp_path / name
    whole = path.read_bytes()
    text = b"fake" if name == "zarr.json" else b"relative" if name == "commits" else whole[-8:]
    at = 5 if name.startswith("tokens") else whole.index(text)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        [SPEC.read_rows(tmp_path, place) for place in SPEC.read_entries(tmp_path).values()]


def sample(n: int, seed: int = 0) -> dict[bytes, NDArray[np.float32]]:
    """Rows by key, one sequence without any, one of zeros, one of channels far from zero."""
    rng = np.random.default_rng(seed)
    rows = {
        sequence_key(f"{seed}-{i}", "protein"): rng.standard_normal((rng.integers(1, 60), 12), np.float32)
        for i in range(n)
    }
    keys = list(rows)
    rows[keys[0]] = rows[keys[0]][:0]
    rows[keys[1]][:] = 0
    rows[keys[2]] *= np.float32(1e-40)
    rows[keys[3]] += np.float32(100)
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_the_writer_of_the_page_writes(tmp_path: Path, dtype: str) -> None:
    spec, root = fake_spec(store_dtype=dtype), tmp_path / "store"
    mean = np.linspace(-1, 1, 12, dtype=np.float32) if dtype == "int8" else None
    SPEC.create_store(root, spec.to_json(), 1024, mean)
    parts = [sample(6), sample(9, seed=1)]
    for part in parts:
        assert SPEC.commit(root, {key: SPEC.encode_rows(rows, dtype, mean) for key, rows in part.items()})
    store, written = EmbeddingStore(root), {**parts[0], **parts[1]}
    assert set(store) == set(written) and store.spec == spec
    assert store.damaged() == [] and not check_store(root).is_damaged
    store.check_shards()
    for key, rows in written.items():
        encoded = encode_rows(rows, dtype, mean)
        assert SPEC.encode_rows(rows, dtype, mean).tobytes() == encoded.tobytes()
        assert store.view(int(store.find([key])[0])).view(torch.uint8).numpy().tobytes() == encoded.tobytes()
        assert np.array_equal(store[key], SPEC.read_rows(root, SPEC.read_entries(root)[key]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_writer_of_the_page_writes_our_metadata(tmp_path: Path, dtype: str) -> None:
    spec = fake_spec(store_dtype=dtype)
    SPEC.create_store(tmp_path / "theirs", spec.to_json(), 512)
    create_store(tmp_path / "ours", spec, shard_bytes=512 * new_layout(spec).row_bytes)
    for name in ("zarr.json", "tokens/zarr.json"):
        theirs, ours = (json.loads((tmp_path / who / name).read_text()) for who in ("theirs", "ours"))
        assert theirs == ours


def test_a_build_goes_on_with_a_store_of_the_writer_of_the_page(tmp_path: Path) -> None:
    encoder, records = FakeEncoder(), random_records(12)
    SPEC.create_store(tmp_path / "store", encoder.spec.to_json(), 2048)
    there = {record.sequence: encoder.rows(record.sequence).astype(np.float16) for record in records[:6]}
    SPEC.commit(tmp_path / "store", {sequence_key(letters, "protein"): rows for letters, rows in there.items()})
    report = build_cache(records, encoder, tmp_path / "store")
    assert (report.computed, report.distinct) == (6, 12) and there.keys().isdisjoint(encoder.embedded)
    assert EmbeddingStore(tmp_path / "store").index_is_current


def test_of_writers_of_the_page_that_race_one_commits(tmp_path: Path) -> None:
    SPEC.create_store(tmp_path / "store", fake_spec().to_json(), 512)
    rows = {key: SPEC.encode_rows(one, "float16") for key, one in sample(4).items()}
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda _: SPEC.commit(tmp_path / "store", rows), range(4)))
    assert sorted(won) == [False, False, False, True]
    assert EmbeddingStore(tmp_path / "store").damaged() == []


def test_members_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    build_cache([SequenceRecord("a", "MKV", "protein")], FakeEncoder(), tmp_path)
    metadata = json.loads((tmp_path / "zarr.json").read_text())
    metadata["attributes"]["of tomorrow"] = 1
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    (record,) = (tmp_path / "commits").iterdir()
    entries = SPEC.read_record(record)
    record.write_bytes(b"".join(encode_record(record.name, entries, {"of tomorrow": {"x": 1}})))
    (key,) = EmbeddingStore(tmp_path)
    assert SPEC.read_entries(tmp_path).keys() == {key} and EmbeddingStore(tmp_path)[key].shape == (3, 12)


@pytest.mark.parametrize("change", ["new field", "lost field"])
def test_a_spec_with_other_fields_is_refused(tmp_path: Path, change: str) -> None:
    spec = fake_spec().to_json()
    SPEC.create_store(tmp_path / "store", {**spec, "tomorrow": 1} if change == "new field" else spec, 512)
    if change == "lost field":
        text = (tmp_path / "store" / "zarr.json").read_text()
        (tmp_path / "store" / "zarr.json").write_text(text.replace('"revision": "", ', ""))
    with pytest.raises(CacheError, match="other fields"):
        EmbeddingStore(tmp_path / "store")


def test_the_page_names_every_file_of_a_store(tmp_path: Path) -> None:
    build_cache(random_records(9), FakeEncoder(store_dtype="int8"), tmp_path)
    patterns = [re.escape(one) for one in re.findall(r"`((?:tokens|commits|claims|zarr|mean|index|\.)[^` ]*)`", PAGE)]
    patterns = [re.sub(r"<\w+>", "[^/]+", one) for one in patterns]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            name = path.relative_to(tmp_path).as_posix()
            assert any(re.fullmatch(one, name) for one in patterns), name
