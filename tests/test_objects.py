import os
import pickle
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import SECRET, s3_server
from fakes import FakeEncoder, fake_spec

from embedcache.build import build_cache
from embedcache.care import collect_cache, verify_cache
from embedcache.errors import CacheDamagedError, CacheError, InvalidSettingError
from embedcache.info import describe_cache
from embedcache.place import parse_place
from embedcache.sequences import SequenceRecord
from embedcache.store import EmbeddingStore, commit_task, create_store, list_stores, store_path, write_index
from embedcache.store.files import Files, open_files
from embedcache.store.layout import Array
from embedcache.store.objects import ObjectFiles
from embedcache.store.ranges import FetchedShards


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("cache-tests") as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    """An empty place of each kind: what holds for one must hold for the other."""
    return str(tmp_path / "store") if request.param == "local" else f"{bucket}/{uuid.uuid4().hex}"


@pytest.fixture
def files(place: str) -> Files:
    found = open_files(place)
    found.make_folders(["tokens/c", "commits"])
    return found


def sequences(lengths: list[int], width: int = 12) -> list[tuple[bytes, Array]]:
    draw = np.random.default_rng(0)
    return [(i.to_bytes(16, "big"), draw.standard_normal((n, width)).astype(np.float16)) for i, n in enumerate(lengths)]


def test_a_name_is_created_once_whoever_tries(files: Files) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: files.create("commits/task", [b"attempt ", str(i).encode()]), range(64)))
    assert sum(won) == 1 and files.read("commits/task") == f"attempt {won.index(True)}".encode()
    assert files.names("commits") == ["task"]


def test_a_shard_number_is_given_once(files: Files) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: open_files(files.place).claim_shard(), range(24)))
    assert sorted(numbers) == list(range(24))


def test_files_are_listed_replaced_and_removed(files: Files) -> None:
    files.replace("claims/tasks/t/0", [b"first"])
    before = files.statuses("claims")["claims/tasks/t/0"]
    files.replace("claims/tasks/t/0", [b"other"], lasting=False)
    after = files.statuses("claims")["claims/tasks/t/0"]
    assert (before.size, after.size) == (5, 5) and before.tag != after.tag
    assert files.read("claims/tasks/t/0") == b"other" and files.exists("claims/tasks/t/0")
    assert list(files.read_many(["claims/tasks/t/0"] * 3)) == [b"other"] * 3
    files.remove(["claims/tasks/t/0", "claims/tasks/t/1"])
    assert not files.exists("claims/tasks/t/0") and files.statuses("claims") == {}
    with pytest.raises(FileNotFoundError):
        files.read("claims/tasks/t/0")


def test_a_store_reads_alike_from_both(place: str) -> None:
    create_store(place, fake_spec(), shard_bytes=1 << 14)
    written = sequences([300, 100, 0, 512, 1, 77])
    assert commit_task(place, written[:4]) and not commit_task(place, written[:4])
    assert commit_task(place, written[4:])
    for merge in (False, True):
        if merge:
            write_index(place)
        store = EmbeddingStore(place)
        store.check_shards()
        assert store.index_is_current == merge and store.damaged() == []
        assert {key: store[key].tobytes() for key in store} == {key: rows.tobytes() for key, rows in written}
        order = [5, -1, 0, 0, 3]
        assert store.packed(order).offsets.tolist() == [0, 77, 77, 377, 677, 1189]
        batches = [np.array([i, 5 - i]) for i in range(6)]
        for batch, found in zip(batches, store.prefetch(batches), strict=True):
            assert found.values.equal(store.packed(batch).values)
        assert len(pickle.loads(pickle.dumps(store))) == 6


def test_zarr_reads_a_store_in_an_object_store(bucket: str) -> None:
    import zarr
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    place = f"{bucket}/zarr"
    create_store(place, fake_spec(), shard_bytes=1 << 14)
    written = sequences([300, 100])
    commit_task(place, written)
    write_index(place)
    client = from_url(place, client_options={"allow_http": True})
    array = zarr.open_array(ObjectStore(client, read_only=True), path="tokens", mode="r")
    assert np.array_equal(array[:400], np.concatenate([rows for _, rows in written]))


