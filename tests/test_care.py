import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_study import fill_cache, make_dataset, make_study
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.care import collect_cache, verify_cache
from embedcache.dataset import read_dataset
from embedcache.errors import CacheDamagedError, CacheError
from embedcache.info import describe_cache
from embedcache.remove import remove_store
from embedcache.store import EmbeddingStore, commit_task, create_store, list_stores, store_path
from embedcache.store.care import check_store, repair_store
from embedcache.store.files import open_files
from embedcache.store.garbage import collect_garbage
from embedcache.store.leases import Attempt, Leases
from embedcache.store.quarantine import Poisoned, quarantine
from embedcache.store.tasks import read_plans

SHARD_BYTES = 1 << 14


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = store_path(tmp_path / "cache", FakeEncoder().spec)
    build_cache(random_records(60), FakeEncoder(), path, shard_bytes=SHARD_BYTES)
    return path


def shard(root: Path, number: int) -> Path:
    return root / "tokens" / "c" / str(number) / "0"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of a row": lambda root: flip(shard(root, 1), 1000),
    "a bit of the index": lambda root: flip(shard(root, 1), -10),
    "a short shard": lambda root: shard(root, 1).write_bytes(shard(root, 1).read_bytes()[:-50]),
    "an empty shard": lambda root: shard(root, 1).write_bytes(b""),
    "a missing shard": lambda root: shard(root, 1).unlink(),
    "a record": lambda root: flip(sorted((root / "commits").iterdir())[0], 100),
    "an empty record": lambda root: sorted((root / "commits").iterdir())[0].write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_withdrawn_and_computed_again(root: Path, damage: str) -> None:
    whole = {key: rows.tobytes() for key, rows in EmbeddingStore(root).items()}
    assert not check_store(root).damages
    DAMAGES[damage](root)
    check = check_store(root)
    assert len(check.damages) == 1 and check.damages[0].reason in str(check)
    assert repair_store(root, check) == 1 and not check_store(root).damages
    encoder = FakeEncoder()
    build_cache(random_records(60), encoder, root)
    assert 0 < len(encoder.embedded) < len(whole)
    assert {key: rows.tobytes() for key, rows in EmbeddingStore(root).items()} == whole


def test_a_flipped_bit_is_named_by_its_sequence(root: Path) -> None:
    store = EmbeddingStore(root)
    flip(shard(root, 0), 3)
    damaged = [key for position, key in enumerate(store) if position in store.damaged()]
    assert check_store(root).damages[0].keys == (damaged[0].hex(),)


def test_verify_tells_damage_by_its_exit_and_repairs_on_request(root: Path) -> None:
    cache = root.parents[1]
    verify_cache(cache).raise_if_damaged()
    flip(shard(root, 0), 3)
    with pytest.raises(CacheDamagedError, match="verify --repair"):
        verify_cache(cache).raise_if_damaged()
    report = verify_cache(cache, repair=True)
    report.raise_if_damaged()
    assert report.repaired == 1 and "build" in str(report)
    with pytest.raises(CacheError, match="does not exist"):
        verify_cache(cache / "none")


def test_a_place_without_stores_is_not_all_right(root: Path) -> None:
    commands: list[Callable[[Path], object]] = [verify_cache, describe_cache, lambda cache: collect_cache(cache, 1)]
    for command in commands:
        with pytest.raises(CacheError, match=r"holds no stores\. Give the root of a cache"):
            command(root.parent)
        with pytest.raises(CacheError, match="is not a directory"):
            command(root / "zarr.json")


def test_with_a_dataset_damage_and_absence_are_told_by_transcript(tmp_path: Path) -> None:
    study = make_study(tmp_path, n_genes=12)
    dataset = read_dataset(study.dataset)
    root = next(iter(list_stores(study.cache, "dna")))
    verify_cache(study.cache, dataset=study.dataset).raise_if_damaged()
    flip(shard(root, 0), 3)
    store = EmbeddingStore(root)
    (wrong,) = [key for position, key in enumerate(store) if position in store.damaged()]
    named = [
        name for key, name in zip(dataset.keys("dna"), dataset.samples["transcript_id"], strict=True) if key == wrong
    ]
    report = verify_cache(study.cache, dataset=study.dataset)
    assert report.names == {wrong.hex(): tuple(named)} and f"damaged: {', '.join(named)}" in str(report)
    assert all(absent.sequences == 0 for absent in report.absent.values())
    for record in (root / "commits").iterdir():
        record.write_bytes(b"")  # now nobody knows what it held, but what the dataset lacks is known
    report = verify_cache(study.cache, dataset=study.dataset)
    assert report.names == {} and report.absent[str(root)].transcripts == tuple(dataset.samples["transcript_id"])
    with pytest.raises(CacheDamagedError, match="1 of 3 stores are damaged"):
        report.raise_if_damaged()
    with pytest.raises(CacheDamagedError, match="1 stores lack sequences of the dataset"):
        verify_cache(study.cache, dataset=study.dataset, repair=True).raise_if_damaged()


