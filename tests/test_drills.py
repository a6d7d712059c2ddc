"""Faults that a store must survive: lost races, killed workers, disks that fill, clocks that jump, flipped bits."""

import errno
import os
import secrets
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_s3 import s3_server
from fakes import FakeEncoder, fake_spec, random_records
from worker_builds import SHARD_BYTES, TOLD, Job, begun, build, run_to_the_end, start

from embedcache.build import build_cache
from embedcache.errors import CacheDamagedError, CacheError
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore, create_store
from embedcache.store.care import check_store, repair_store
from embedcache.store.files import LocalFiles, open_files
from embedcache.store.garbage import collect_garbage
from embedcache.store.index import committed_tasks, read_records
from embedcache.store.quarantine import read_quarantine
from embedcache.store.write import commit_task


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("drills") as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "s")
    return f"{request.getfixturevalue('bucket')}/{secrets.token_hex(4)}"


def assert_right(place: str | Path, wanted: set[str]) -> None:
    """The store holds exactly these sequences, each committed once with the rows of the encoder."""
    store, encoder = EmbeddingStore(place), FakeEncoder()
    assert set(store) == {sequence_key(sequence, "protein") for sequence in wanted} and store.damaged() == []
    for sequence in wanted:
        rows = np.asarray(store[sequence_key(sequence, "protein")])
        assert np.array_equal(rows, encoder.rows(sequence).astype("f2"))
    files = open_files(place)
    assert len(read_records(files, committed_tasks(files))) == len(wanted)


def claimed(place: str) -> list[str]:
    """Shard numbers that were given."""
    files = open_files(place)
    return files.names("tokens/c" if isinstance(files.place, Path) else "claims/shards")


def test_of_64_attempts_at_a_task_one_is_committed(place: str) -> None:
    create_store(place, fake_spec(), shard_bytes=SHARD_BYTES)
    rows = [(secrets.token_bytes(16), np.full((3, 12), i, "f2")) for i in range(5)]
    barrier = threading.Barrier(16)

    def attempt(_: int) -> bool:
        barrier.wait()
        return commit_task(place, rows)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(64)))
    files = open_files(place)
    assert won.count(True) == 1 and len(committed_tasks(files)) == 1
    store = EmbeddingStore(place)
    assert store.damaged() == [] and all(np.array_equal(np.asarray(store[key]), array) for key, array in rows)
    numbers = claimed(place)
    # an attempt that sees the commit before it begins takes no number
    assert 2 <= len(numbers) <= 64 and len(files.statuses("tokens/c")) == len(numbers)
    spared = collect_garbage(place)
    assert (spared.shards, spared.spared) == (0, len(numbers) - 1)
    assert collect_garbage(place, 0).shards == len(numbers) - 1
    assert EmbeddingStore(place).damaged() == [] and claimed(place) == numbers
    assert commit_task(place, [(b"k" * 16, rows[0][1])]) and len(claimed(place)) == len(numbers) + 1


def test_a_shard_whose_answer_was_lost_is_written_again_under_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_store(tmp_path / "s", fake_spec(), shard_bytes=SHARD_BYTES)
    create, lost = LocalFiles.create, list[str]()

    def create_and_lose(files: LocalFiles, name: str, *given: object, **more: object) -> bool:
        created = create(files, name, *given, **more)  # type: ignore[arg-type]
        if name.startswith("tokens/c/") and len(lost) < 2:
            lost.append(name)
            return False
        return created

    monkeypatch.setattr(LocalFiles, "create", create_and_lose)
    rows = np.ones((3, 12), "f2")
    assert commit_task(tmp_path / "s", [(b"k" * 16, rows)])
    store = EmbeddingStore(tmp_path / "s")
    assert lost == ["tokens/c/0/0", "tokens/c/1/0"] and np.array_equal(np.asarray(store[b"k" * 16]), rows)
    assert set(collect_garbage(tmp_path / "s", 0, dry_run=True).to_json().items()) >= {("shards", 2)}
    monkeypatch.setattr(LocalFiles, "create", lambda *given, **more: create(*given, **more) and False)
    with pytest.raises(CacheError, match="was claimed for this attempt"):
        commit_task(tmp_path / "s", [(b"l" * 16, rows)])


