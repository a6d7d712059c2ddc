import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedcache.errors import CacheError
from embedcache.store.files import LocalFiles
from embedcache.store.leases import Leases


class Clock:
    """Stands in for ``time`` in the module of leases."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("embedcache.store.leases.time", clock)
    return clock


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are taken by processes of another machine: nothing but their silence tells that they are dead."""
    body = {"machine": "another", "pid": 1, "start": "1"}
    monkeypatch.setattr("embedcache.store.leases.this_process", lambda: dict(body))


def names(files: LocalFiles) -> list[str]:
    return sorted(name.rpartition("/")[2] for name in files.statuses("claims/tasks"))


def test_a_task_has_one_owner_until_it_is_handed_back_or_finished(tmp_path: Path) -> None:
    mine, other = Leases(LocalFiles(tmp_path)), Leases(LocalFiles(tmp_path))
    (attempt, second) = mine.survey(["a", "b"]).free
    assert (attempt.task, attempt.number, attempt.deaths) == ("a", 0, 0) and mine.acquire(attempt)
    assert not other.acquire(attempt)
    seen = other.survey(["a", "b"])
    assert [one.task for one in seen.free] == ["b"] and seen.must_wait and seen.crowded
    seen = other.survey(["b"])
    assert not seen.must_wait and seen.crowded  # another build of this store
    own = mine.survey(["a", "b"])
    assert [one.task for one in own.free] == ["b"] and not own.must_wait and not own.crowded
    mine.hand_back(attempt)
    assert other.survey(["a"]).free == [attempt] and names(LocalFiles(tmp_path)) == []
    assert other.acquire(attempt) and other.acquire(second)
    other.finish(attempt)
    assert names(LocalFiles(tmp_path)) == ["b-0"]


def test_an_answer_that_was_lost_does_not_lose_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    create = files.create
    monkeypatch.setattr(files, "create", lambda *given, **more: create(*given, **more) and False)
    leases = Leases(files)
    attempt = leases.survey(["a"]).free[0]
    assert leases.acquire(attempt) and leases.survey(["a"]).free == []
    assert not Leases(files).acquire(attempt)


@pytest.mark.usefixtures("elsewhere")
def test_silence_by_the_watchers_own_clock_is_death(tmp_path: Path, clock: Clock) -> None:
    holder, watcher = Leases(LocalFiles(tmp_path), ttl=60), Leases(LocalFiles(tmp_path), ttl=60)
    attempt = holder.survey(["a"]).free[0]
    assert holder.acquire(attempt)
    os.utime(tmp_path / attempt.name, (0, 0))  # its age by any other clock means nothing
    clock.now += 10_000
    assert watcher.survey(["a"]).must_wait  # seen for the first time
    clock.now += 59
    assert watcher.survey(["a"]).must_wait
    holder.mark(attempt, "")  # as a heartbeat
    clock.now += 59
    assert watcher.survey(["a"]).must_wait
    clock.now += 2
    assert watcher.survey(["a"]).must_wait  # 61 seconds after it was written, of which the watcher has seen 2
    clock.now += 60
    (after,) = watcher.survey(["a"]).free
    assert (after.number, after.deaths, dict(after.died_alone)) == (1, 1, {})
    assert watcher.acquire(after) and names(LocalFiles(tmp_path)) == ["a-0", "a-1"]
    watcher.finish(after)
    assert names(LocalFiles(tmp_path)) == []


@pytest.mark.usefixtures("elsewhere")
def test_a_heartbeat_keeps_a_lease_alive_while_the_work_moves(tmp_path: Path) -> None:
    watcher = Leases(LocalFiles(tmp_path), ttl=1.2)
    with Leases(LocalFiles(tmp_path), ttl=1.2, stalled_seconds=2.2) as holder:
        attempt = holder.survey(["a"]).free[0]
        assert holder.acquire(attempt)
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            assert watcher.survey(["a"]).must_wait
            time.sleep(0.05)
        until = time.monotonic() + 20  # it does not move any more: a hung call
        while watcher.survey(["a"]).must_wait:
            assert time.monotonic() < until, "a worker that hangs keeps its lease for ever"
            time.sleep(0.05)
        holder.moved()
        assert watcher.survey(["a"]).free[0].number == 1


