import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedcache.errors import CacheError
from embedcache.store.files import LocalFiles
from embedcache.store.holders import find_holders, guess_clock, living_holders, place_clock
from embedcache.store.leases import Attempt, Leases
from embedcache.store.processes import this_process


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


def lease(files: LocalFiles, name: str, age_seconds: float = 0.0, **body: object) -> None:
    files.create(f"claims/tasks/{name}", [json.dumps(body).encode()])
    then = time.time() - age_seconds
    os.utime(files.place / "claims" / "tasks" / name, (then, then))


def alive(files: LocalFiles) -> set[str]:
    return {one.name.rpartition("/")[2] for one in living_holders(files)}


def test_a_process_of_this_machine_lives_as_long_as_it_runs(files: LocalFiles) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        code = f"import json; from embedcache.store import processes as p; print(json.dumps(p._identity({other.pid})))"
        found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        lease(files, "hung-0", age_seconds=3 * 86_400, **json.loads(found))  # silent for days, but it runs
        assert alive(files) == {"hung-0"}
        other.kill()
        other.wait()
        assert alive(files) == set()


def test_of_other_machines_only_silence_is_known(files: LocalFiles) -> None:
    elsewhere = {"machine": "another", "pid": 1, "start": "1"}
    lease(files, "talks-0", age_seconds=20, **elsewhere)
    lease(files, "silent-0", age_seconds=3000, **elsewhere)
    assert alive(files) == {"talks-0"}


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_a_torn_lease_is_one_that_says_nothing(files: LocalFiles, body: bytes) -> None:
    files.create("claims/tasks/torn-0", [body])
    assert alive(files) == {"torn-0"}  # written just now, by whomever
    os.utime(files.place / "claims" / "tasks" / "torn-0", (0, 0))
    assert alive(files) == set()


def test_several_leases_of_one_process_are_one_worker(files: LocalFiles) -> None:
    with Leases(files) as leases:
        for i in range(3):
            leases.acquire(Attempt(f"task-{i}", i, 0, {}))
        found = living_holders(files)
        assert {one.task for one in found} == {"task-0", "task-1", "task-2"} and len({one.worker for one in found}) == 1
        assert str(this_process()["pid"]) in found[0].worker
    assert living_holders(files) == []


def test_age_is_told_by_the_clock_of_the_place(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    lease(files, "talks-0", machine="another", pid=1, start="1")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # ours has jumped
    assert alive(files) == {"talks-0"} and place_clock(files) < 4e9


def test_one_who_only_looks_needs_no_right_to_write(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    lease(files, "talks-0", machine="another", pid=1, start="1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFiles, "replace", refuse)
    with pytest.raises(CacheError, match="Permission denied"):
        place_clock(files)
    assert [one.is_alive for one in find_holders(files, guess_clock(files))] == [True]
