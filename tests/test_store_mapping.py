"""A store as a Mapping: what every reader may rely on, threads and forked processes included."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, fake_spec

from embedcache.build import build_cache
from embedcache.errors import CacheIncompleteError, InvalidInputError
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore, commit_task, create_store
from embedcache.store.layout import Array


def sequences(lengths: list[int]) -> list[tuple[bytes, Array]]:
    draw = np.random.default_rng(0)
    return [(i.to_bytes(16, "big"), draw.standard_normal((n, 12)).astype(np.float16)) for i, n in enumerate(lengths)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_store(tmp_path / "s", fake_spec(), shard_bytes=1 << 14)  # 512 rows
    return tmp_path / "s"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_a_store_is_a_read_only_mapping(tmp_path: Path, dtype: str) -> None:
    records = [SequenceRecord(str(n), "MK" * n, "protein") for n in (1, 3, 2)]
    build_cache(records, FakeEncoder(store_dtype=dtype), tmp_path)
    store = EmbeddingStore(tmp_path)
    keys = [sequence_key(record.sequence, "protein") for record in records]
    assert list(store) == list(store.keys()) == sorted(keys) and len(store) == 3 == len(list(store.values()))
    assert all(np.array_equal(array, store.get(key)) and key in store for key, array in store.items())
    for wrong in ("p1", b"short", 7, None, (b"k" * 16,), b"k" * 16, b"k" * 32, bytearray(16)):
        assert wrong not in store and store.get(wrong) is None and store.get(wrong, 5) == 5  # type: ignore[call-overload]
        with pytest.raises(KeyError):
            store[wrong]  # type: ignore[index]
    again = EmbeddingStore(tmp_path)
    assert store == store and store != again and len({store, again}) == 2 and store != dict(store)  # noqa: PLR0124
    array = store[keys[0]]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    array.copy()[0] = 0
    with pytest.raises(TypeError):
        store[keys[0]] = array  # type: ignore[index]
    packed = store.batch([keys[2], None, keys[0], keys[2]])
    assert packed.offsets.tolist() == [0, 4, 4, 6, 10]
    parts = packed.to_list()
    assert all(np.array_equal(parts[i].float().numpy(), store[keys[k]]) for i, k in ((0, 2), (2, 0), (3, 2)))
    with pytest.raises(CacheIncompleteError, match="lacks 1 of 2 protein sequences"):
        store.batch([keys[0], b"k" * 16])
    for several in ([b"k" * 8, b"k" * 24], ["k" * 16]):
        with pytest.raises(InvalidInputError, match="is no sequence key"):
            store.batch(several)  # type: ignore[arg-type]
    assert store.batch([]).values.shape == (0, 12) and store.batch([None]).lengths.tolist() == [0]


def test_threads_share_a_store(root: Path) -> None:
    written = sequences([300, 100, 200, 512, 1, 50, 480])
    commit_task(root, written)

    def read(store: EmbeddingStore, i: int) -> bool:
        key, values = written[i % len(written)]
        return np.array_equal(store[key], values) and np.array_equal(store.batch([key]).values, values)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            store = EmbeddingStore(root)  # nothing is mapped yet: all threads begin with that
            assert all(pool.map(read, [store] * 24, range(24)))


def test_a_forked_process_reads_a_store_that_its_parent_has_mapped(root: Path) -> None:
    written = sequences([30, 500])
    commit_task(root, written)
    store = EmbeddingStore(root)
    store[written[0][0]]  # one shard is mapped, the other is not
    child = os.fork()
    if not child:
        os._exit(0 if all(np.array_equal(store[key], values) for key, values in written) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
