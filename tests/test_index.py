import random
from pathlib import Path

import numpy as np
import pytest
from fakes import fake_spec

from embedcache.errors import CacheDamagedError
from embedcache.store import EmbeddingStore, commit_task, create_store, write_index
from embedcache.store.files import open_files
from embedcache.store.index import load_entries, read_record


def rows(n: int) -> np.ndarray:
    return np.full((n, 12), n, np.float16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three tasks of five sequences."""
    create_store(tmp_path / "s", fake_spec())
    for task in range(3):
        commit_task(tmp_path / "s", [(bytes([5 * task + i]) * 16, rows(i + 1)) for i in range(5)])
    write_index(tmp_path / "s")
    return tmp_path / "s"


def test_an_index_that_was_damaged_anywhere_changes_nothing(root: Path) -> None:
    files, whole = open_files(root), (root / "index.npy").read_bytes()
    entries, tasks, is_current = load_entries(files)
    assert is_current and len(entries) == 15
    rng = random.Random(0)
    for i in range(400):
        data = bytearray(whole)
        if i % 4 == 0:
            data = data[: rng.randrange(len(data))]
        else:
            place = rng.randrange(600 if i % 2 else len(data))  # the headers are where most can go wrong
            data[place] ^= 1 << rng.randrange(8)
        (root / "index.npy").write_bytes(data)
        found = load_entries(files)
        assert (found[0] == entries).all() and found[1] == tasks
        assert i % 4 or not found[2]


def test_every_bit_of_a_record_is_checked(root: Path) -> None:
    files, path = open_files(root), next((root / "commits").iterdir())
    whole = path.read_bytes()
    for i in range(8 * len(whole)):
        data = bytearray(whole)
        data[i // 8] ^= 1 << i % 8
        path.write_bytes(data)
        with pytest.raises(CacheDamagedError, match=r"is damaged: .* Restore it, or run `embedcache verify --repair`"):
            read_record(files, path.name)


def test_a_record_under_the_name_of_another_task_is_told(root: Path) -> None:
    first, second = sorted((root / "commits").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(CacheDamagedError, match=first.name):
        read_record(open_files(root), first.name)


@pytest.mark.parametrize("merge", [False, True], ids=["records", "index"])
def test_equal_keys_and_equal_halves_of_keys_are_told_apart(tmp_path: Path, merge: bool) -> None:
    create_store(tmp_path, fake_spec())
    half = b"\7" * 8
    commit_task(tmp_path, [(half + bytes([i]) * 8, rows(i)) for i in (9, 3, 200)])
    commit_task(tmp_path, [(half + bytes([i]) * 8, rows(i + 50)) for i in (4, 3, 9)])  # 3 and 9 once more
    if merge:
        write_index(tmp_path)
    store = EmbeddingStore(tmp_path)
    assert store.index_is_current == merge
    assert [len(store[half + bytes([i]) * 8]) for i in (3, 4, 9, 200)] == [3, 54, 9, 200]  # the lower shard counts
    assert len(store) == 4 and half + bytes([5]) * 8 not in store