def test_sequences_beside_each_other_share_a_request(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"{bucket}/shared-requests"
    create_store(root, fake_spec(), shard_bytes=1 << 14)  # 512 rows of 24 bytes
    written = sequences([160, 10, 20, 10, 100, 0, 212, 30, 5])
    commit_task(root, written)
    store, asked = EmbeddingStore(root), list[tuple[str, int, int]]()
    read_range = ObjectFiles.read_range

    def spy(files: ObjectFiles, name: str, start: int, size: int) -> bytes:
        asked.append((name[-3], start // 24, size // 24))
        found: bytes = read_range(files, name, start, size)
        return found

    monkeypatch.setattr(ObjectFiles, "read_range", spy)
    monkeypatch.setattr("embedcache.store.ranges.NEAR_BYTES", 5 * 24)
    wanted = {
        (0, 2): [("0", 0, 190)],  # 10 rows between, of 180
        (0, 2, 4): [("0", 0, 190), ("0", 200, 100)],  # 20 rows would be too many in vain
        (1, 0, 1): [("0", 0, 170)],
        (5,): [],
        (6, 7): [("0", 300, 212), ("1", 0, 30)],
        (6, 5, 4, 3, 2): [("0", 170, 342)],
    }
    for batch, requests in wanted.items():
        asked.clear()
        assert store.packed(batch).values.numpy().tobytes() == b"".join(written[i][1].tobytes() for i in batch)
        assert sorted(asked) == requests, batch
    monkeypatch.setattr("embedcache.store.ranges.NEAR_BYTES", 20 * 24)
    asked.clear()
    store.packed([0, 2, 4])
    assert asked == [("0", 0, 300)]
    monkeypatch.setattr("embedcache.store.ranges.REQUEST_BYTES", 180 * 24)
    asked.clear()
    store.packed([0, 1, 2])
    assert sorted(asked) == [("0", 0, 170), ("0", 170, 20)]


def test_what_waits_for_its_reader_is_bounded_and_never_lost(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"{bucket}/bounded"
    create_store(root, fake_spec(), shard_bytes=1 << 14)
    written = sequences([20] * 30)
    commit_task(root, written)
    monkeypatch.setattr("embedcache.store.ranges.ADVISED_BYTES", 24 * 100)
    store = EmbeddingStore(root)
    store.advise(np.arange(30))
    assert store.packed(range(30)).values.numpy().tobytes() == b"".join(rows.tobytes() for _, rows in written)
    store.advise(np.arange(30))
    shards = store._shards
    assert isinstance(shards, FetchedShards) and len(shards._coming) == 5
    assert store.packed([29, 0, 29]).values.equal(EmbeddingStore(root).packed([29, 0, 29]).values)
    store.advise(np.arange(30))
    assert len(shards._coming) == 5


@pytest.mark.parametrize("rows_left", [140, 40], ids=["within the sequence", "before it"])
def test_a_cut_object_is_refused_by_name(bucket: str, rows_left: int) -> None:
    root = f"{bucket}/cut-{rows_left}"
    create_store(root, fake_spec(), shard_bytes=1 << 14)
    commit_task(root, sequences([30, 120]))
    files = open_files(root)
    files.replace("tokens/c/0/0", [files.read("tokens/c/0/0")[: rows_left * 24]])
    assert len(EmbeddingStore(root).packed([0]).values) == 30
    with pytest.raises(CacheDamagedError, match=r"tokens/c/0/0 is shorter"):
        EmbeddingStore(root).packed([1])


def test_a_build_in_an_object_store_equals_one_on_disk(bucket: str, tmp_path: Path) -> None:
    cache, encoder = f"{bucket}/cache", FakeEncoder()
    records = [SequenceRecord(str(n), "ACGT" * n, encoder.spec.modality) for n in range(1, 40)]
    remote = store_path(cache, encoder.spec)
    report = build_cache(records[:20], encoder, remote)
    assert report.computed == 20 and build_cache(records, encoder, remote).computed == 19
    assert build_cache(records, encoder, remote).computed == 0
    build_cache(records, encoder, tmp_path / "s")
    here, there = EmbeddingStore(tmp_path / "s"), EmbeddingStore(remote)
    assert {key: here[key].tobytes() for key in here} == {key: there[key].tobytes() for key in there}
    assert list(list_stores(cache)) == [remote] and describe_cache(cache)[0].sequences == 39
    assert verify_cache(cache).stores[0].damages == ()
    assert collect_cache(cache, 0)[0].shards == 0


def test_damage_in_an_object_store_is_found_and_withdrawn(bucket: str) -> None:
    cache = f"{bucket}/damaged"
    root = store_path(cache, fake_spec())
    create_store(root, fake_spec(), shard_bytes=1 << 14)
    for one in sequences([10, 20, 30]):
        commit_task(root, [one])
    write_index(root)
    files = open_files(root)
    data = bytearray(files.read("tokens/c/1/0"))
    data[7] ^= 1
    files.replace("tokens/c/1/0", [data])
    files.remove(["tokens/c/2/0"])
    with pytest.raises(CacheDamagedError, match="missing"):
        EmbeddingStore(root).packed([0, 1, 2])
    with pytest.raises(CacheDamagedError, match="missing or cut"):
        EmbeddingStore(root).check_shards()
    check = verify_cache(cache, repair=True)
    assert [len(damage.keys) for damage in check.stores[0].damages] == [1, 1] and check.repaired == 2
    assert len(EmbeddingStore(root)) == 1 and EmbeddingStore(root).damaged() == []
    assert collect_cache(cache, 0)[0].shards == 1 and open_files(root).claim_shard() == 3


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/x",
        "s3://",
        "s3://key:secret@bucket/x",
        "s3://b/x?secret=1",
        "s3:/bucket/x",
        "s3:/key:secret@bucket/x",
    ],
)
def test_addresses_that_we_do_not_take_are_refused_without_their_secrets(address: str) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        parse_place(address)
    assert "secret" not in str(caught.value).replace("secrets", "").lower().replace("aws_secret_access_key", "")


def test_no_credential_leaves_the_environment(bucket: str) -> None:
    root = f"{bucket}/pickled"
    create_store(root, fake_spec())
    commit_task(root, sequences([3]))
    store = EmbeddingStore(root)
    store.packed([0])
    for thing in (store, store.files):
        assert SECRET.encode() not in pickle.dumps(thing) and SECRET not in repr(vars(thing))


def test_a_server_that_does_not_answer_is_told_in_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("embedcache.store.objects.MOST_RETRIES", 0)
    with pytest.raises(CacheError, match=r"nobody answers at 127\.0\.0\.1:9 \(AWS_ENDPOINT_URL\)") as caught:
        EmbeddingStore(f"{bucket}/nowhere")
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("name", "AWS_ENDPOINT_URL in the environment is no address"),
        ("me:secret@host:9000", "AWS_ENDPOINT_URL in the environment is no address"),
        ("http://me:secret@127.0.0.1:9", "set AWS_ALLOW_HTTP=true"),
    ],
    ids=["a name", "no scheme", "http"],
)
def test_an_endpoint_that_cannot_be_used_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, words: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    with pytest.raises(InvalidSettingError, match=words) as caught:
        open_files("s3://bucket/x").exists("zarr.json")
    assert "secret" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_told_by_the_code_of_the_answer(bucket: str) -> None:
    with pytest.raises(CacheError, match=r"there is no bucket 'cache-tests-of-nobody'. Make it") as caught:
        list(list_stores(f"{bucket}-of-nobody/cache"))
    assert "<" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("again", [False, True], ids=["as it was", "opened again"])
def test_a_forked_process_says_that_it_needs_spawn(bucket: str, again: bool) -> None:
    root = f"{bucket}/forked-{again}"
    create_store(root, fake_spec())
    files = open_files(root)
    files.exists("zarr.json")
    child = os.fork()
    if not child:
        try:
            (open_files(root) if again else files).exists("zarr.json")
        except CacheError as error:
            os._exit(7 if "spawn" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
