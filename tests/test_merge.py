import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import s3_server
from fake_study import fill_cache, make_dataset
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.care import verify_cache
from embedcache.errors import CacheDamagedError, CacheError, CacheMismatchError, InvalidSettingError
from embedcache.merge import merge_caches
from embedcache.sequences import SequenceRecord
from embedcache.store import EmbeddingStore, list_stores, store_path, transfer
from embedcache.store.index import read_all_records
from embedcache.store.quarantine import Poisoned, quarantine

RECORDS = random_records(60)
SHARD_BYTES = 1 << 13


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("merge-tests") as url:
        yield url


def place(kind: str, tmp_path: Path, bucket: str) -> str:
    name = uuid.uuid4().hex
    return str(tmp_path / name) if kind == "local" else f"{bucket}/{name}"


def build(cache: str | Path, records: list[SequenceRecord], encoder: FakeEncoder | None = None) -> EmbeddingStore:
    encoder = encoder or FakeEncoder()
    root = store_path(cache, encoder.spec)
    build_cache(records, encoder, root, shard_bytes=SHARD_BYTES)
    return EmbeddingStore(root)


def contents(store: EmbeddingStore) -> dict[bytes, bytes]:
    return {key: rows.tobytes() for key, rows in store.items()}


@pytest.mark.parametrize("there", ["local", "s3"])
@pytest.mark.parametrize("here", ["local", "s3"])
def test_a_merge_is_the_union_and_a_second_one_copies_nothing(
    here: str, there: str, tmp_path: Path, bucket: str
) -> None:
    caches = [place(there, tmp_path, bucket), place("local", tmp_path, bucket)]
    cache = place(here, tmp_path, bucket)
    for one, records in zip(caches, (RECORDS[:30], RECORDS[20:45]), strict=True):
        build(one, records)
    build(caches[0], RECORDS[:5], FakeEncoder(name="other"))
    mine = build(cache, RECORDS[40:60])
    report = merge_caches(caches, cache)
    whole = build(tmp_path / "whole", RECORDS)
    merged = EmbeddingStore(mine.root)
    assert contents(merged) == contents(whole) and merged.index_is_current
    assert len(list(list_stores(cache))) == 2
    assert sum(one.copied for one in report.stores) == 5 + len(merged) - len(mine)
    assert all(one.differing == () and one.damaged == () for one in report.stores)
    verify_cache(cache).raise_if_damaged()
    encoder = FakeEncoder()
    assert build_cache(RECORDS, encoder, mine.root).computed == 0  # the copies are as good as computed ones
    again = merge_caches(caches, cache)
    assert sum(one.copied for one in again.stores) == 0 and all(one.present for one in again.stores)


def test_headers_of_records_are_kept(tmp_path: Path) -> None:
    source = build(tmp_path / "a", RECORDS)
    merge_caches([tmp_path / "a"], tmp_path / "b")
    copy = EmbeddingStore(store_path(tmp_path / "b", source.spec))
    of = [sorted(str(header["rounding"]) for _, header in read_all_records(one.files)) for one in (source, copy)]
    assert of[0] == of[1] and len(of[0]) > 3


def test_other_numbers_are_told_and_those_of_the_cache_stay(tmp_path: Path) -> None:
    class Elsewhere(FakeEncoder):
        def rows(self, sequence: str) -> np.ndarray:
            return super().rows(sequence) * (1.001 if len(sequence) % 2 else 1)

    theirs = build(tmp_path / "a", RECORDS[:30], Elsewhere())
    mine = build(tmp_path / "b", RECORDS[:20])
    before = contents(mine)
    (one,) = merge_caches([tmp_path / "a"], tmp_path / "b").stores
    after = EmbeddingStore(mine.root)
    wrong = {key for key, rows in before.items() if theirs[key].tobytes() != rows}
    assert wrong and set(one.differing) == {key.hex() for key in wrong}
    assert one.difference is not None and 5e-4 < one.difference < 2e-3 and "numbers that differ by" in str(one)
    assert {key: rows for key, rows in contents(after).items() if key in before} == before
    assert len(after) == len(theirs)


