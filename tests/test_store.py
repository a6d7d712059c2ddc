import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from fakes import fake_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import CacheDamagedError, CacheError, CacheIncompleteError, CacheMismatchError, UnknownNameError
from embedcache.store import EmbeddingStore, commit_task, create_store, find_store, store_path, write_index
from embedcache.store import files as local_files
from embedcache.store.files import open_files
from embedcache.store.index import load_entries
from embedcache.store.layout import Array


def rows(n: int, width: int = 12, seed: int = 0) -> Array:
    return np.random.default_rng((seed, n)).standard_normal((n, width)).astype(np.float16)


def sequences(lengths: list[int], width: int = 12) -> list[tuple[bytes, Array]]:
    return [(i.to_bytes(16, "big"), rows(n, width, seed=i)) for i, n in enumerate(lengths)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_store(tmp_path / "s", fake_spec(), shard_bytes=1 << 14)  # 512 rows
    return tmp_path / "s"


@given(lengths=st.lists(st.integers(1, 512), min_size=1, max_size=12), tasks=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_what_was_committed_is_read_after_reopening(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], tasks: int
) -> None:
    root = tmp_path_factory.mktemp("store")
    create_store(root, fake_spec(), shard_bytes=1 << 14)
    written = sequences(lengths)
    for i in range(tasks):
        if part := written[i::tasks]:
            assert commit_task(root, part)
    for merge in (False, True):
        if merge:
            write_index(root)
        store = EmbeddingStore.open(root)
        assert store.index_is_current == merge and len(store) == len(lengths)
        assert {key: store[key].tobytes() for key in store} == {key: value.tobytes() for key, value in written}
        assert store.damaged() == []


def test_zarr_reads_every_row(root: Path) -> None:
    written = sequences([300, 100, 200, 512, 1])
    commit_task(root, written)
    write_index(root)
    array = zarr.open_array(root / "tokens", mode="r")
    store = EmbeddingStore(root)
    entries = load_entries(open_files(root))[0]
    for key, values in written:
        entry = entries[int(store.find([key])[0])]
        first = int(entry["shard"]) * store.layout.shard_rows + int(entry["start"])
        assert np.array_equal(np.asarray(array[first : first + len(values)]), values)
    group = zarr.open_group(root, mode="r")
    assert group.attrs["width"] == 12 and group.attrs["letters_a_token"] == "letter"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_batches_are_packed_in_the_order_asked(tmp_path: Path, dtype: str) -> None:
    create_store(tmp_path, fake_spec(store_dtype=dtype))
    stored = {"float16": "f2", "bfloat16": "u2", "float32": "f4"}[dtype]
    tensors = [torch.randn(n, 12).to(getattr(torch, dtype)) for n in (5, 1, 7)]
    arrays = [(t.view(torch.uint16) if dtype == "bfloat16" else t).numpy().astype(stored) for t in tensors]
    keys = [bytes([i] * 16) for i in range(3)]
    commit_task(tmp_path, list(zip(keys, arrays, strict=True)))
    store = EmbeddingStore(tmp_path)
    ragged = store.batch([keys[2], None, keys[0], keys[2]])
    assert ragged.lengths.tolist() == [7, 0, 5, 7] and ragged.values.dtype == getattr(torch, dtype)
    assert torch.equal(ragged.values, torch.cat([tensors[2], tensors[0], tensors[2]]))
    assert store[keys[1]].shape == (1, 12) and np.array_equal(store[keys[1]], tensors[1].float().numpy())


def test_prefetched_batches_equal_batches_read_one_by_one(root: Path) -> None:
    commit_task(root, sequences([30, 2, 70, 11, 5, 64]))
    store = EmbeddingStore(root)
    rng = np.random.default_rng(0)
    batches = [rng.integers(-1, 6, size) for size in (4, 1, 3, 6, 2, 5, 1, 1)]
    for batch, fetched in zip(batches, store.prefetch(batches), strict=True):
        direct = store.packed(batch)
        assert torch.equal(fetched.values, direct.values) and torch.equal(fetched.offsets, direct.offsets)
    assert list(store.prefetch([])) == []
    stopped = store.prefetch(batches)
    next(stopped)
    stopped.close()


def test_keys_with_64_equal_bits_are_told_apart(root: Path) -> None:
    twins = [(b"8 equal " + bytes([7 - i] * 8), rows(i + 1)) for i in range(8)]
    commit_task(root, twins)
    store = EmbeddingStore(root)
    assert all(store[key].shape == values.shape for key, values in twins)
    assert store.find([b"8 equal absent  ", b"none" * 4, b"\xff" * 16]).tolist() == [-1] * 3
    assert b"short" not in store and twins[0][0] in store
    with pytest.raises(CacheIncompleteError, match="lacks 1 of 2 protein"):
        store.batch([twins[0][0], b"none" * 4])


def test_a_task_is_committed_once_whoever_tries(root: Path) -> None:
    written = sequences([40, 50])
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda _: commit_task(root, written), range(8)))
    assert sorted(wins) == [False] * 7 + [True]
    assert len(EmbeddingStore(root)) == 2 and EmbeddingStore(root).damaged() == []
    shards = sorted((root / "tokens" / "c").iterdir())
    assert not commit_task(root, written) and sorted((root / "tokens" / "c").iterdir()) == shards