def test_three_workers_of_which_one_is_killed(place: str, tmp_path: Path) -> None:
    job = Job(place=place, notes=tmp_path / "notes", count=700, longest=30, pause=0.005, workers=11)
    workers = [start(job) for _ in range(3)]
    victim = job.notes / str(workers[1].pid)
    until = time.monotonic() + 30
    while not victim.exists() or len(victim.read_text().splitlines()) < 20:
        assert time.monotonic() < until and workers[1].is_alive()
        time.sleep(0.01)
    workers[1].kill()
    workers.pop(1).join()  # nobody takes its place
    assert run_to_the_end(job, workers) == 0
    wanted = {record.sequence for record in random_records(700, longest=30)}
    assert_right(place, wanted)
    assert len(committed_tasks(open_files(place))) >= 44
    twice = Counter(begun(job.notes)) - Counter(wanted)
    lost = set(victim.read_text().splitlines())
    assert set(twice) <= lost, "work was done twice that nobody was killed at"
    assert sum(map(len, twice.elements())) <= 2 * SHARD_BYTES // 24


def test_four_workers_with_a_sequence_that_kills_and_one_that_raises(place: str, tmp_path: Path) -> None:
    ordered = sorted({record.sequence for record in random_records(120, longest=60)}, key=len)
    deadly, bad = ordered[70], ordered[40]
    notes, count = tmp_path / "notes", 120
    job = Job(place=place, notes=notes, count=count, kills=frozenset([deadly]), raises=frozenset([bad]), workers=4)
    workers = [start(job) for _ in range(4)]
    workers[0].kill()  # in the middle of its first steps, if it has come so far
    assert 4 <= run_to_the_end(job, workers) <= 8
    assert_right(place, {*ordered} - {deadly, bad})
    reasons = {key: one.reason for key, one in read_quarantine(open_files(place)).items()}
    assert set(reasons) == {sequence_key(sequence, "protein") for sequence in (deadly, bad)}