def test_damage_does_not_spread_and_is_named(tmp_path: Path) -> None:
    source = build(tmp_path / "a", RECORDS)
    path = sorted(Path(str(source.root)).glob("tokens/c/*/0"))[1]
    data = bytearray(path.read_bytes())
    data[100] ^= 16
    path.write_bytes(data)
    wrong = [key.hex() for position, key in enumerate(source) if position in source.damaged()]
    report = merge_caches([tmp_path / "a"], tmp_path / "b")
    assert list(report.stores[0].damaged) == wrong and report.stores[0].copied == len(source) - 1
    with pytest.raises(CacheDamagedError, match="verify --repair"):
        report.raise_if_incomplete()
    verify_cache(tmp_path / "b").raise_if_damaged()


def test_a_killed_merge_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, commit, calls = build(tmp_path / "a", RECORDS), transfer.commit_task, [0]

    def dies(*arguments: object, **named: object) -> bool:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return commit(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "commit_task", dies)
    with pytest.raises(KeyboardInterrupt):
        merge_caches([tmp_path / "a"], tmp_path / "b")
    monkeypatch.undo()
    (one,) = merge_caches([tmp_path / "a"], tmp_path / "b").stores
    assert 0 < one.present < len(source) and one.present + one.copied == len(source)
    assert contents(EmbeddingStore(one.store)) == contents(source)


def test_a_sequence_that_was_given_up_here_comes_from_there(tmp_path: Path) -> None:
    """A build commits the task of a sequence that it gave up without it, under the name of the whole task."""
    source = build(tmp_path / "a", RECORDS[:1])
    key = next(iter(source))
    encoder = FakeEncoder()
    target = store_path(tmp_path / "b", encoder.spec)
    build_cache([], encoder, target)
    quarantine(EmbeddingStore(target).files, key, Poisoned("p0", "too long for this GPU"))
    from embedcache.store import commit_task, task_name

    commit_task(target, [], task=task_name([key]))
    assert merge_caches([tmp_path / "a"], tmp_path / "b").stores[0].copied == 1 and key in EmbeddingStore(target)


def test_int8_rows_are_copied_only_beside_their_mean(tmp_path: Path) -> None:
    stores = [build(tmp_path / name, RECORDS[:n], FakeEncoder(store_dtype="int8")) for name, n in (("a", 60), ("b", 9))]
    merge_caches([tmp_path / "a"], tmp_path / "c").raise_if_incomplete()
    copy = EmbeddingStore(store_path(tmp_path / "c", stores[0].spec))
    assert contents(copy) == contents(stores[0])
    report = merge_caches([tmp_path / "a"], tmp_path / "b")
    assert report.stores[0].copied == 0 and contents(EmbeddingStore(stores[1].root)) == contents(stores[1])
    with pytest.raises(CacheMismatchError, match="another channel mean"):
        report.raise_if_incomplete()


def test_only_what_a_dataset_needs(tmp_path: Path) -> None:
    big, small = (make_dataset(tmp_path / str(n), n_genes=n, seed=n) for n in (20, 5))
    fill_cache(tmp_path / "a", big)
    fill_cache(tmp_path / "a", small)
    merge_caches([tmp_path / "a"], tmp_path / "b", dataset=small.path)
    for path in list_stores(tmp_path / "b"):
        store = EmbeddingStore(path)
        assert set(store) == {key for key in small.keys(store.spec.modality) if key is not None}
    verify_cache(tmp_path / "b", dataset=small.path).raise_if_damaged()


def test_what_cannot_be_merged_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "a", RECORDS)
    with pytest.raises(CacheError, match="does not exist"):
        merge_caches([tmp_path / "none"], tmp_path / "b")
    with pytest.raises(InvalidSettingError, match="into itself"):
        merge_caches([tmp_path / "a"], tmp_path / "a" / ".." / "a")
    with pytest.raises(CacheError, match="holds no stores"):
        merge_caches([tmp_path / "a" / "protein"], tmp_path / "b")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CacheError, match=r"has 1,000 free\. Nothing was written"):
        merge_caches([tmp_path / "a"], tmp_path / "b")
    assert not (tmp_path / "b").exists()
    monkeypatch.undo()
    build(tmp_path / "b", RECORDS[:1])
    long = SequenceRecord("titin", "M" * 1000, "protein")
    build(tmp_path / "c", [long])
    with pytest.raises(CacheError, match="does not fit the shards"):
        merge_caches([tmp_path / "c"], tmp_path / "b")