def _hold(place: Path, key: str, ready: "multiprocessing.Queue[int]") -> None:
    leases = Leases(LocalFiles(place))
    attempt = leases.survey(["a"]).free[0]
    assert leases.acquire(attempt)
    leases.mark(attempt, key)
    ready.put(attempt.number)
    time.sleep(60)


def _die_holding(place: Path, key: str) -> int:
    context = multiprocessing.get_context("fork")
    ready = context.Queue()
    process = context.Process(target=_hold, args=(place, key, ready))
    process.start()
    number = ready.get(timeout=30)
    assert Leases(LocalFiles(place)).survey(["a"]).must_wait
    os.kill(process.pid or 0, signal.SIGKILL)
    until = time.monotonic() + 10
    while Leases(LocalFiles(place)).survey(["a"]).must_wait:  # a zombie until it is waited for, and dead all the same
        assert time.monotonic() < until
        time.sleep(0.01)
    process.join()
    return number


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once_and_names_its_suspect(tmp_path: Path) -> None:
    suspect, other = "aa" * 16, "bb" * 16
    assert [_die_holding(tmp_path, key) for key in (suspect, other, "", suspect)] == [0, 1, 2, 3]
    (attempt,) = Leases(LocalFiles(tmp_path)).survey(["a"]).free
    assert (attempt.number, attempt.deaths) == (4, 4)
    assert dict(attempt.died_alone) == {suspect: 2, other: 1}


def test_the_end_of_a_worker_hands_back_what_it_holds_and_leaves_what_it_abandoned(tmp_path: Path) -> None:
    with Leases(LocalFiles(tmp_path)) as leases:
        for attempt in leases.survey(["a", "b"]).free:
            assert leases.acquire(attempt)
        leases.abandon(leases.survey([]) and attempt)
    assert names(LocalFiles(tmp_path)) == ["b-0"]


def test_every_writing_of_a_lease_has_bytes_of_its_own(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    leases = Leases(files)
    attempt = leases.survey(["a"]).free[0]
    assert leases.acquire(attempt)
    seen = {files.read(attempt.name)}
    for _ in range(3):
        leases.mark(attempt, "")
        seen.add(files.read(attempt.name))
    assert len(seen) == 4  # an object store may use a digest of them as the tag


DAMAGES = {"empty": b"", "cut": b'{"machine": "x', "binary": b"\xff\0", "list": b"[1]", "deep": b"[" * 100_000}


@pytest.mark.parametrize("data", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_lease_is_waited_for_and_then_dead(tmp_path: Path, clock: Clock, data: bytes) -> None:
    (tmp_path / "claims/tasks").mkdir(parents=True)
    (tmp_path / "claims/tasks/a-0").write_bytes(data)
    (tmp_path / "claims/tasks/a-x").write_bytes(data)  # not a lease
    leases = Leases(LocalFiles(tmp_path), ttl=5)
    assert leases.survey(["a"]).must_wait
    clock.now += 6
    (attempt,) = leases.survey(["a"]).free
    assert (attempt.number, attempt.deaths, dict(attempt.died_alone)) == (1, 1, {})


def test_a_lease_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("a file where a folder should be")
    leases = Leases(LocalFiles(tmp_path))
    with pytest.raises(CacheError, match="cannot be written"):
        leases.acquire(leases.survey(["a"]).free[0])


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def test_a_lease_that_is_finished_by_another_thread_during_a_survey_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LocalFiles(tmp_path)
    leases = Leases(files)
    (attempt,) = leases.survey(["a"]).free
    assert leases.acquire(attempt)
    is_taken = Leases._is_taken

    def look_then_finish(*given) -> bool:  # type: ignore[no-untyped-def]
        found = is_taken(*given)
        leases.finish(attempt)
        return found

    monkeypatch.setattr(Leases, "_is_taken", look_then_finish)
    assert leases.survey(["a"]).free == []
    assert names(files) == []
