"""Directories, links and files where a store has something else: named in one line, never a traceback."""

import shutil
import tracemalloc
from pathlib import Path

import pytest
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.errors import CacheDamagedError, CacheError
from embedcache.store import EmbeddingStore, write_index
from embedcache.store.care import check_store, repair_store
from embedcache.store.disk import UnreadableError
from embedcache.store.files import LocalFiles
from embedcache.store.index import encode_record, read_record
from embedcache.store.leases import Attempt, Leases
from embedcache.store.tasks import settle_tasks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build_cache(random_records(6), FakeEncoder(), tmp_path / "s")
    return tmp_path / "s"


def put_in_place(path: Path, kind: str) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"")
    else:
        path.symlink_to(path.name if kind == "loop" else "nowhere")


@pytest.mark.parametrize("kind", ["directory", "loop", "dangling"])
def test_what_is_no_file_cannot_be_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x").touch()
    put_in_place(tmp_path / "x", kind)
    files = LocalFiles(tmp_path)
    for read in (files.read, files.read_array, lambda name: list(files.read_many([name]))):
        with pytest.raises(UnreadableError, match=r"x cannot be read: (Is a directory|Too many levels|No such file)"):
            read("x")
    assert files.statuses("") == {} and files.temporaries() == {}


def test_what_lies_below_a_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    files = LocalFiles(tmp_path)
    for read in (files.read, files.names, lambda name: list(files.read_many([name]))):
        with pytest.raises(FileNotFoundError):
            read("x/y")
    assert not files.exists("x/y")
    files.remove(["x/y"])


@pytest.mark.parametrize("name", ["zarr.json", "commits"])
@pytest.mark.parametrize("kind", ["directory", "loop", "file"])
def test_a_store_names_what_cannot_be_read(root: Path, name: str, kind: str) -> None:
    put_in_place(root / name, kind)
    if (name, kind) == ("commits", "directory"):
        assert len(EmbeddingStore(root)) == 0  # an empty folder of records is an empty store
        return
    with pytest.raises(CacheError, match=name):
        EmbeddingStore(root)


@pytest.mark.parametrize("kind", ["loop", "dangling", "file"])
def test_an_index_that_cannot_be_read_is_made_again(root: Path, kind: str) -> None:
    whole = EmbeddingStore(root)
    put_in_place(root / "index.npy", kind)
    found = EmbeddingStore(root)
    assert list(found) == list(whole) and not found.index_is_current
    write_index(root)
    assert EmbeddingStore(root).index_is_current


@pytest.mark.parametrize("kind", ["directory", "loop", "file"])
@pytest.mark.parametrize("name", ["tokens/c/0/0", "tokens/c/0", "tokens/c"])
def test_verify_and_readers_name_a_shard_that_is_no_file(root: Path, name: str, kind: str) -> None:
    put_in_place(root / name, kind)
    (damage,) = check_store(root).damages
    assert "shard 0 is missing, empty or no file" in damage.reason
    with pytest.raises(CacheDamagedError, match="although it was committed"):
        EmbeddingStore(root).view(0)


def test_a_directory_in_place_of_a_record_is_not_removed(root: Path) -> None:
    (record,) = (root / "commits").iterdir()
    put_in_place(record, "directory")
    with pytest.raises(CacheError, match=r"cannot be removed: Is a directory\. Remove it by hand"):
        repair_store(root, check_store(root))


@pytest.mark.parametrize("kind", ["directory", "loop", "dangling"])
def test_a_lease_that_is_no_file_ends_the_build_in_one_line(root: Path, kind: str) -> None:
    plan = settle_tasks(LocalFiles(root), "work", {b"k" * 16}, lambda keys: [list(keys)])
    attempt = Attempt(plan[0].name, 0, 0, {})
    (root / "claims/tasks").mkdir(exist_ok=True)
    (root / attempt.name).touch()
    put_in_place(root / attempt.name, kind)
    with pytest.raises(CacheError, match=f"{attempt.name} cannot be read"):
        Leases(LocalFiles(root)).acquire(attempt)


def test_names_that_only_look_like_numbers_are_no_shards(root: Path) -> None:
    for name in ("\u00b2", "\u0663", "9" * 12, "-1"):
        (root / "tokens" / "c" / name).mkdir()
    assert LocalFiles(root).claim_shard() == 1


def test_a_record_of_a_shard_that_cannot_be_needs_no_memory_for_those_before_it(root: Path) -> None:
    files = LocalFiles(root)
    (task,) = files.names("commits")
    entries = read_record(files, task)[0].copy()
    entries["shard"][0] = 2**32 - 1
    (root / "index.npy").unlink()
    files.replace(f"commits/{task}", encode_record(task, entries))
    store = EmbeddingStore(root)
    tracemalloc.start()
    with pytest.raises(CacheDamagedError, match="1 of 2 shards are missing or cut"):
        store.check_shards()
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_metadata_without_end_is_damaged(root: Path) -> None:
    (root / "zarr.json").write_bytes(b"[" * 100_000)
    with pytest.raises(CacheDamagedError, match="not the metadata of a store"):
        EmbeddingStore(root)