def test_a_key_in_two_tasks_is_legal_and_the_lower_shard_counts(root: Path) -> None:
    key = b"k" * 16
    commit_task(root, [(key, rows(3, seed=1))])
    commit_task(root, [(key, rows(3, seed=2)), (b"l" * 16, rows(2))])
    store = EmbeddingStore(root)
    assert len(store) == 2 and np.array_equal(store[key], rows(3, seed=1))


def test_an_index_that_is_behind_lost_or_damaged_is_seen_through(root: Path) -> None:
    commit_task(root, sequences([9, 8]))
    write_index(root)
    commit_task(root, [(b"m" * 16, rows(4))])
    assert len(EmbeddingStore(root)) == 3
    write_index(root)
    index = root / "index.npy"
    whole = index.read_bytes()
    for damaged in (whole[:100], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b""):
        index.write_bytes(damaged)
        store = EmbeddingStore(root)
        assert len(store) == 3 and not store.index_is_current
    index.unlink()
    assert len(EmbeddingStore(root)) == 3
    next(path for path in (root / "commits").iterdir()).unlink()  # a record is withdrawn
    assert len(EmbeddingStore(root)) < 3


def test_a_read_only_store_opens(root: Path) -> None:
    commit_task(root, sequences([9]))
    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert len(EmbeddingStore(root)) == 1


def test_the_disk_begins_with_a_large_file_before_it_is_flushed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[tuple[int, int]]()
    monkeypatch.setattr(local_files, "HANDED_OVER_BYTES", 1000)
    monkeypatch.setattr(
        local_files, "_sync_file_range", lambda _, start, size, how: begun.append((start.value, size.value))
    )
    written = sequences([30, 30, 100, 5])
    commit_task(root, written)
    starts, sizes = zip(*begun, strict=True)
    assert starts == (0, 1440, 3840) and sum(sizes) >= 3840 and starts[1:] == tuple(np.cumsum(sizes)[:-1])
    assert {key: EmbeddingStore(root)[key].tobytes() for key, _ in written} == {k: r.tobytes() for k, r in written}


def test_a_flipped_bit_is_found(root: Path) -> None:
    commit_task(root, sequences([9, 20]))
    shard = root / "tokens" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[9 * 24 + 5] ^= 4
    shard.write_bytes(data)
    store = EmbeddingStore(root)
    assert store.damaged() == [int(store.find([(1).to_bytes(16, "big")])[0])]


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "index", "foreign"])
def test_a_damaged_shard_is_refused_by_name(root: Path, damage: str) -> None:
    commit_task(root, sequences([9, 20]))
    shard = root / "tokens" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    if damage == "gone":
        shard.unlink()
    else:
        changed = {"cut": data[:-1000], "empty": b"", "index": data[:-6] + b"xxxxxx", "foreign": b"x" * 50}
        shard.write_bytes(changed[damage])
    with pytest.raises(CacheDamagedError, match="tokens/c/0/0"):
        EmbeddingStore(root)[(0).to_bytes(16, "big")]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_lost_shards_are_found_without_reading(root: Path, damage: str) -> None:
    commit_task(root, sequences([9, 300, 400]))
    EmbeddingStore(root).check_shards()
    shard = root / "tokens/c/1/0"
    shard.unlink() if damage == "gone" else shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CacheDamagedError, match=r"1 of 2 shards .*tokens/c/1/0.*--repair"):
        EmbeddingStore(root).check_shards()


