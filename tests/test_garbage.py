import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import s3_server
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.errors import CacheDamagedError
from embedcache.store import EmbeddingStore, store_path
from embedcache.store.files import Files, open_files
from embedcache.store.garbage import collect_garbage
from embedcache.store.leases import Attempt, Leases
from embedcache.store.tasks import read_plans, settle_tasks

ELSEWHERE = {"machine": "another", "pid": 1, "start": "1"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("garbage-tests") as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Files:
    """Of a store that was built."""
    cache = str(tmp_path / "cache") if request.param == "local" else f"{bucket}/{uuid.uuid4().hex}"
    encoder = FakeEncoder()
    root = store_path(cache, encoder.spec)
    build_cache(random_records(40), encoder, root, shard_bytes=1 << 13)
    return open_files(root)


def orphan(files: Files) -> str:
    name = f"tokens/c/{files.claim_shard()}/0"
    assert files.create(name, [b"lost attempt"])
    return name


def test_a_dry_run_tells_what_a_run_does_and_does_nothing(files: Files) -> None:
    lost, before = orphan(files), EmbeddingStore(files.place)
    files.create("claims/tasks/gone-0", [json.dumps(ELSEWHERE).encode()])
    there = set(files.statuses(""))
    tried = collect_garbage(files.place, 0, dry_run=True)
    assert set(files.statuses("")) - {"claims/clock"} == there - {"claims/clock"}
    assert "would remove 0 orphan shards" in str(tried) and tried.workers == 1  # a lease that was written just now
    files.remove(["claims/tasks/gone-0"])
    tried, done = collect_garbage(files.place, 0, dry_run=True), collect_garbage(files.place, 0)
    assert tried.to_json() | {"dry_run": False} == done.to_json() and (done.shards, done.plans, done.claims) == (
        1,
        1,
        0,
    )
    assert done.size_bytes > len(b"lost attempt") and not files.exists(lost)
    assert list(EmbeddingStore(files.place)) == list(before) and EmbeddingStore(files.place).damaged() == []
    assert files.claim_shard() > int(lost.split("/")[2])  # its number is never given again


def test_what_a_living_worker_may_commit_is_spared(files: Files) -> None:
    lost = orphan(files)
    with Leases(files) as leases:
        leases.acquire(Attempt("task", 0, 0, {}))
        found = collect_garbage(files.place, 0)
        assert (found.workers, found.shards) == (1, 0) and files.exists(lost) and files.exists("claims/tasks/task-0")
    assert collect_garbage(files.place, 0).shards == 1


def test_leases_go_when_their_task_is_committed_or_they_are_old(files: Files, tmp_path: Path) -> None:
    task = files.names("commits")[0]
    for name in (f"{task}-0", "open-0"):
        files.create(f"claims/tasks/{name}", [json.dumps(ELSEWHERE).encode()])
    if not isinstance(files.place, Path):
        return  # the age of an object cannot be set
    for name in (f"{task}-0", "open-0"):
        then = time.time() - 3600
        os.utime(files.place / "claims" / "tasks" / name, (then, then))
    assert collect_garbage(files.place).claims == 1  # it tells the next attempt that one died
    assert list(files.statuses("claims/tasks")) == ["claims/tasks/open-0"]
    assert collect_garbage(files.place, 0.5).claims == 1 and files.statuses("claims/tasks") == {}


def test_plans_go_when_they_are_done_and_open_ones_stay(files: Files) -> None:
    (done,) = read_plans(files)
    settle_tasks(files, "w", {b"k" * 16}, lambda keys: [[key] for key in keys])
    files.create("claims/plans/w/7", [b"damaged"])
    assert collect_garbage(files.place, 0).plans == 2
    assert list(read_plans(files)) == ["claims/plans/w/0"] and done != "claims/plans/w/0"
    encoder = FakeEncoder()
    assert build_cache(random_records(40), encoder, files.place).computed == 0


def test_without_all_records_nothing_is_an_orphan(files: Files) -> None:
    lost, task = orphan(files), files.names("commits")[0]
    files.replace(f"commits/{task}", [b"torn"])
    with pytest.raises(CacheDamagedError, match="verify --repair"):
        collect_garbage(files.place, 0)
    assert files.exists(lost)