def test_sequences_in_quarantine_are_told_apart_from_those_not_built_yet(tmp_path: Path) -> None:
    study = make_study(tmp_path, n_genes=6)
    root = next(iter(list_stores(study.cache, "rna")))
    keys = list(EmbeddingStore(root))
    remove_store(root)
    fill_cache(study.cache, make_dataset(tmp_path / "other", n_genes=1, seed=5))  # the same encoder, other sequences
    quarantine(open_files(root), keys[0], Poisoned("T0", "out of memory"))
    quarantine(open_files(root), b"k" * 16, Poisoned("of another dataset", "too long"))
    absent = verify_cache(study.cache, dataset=study.dataset).absent[str(root)]
    assert absent.sequences == len(keys) and absent.quarantined == {"T0": "out of memory"}
    assert f"lacks {len(keys):,} sequences" in str(absent) and "1 of them are in quarantine: T0" in str(absent)


def test_the_mean_of_an_int8_store_is_checked_and_without_it_all_is_built_again(tmp_path: Path) -> None:
    encoder = FakeEncoder(store_dtype="int8")
    root = store_path(tmp_path, encoder.spec)
    build_cache(random_records(60), encoder, root, shard_bytes=SHARD_BYTES)
    whole = {key: rows.tobytes() for key, rows in EmbeddingStore(root).items()}
    flip(root / "mean.npy", -20)
    check = check_store(root)
    assert check.mean == "mean.npy is damaged" and check.is_damaged and "no sequence can be read" in str(check)
    with pytest.raises(CacheDamagedError, match="1 of 1 stores are damaged"):
        verify_cache(tmp_path).raise_if_damaged()
    verify_cache(tmp_path, repair=True).raise_if_damaged()
    assert len(EmbeddingStore(root)) == 0 and not (root / "mean.npy").exists()
    build_cache(random_records(60), FakeEncoder(store_dtype="int8"), root)
    assert {key: rows.tobytes() for key, rows in EmbeddingStore(root).items()} == whole


def test_damage_that_costs_nothing_is_told_and_mended(root: Path) -> None:
    flip(root / "index.npy", 200)
    (plan,) = read_plans(open_files(root))
    flip(root / plan, -1)
    quarantine(open_files(root), b"k" * 16, Poisoned("T0", "too long"))
    entry = f"claims/quarantine/{(b'k' * 16).hex()}"
    (root / entry).write_bytes(b"torn")
    check = check_store(root)
    assert set(check.harmless) == {"index.npy", plan, entry} and not check.is_damaged
    assert repair_store(root, check) == 0 and not check_store(root).harmless
    encoder = FakeEncoder()
    assert build_cache(random_records(60), encoder, root).computed == 0


def test_nothing_is_withdrawn_while_somebody_builds(root: Path) -> None:
    flip(shard(root, 0), 3)
    with Leases(open_files(root)) as leases:
        leases.acquire(Attempt("task", 0, 0, {}))
        with pytest.raises(CacheError, match="in the hands of 1 workers"):
            verify_cache(root.parents[1], repair=True)
        assert len(check_store(root).damages) == 1
    assert verify_cache(root.parents[1], repair=True).repaired == 1


def test_garbage_is_removed_when_it_is_old_and_numbers_are_never_given_again(root: Path) -> None:
    shards = len(list((root / "tokens" / "c").iterdir()))
    orphan = root / "tokens" / "c" / str(shards)
    orphan.mkdir()
    (orphan / "0").write_bytes(b"lost attempt")
    leftovers = [root / "commits" / ".task.0123", orphan / ".0.4567", root / ".index.npy.89ab"]
    for path in leftovers:
        path.write_bytes(b"half")
    assert collect_garbage(root).spared == 5 and (orphan / "0").exists()  # and the plan of the build
    old = time.time() - 13 * 3600
    for path in [orphan / "0", *leftovers]:
        os.utime(path, (old, old))
    for path in (root / "tokens" / "c").glob("*/0"):
        os.utime(path, (old, old))  # committed shards stay, however old
    found = collect_garbage(root)
    assert (found.shards, found.temporary_files, found.spared) == (1, 3, 1)
    assert not (orphan / "0").exists() and orphan.is_dir() and not any(path.exists() for path in leftovers)
    build_cache(random_records(5, seed=9), FakeEncoder(), root)
    assert (root / "tokens" / "c" / str(shards + 1) / "0").exists()
    assert EmbeddingStore(root).damaged() == []


def test_data_are_flushed_before_the_record_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    flush, link = os.fsync, os.link

    def spy_flush(descriptor: int) -> None:
        events.append(("flush", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        flush(descriptor)

    def spy_link(source: Path, target: Path) -> None:
        events.append(("link", str(target)))
        link(source, target)

    layout = create_store(tmp_path, FakeEncoder().spec, shard_bytes=SHARD_BYTES)
    monkeypatch.setattr("os.fsync", spy_flush)
    monkeypatch.setattr("os.link", spy_link)
    commit_task(tmp_path, [(b"k" * 16, np.zeros((3, layout.width), layout.stored))])
    shards, commits = tmp_path / "tokens" / "c", tmp_path / "commits"
    kinds = [(kind, str(Path(path).parent if Path(path).name.startswith(".") else path)) for kind, path in events]
    record = next(path for kind, path in kinds if kind == "link" and path.startswith(str(commits)))
    # the name of the shard is there first, but nobody follows it before there is a record
    assert kinds[0] == ("link", str(shards / "0" / "0"))
    assert sorted(kinds[1:5]) == [  # together
        ("flush", str(commits)),  # the bytes of the record, still under a hidden name
        ("flush", str(shards)),  # the directory that was made for the shard
        ("flush", str(shards / "0")),  # the name of the shard in it
        ("flush", str(shards / "0" / "0")),
    ]
    assert kinds[5:] == [
        ("link", record),
        ("flush", str(commits)),
    ]