@pytest.mark.parametrize("name", ["zarr.json", "index.npy", "commits/abc"])
def test_a_directory_in_place_of_a_file_is_refused_by_name(root: Path, name: str) -> None:
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir()
    with pytest.raises(CacheDamagedError, match=name):
        EmbeddingStore(root)


@pytest.mark.parametrize(
    "record",
    [b"", b"{}\n", b"rubbish", b'{"version": 1, "crc32c": 1, "sequences": 0}\n', b'{"version": "1", "crc32c": 0}\n'],
)
def test_a_damaged_record_is_refused_by_name(root: Path, record: bytes) -> None:
    (root / "commits" / "abc").write_bytes(record)
    with pytest.raises(CacheDamagedError, match="commits/abc"):
        EmbeddingStore(root)


def change_attributes(root: Path, **changes: object) -> None:
    path = root / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"].update(changes)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"version": 3}, "version 3", id="newer"),
        pytest.param({"version": 0}, "version 0", id="no version"),
        pytest.param({"version": True}, "version True", id="version of another kind"),
        pytest.param({"format": "other"}, "'other'", id="foreign"),
        pytest.param({"shard_rows": 100}, "shard_rows", id="rows"),
        pytest.param({"encoder": None}, "encoder", id="no spec"),
        pytest.param({"encoder": {"name": "x"}}, "other fields", id="spec of another version"),
        pytest.param({"encoder": fake_spec(layer=3).to_json()}, "somebody changed it", id="spec changed by hand"),
        pytest.param({"encoder": {**fake_spec().to_json(), "width": "x"}}, "width", id="width"),
        pytest.param({"encoder": {**fake_spec().to_json(), "modality": "rma"}}, "modality", id="modality"),
        pytest.param({"encoder": {**fake_spec().to_json(), "store_dtype": "int3"}}, "store_dtype", id="dtype"),
    ],
)
def test_metadata_that_is_not_ours_is_refused(root: Path, changes: dict[str, object], message: str) -> None:
    change_attributes(root, **changes)
    with pytest.raises(CacheError, match=message):
        EmbeddingStore(root)


def test_a_store_of_another_spec_is_refused(root: Path) -> None:
    with pytest.raises(CacheMismatchError, match=r"\['layer'\]"):
        create_store(root, fake_spec(layer=3))
    with pytest.raises(CacheError, match="holds no store"):
        EmbeddingStore(root / "none")


def test_rows_of_another_form_never_reach_the_disk(root: Path) -> None:
    for wrong in (rows(3, width=11), rows(3).astype(np.float32), rows(3)[0]):
        with pytest.raises(ValueError, match="expected float16"):
            commit_task(root, [(b"k" * 16, wrong)])
    assert len(EmbeddingStore(root)) == 0


def test_a_name_finds_its_store_or_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="embedcache build --modality protein"):
        find_store(tmp_path, "protein")
    with pytest.raises(
        CacheError, match=r"typo does not exist\. Run `embedcache build --modality protein --cache .*typo`"
    ):
        find_store(tmp_path / "typo", "protein")
    first, second = fake_spec(), fake_spec(layer=2)
    create_store(store_path(tmp_path, first), first)
    assert find_store(tmp_path, "protein") == find_store(tmp_path, "protein", "fake")
    create_store(store_path(tmp_path, second), second)
    assert find_store(tmp_path, "protein", second.directory).name == second.directory
    with pytest.raises(
        CacheError, match=r"protein/fake holds no store.* Give one of fake-\w+, fake-\w+, or see `find_store`"
    ):
        EmbeddingStore(tmp_path / "protein" / "fake")
    with pytest.raises(CacheError, match=r"could mean 2 .*: fake-\w+ \(layer -?\d\); fake-\w+ \(layer"):
        find_store(tmp_path, "protein", "fake")
    with pytest.raises(UnknownNameError, match="Did you mean 'fake'"):
        find_store(tmp_path, "protein", "fke")
    with pytest.raises(CacheError, match=r"no protein embeddings of esm2-8m, only of fake\. .* --encoder esm2-8m"):
        find_store(tmp_path, "protein", "esm2-8m")
    with pytest.raises(UnknownNameError, match="Choose from: fake"):
        find_store(tmp_path, "protein", "nt-v2-250m")


def test_a_store_travels_to_another_process(root: Path) -> None:
    commit_task(root, sequences([9, 20]))
    copy = pickle.loads(pickle.dumps(EmbeddingStore(root)))
    assert len(copy) == 2 and copy[(0).to_bytes(16, "big")].shape == (9, 12)