@pytest.mark.parametrize("most_bytes", [0, 300, 5_000, 12_000])
def test_a_disk_that_fills_is_told_in_one_line_and_leaves_nothing_torn(tmp_path: Path, most_bytes: int) -> None:
    """No file may grow past a limit, which is seen as an error of a write in the middle of a file."""
    job = Job(place=str(tmp_path / "s"), notes=tmp_path / "notes", count=200, most_bytes=None)
    limited = Job(place=job.place, notes=job.notes, count=200, most_bytes=most_bytes)
    worker = start(limited)
    worker.join()
    assert worker.exitcode == TOLD
    job.notes.mkdir(exist_ok=True)
    build(job)
    assert_right(job.place, {record.sequence for record in random_records(200, longest=60)})
    assert open_files(job.place).temporaries() == {}, "a writer that could not end left its file behind"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB that can be filled and made read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_real_disk_that_is_full_and_then_larger(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, place = random_records(1200, longest=60), small_disk / "s"
    needed = sum(len(sequence) for sequence in {record.sequence for record in records}) * 24
    monkeypatch.setattr("embedcache.build._check_room", lambda *_: None)  # somebody else fills it meanwhile
    with pytest.raises(CacheError, match=f"{os.strerror(errno.ENOSPC)}.*then run the same command again"):
        build_cache(records, FakeEncoder(), place, shard_bytes=SHARD_BYTES)
    there = EmbeddingStore(place)
    assert 0 < there.n_tokens * 24 < needed < 2 << 20 and there.damaged() == []
    assert open_files(place).statuses("claims/tasks") == {}, "the lease was not given back"
    with pytest.raises(CacheError, match=os.strerror(errno.ENOSPC)):
        build_cache(records, FakeEncoder(), place, shard_bytes=SHARD_BYTES)
    kept = {key: there[key].tobytes() for key in EmbeddingStore(place) if key in there}
    assert len(kept) == len(there)
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    encoder = FakeEncoder()
    build_cache(records, encoder, place, shard_bytes=SHARD_BYTES)
    assert_right(place, {record.sequence for record in records})
    assert len(encoder.embedded) <= len({record.sequence for record in records}) - len(kept)


def test_a_read_only_cache_is_read_and_not_written(small_disk: Path) -> None:
    records, place = random_records(30), small_disk / "s"
    build_cache(records[:20], FakeEncoder(), place)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    encoder = FakeEncoder()
    assert build_cache(records[:20], encoder, place).computed == 0 and encoder.embedded == []
    with pytest.raises(CacheError, match=f"cannot be written: {os.strerror(errno.EROFS)}"):
        build_cache(records, encoder, place)
    assert encoder.embedded == []
    with pytest.raises(CacheError, match=f"cannot be written: {os.strerror(errno.EROFS)}"):
        build_cache(records, FakeEncoder(), small_disk / "another")
    assert_right(place, {record.sequence for record in records[:20]})


@pytest.mark.parametrize("jump", [-10 * 365 * 86400.0, 86400.0, 10 * 365 * 86400.0], ids=["back", "a day", "ahead"])
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    clock, calls, jumps = time.time, [0], list[float]()

    def jumping() -> float:
        calls[0] += 1
        if calls[0] % 3 == 0 and len(jumps) < 4:
            jumps.append(jump)
        return clock() + sum(jumps)

    monkeypatch.setattr(time, "time", jumping)
    records = random_records(200, longest=60)
    encoder = FakeEncoder()
    build_cache(records, encoder, tmp_path / "s", tokens_per_batch=200, shard_bytes=SHARD_BYTES)
    assert len(jumps) == 4
    assert sorted(encoder.embedded) == sorted({record.sequence for record in records})
    assert_right(tmp_path / "s", {record.sequence for record in records})


def test_a_flipped_bit_is_found_named_withdrawn_and_embedded_again(place: str) -> None:
    records = random_records(200, longest=60)
    wanted = {record.sequence for record in records}
    build_cache(records, FakeEncoder(), place, shard_bytes=SHARD_BYTES)
    victim = sorted(wanted)[17]
    key, files = sequence_key(victim, "protein"), open_files(place)
    entries = read_records(files, committed_tasks(files))
    entry = next(e for e in entries if f"{int(e['high']):016x}{int(e['low']):016x}" == key.hex())
    name = f"tokens/c/{entry['shard']}/0"
    data = bytearray(files.read(name))
    data[(int(entry["start"]) + int(entry["length"]) - 1) * 24 + 5] ^= 4
    files.replace(name, [bytes(data)])
    check = check_store(place)
    (damage,) = check.damages
    assert damage.keys == (key.hex(),) and damage.shard == entry["shard"] and key.hex() in str(check)
    assert repair_store(place, check) == 1
    encoder = FakeEncoder()
    build_cache(records, encoder, place, shard_bytes=SHARD_BYTES)
    assert victim in encoder.embedded and len(encoder.embedded) < len(wanted)
    assert_right(place, wanted)
    assert not check_store(place).is_damaged


@pytest.mark.parametrize("damage", ["empty record", "cut record", "short shard", "no shard", "changed shard"])
def test_damage_to_a_commit_is_found_and_its_task_computed_again(tmp_path: Path, damage: str) -> None:
    place, records = tmp_path / "s", random_records(200, longest=60)
    build_cache(records, FakeEncoder(), place, shard_bytes=SHARD_BYTES)
    files = LocalFiles(place)
    task = committed_tasks(files)[2]
    record = place / "commits" / task
    shard = place / "tokens/c" / str(read_records(files, [task])["shard"][0]) / "0"
    target = record if "record" in damage else shard
    data = target.read_bytes()
    target.unlink()
    if damage != "no shard":
        changed = {"empty": b"", "cut": data[:-7], "short": data[:-50], "changed": bytes(100) + data[100:]}
        target.write_bytes(changed[damage.partition(" ")[0]])
    if "record" in damage:
        (place / "index.npy").unlink()
    if damage != "changed shard":
        with pytest.raises(CacheDamagedError, match="verify --repair"):
            build_cache(records, FakeEncoder(), place, shard_bytes=SHARD_BYTES)
    check = check_store(place)
    assert [one.task for one in check.damages] == [task] and repair_store(place, check) == 1
    encoder = FakeEncoder()
    build_cache(records, encoder, place, shard_bytes=SHARD_BYTES)
    assert 0 < len(encoder.embedded) < len({record.sequence for record in records})
    assert_right(place, {record.sequence for record in records})


def test_a_driver_that_is_killed_and_run_again_computes_only_the_rest(tmp_path: Path) -> None:
    job = Job(place=str(tmp_path / "s"), notes=tmp_path / "notes", count=1000, workers=3, pause=0.005)
    driver = start(job)
    files, until = LocalFiles(tmp_path / "s"), time.monotonic() + 30
    while not (tmp_path / "s/commits").is_dir() or len(committed_tasks(files)) < 5:
        assert time.monotonic() < until
        time.sleep(0.005)
    driver.kill()
    driver.join()
    before = len(read_records(files, committed_tasks(files)))
    again = Job(place=job.place, notes=tmp_path / "again", count=1000, workers=3, pause=0.005)
    workers = [start(again) for _ in range(2)]
    time.sleep(0.3)
    workers[0].kill()
    run_to_the_end(again, workers)
    wanted = {record.sequence for record in random_records(1000, longest=60)}
    assert_right(tmp_path / "s", wanted)
    assert len(set(begun(again.notes))) == len(wanted) - before > 0
