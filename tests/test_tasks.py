import json
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from embedcache.store.files import LocalFiles
from embedcache.store.tasks import Task, read_plans, settle_tasks

KEYS = [bytes([i]) * 16 for i in range(9)]


def cut_by(size: int):  # type: ignore[no-untyped-def]
    def cut(keys: Collection[bytes]) -> list[list[bytes]]:
        ordered = sorted(keys)
        return [ordered[i : i + size] for i in range(0, len(ordered), size)]

    return cut


def contents(tasks: list[Task]) -> list[tuple[bytes, ...]]:
    return [task.keys for task in tasks]


def test_all_workers_of_some_work_speak_of_the_tasks_of_the_first(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    first = settle_tasks(files, "w", set(KEYS), cut_by(4))
    assert [len(task.keys) for task in first] == [4, 4, 1] and len({task.name for task in first}) == 3
    assert settle_tasks(files, "w", set(KEYS), cut_by(2)) == first
    assert settle_tasks(files, "w", {KEYS[5]}, cut_by(2)) == first[1:2]  # it started later
    assert settle_tasks(files, "w", set(KEYS), cut_by(2), committed=lambda: [first[0].name]) == first[1:]
    assert settle_tasks(files, "w", set(), cut_by(2)) == []
    other = settle_tasks(files, "other", set(KEYS[:3]), cut_by(2))
    assert contents(other) == [tuple(KEYS[:2]), tuple(KEYS[2:3])]


def test_workers_that_start_at_once_settle_on_one_plan(tmp_path: Path) -> None:
    files, found = LocalFiles(tmp_path), list[list[Task]]()
    barrier = threading.Barrier(8)

    def settle(size: int) -> None:
        barrier.wait()
        found.append(settle_tasks(files, "w", set(KEYS), cut_by(size)))

    threads = [threading.Thread(target=settle, args=(1 + i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(tasks == found[0] for tasks in found)


def test_what_is_missing_although_its_task_was_committed_gets_a_new_task_of_another_name(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    first = settle_tasks(files, "w", set(KEYS), cut_by(9))
    done = {task.name for task in first}
    # committed without a sequence that had been given up, which is tried again; then all of them
    for missing in ({KEYS[3]}, set(KEYS)):
        again = settle_tasks(files, "w", missing, cut_by(9), known=done, committed=done.copy)
        assert {key for task in again for key in task.keys} >= missing
        assert done.isdisjoint(task.name for task in again)
        assert settle_tasks(files, "w", missing, cut_by(2), known=done, committed=done.copy) == again
        done |= {task.name for task in again}
    assert len({task.name for tasks in read_plans(files).values() for task in tasks}) == 3


def test_a_withdrawn_commit_opens_its_task_again(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    first = settle_tasks(files, "w", set(KEYS), cut_by(3))
    kept = {task.name for task in first[1:]}
    assert settle_tasks(files, "w", set(first[0].keys), cut_by(1), known=kept, committed=lambda: kept) == first[:1]
    assert len(read_plans(files)) == 1


HEADER = json.dumps({"version": 1, "tasks": [9], "crc32c": 0}).encode() + b"\n"
DAMAGES = {
    "empty": lambda data: b"",
    "cut header": lambda data: data[:20],
    "cut body": lambda data: data[:-16],
    "longer": lambda data: data + b"\0" * 16,
    "flipped bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "other sum": lambda data: HEADER + data.partition(b"\n")[2],
    "counts that are no numbers": lambda data: data.replace(b"[9]", b'["9"]'),
    "counts below zero": lambda data: data.replace(b"[9]", b"[-1, 10]"),
    "counts of truth": lambda data: data.replace(b"[9]", b"[true, 8]"),
    "no end": lambda data: data.replace(b"[9]", b"[1e999]"),
    "list": lambda data: b"[1]\n" + data,
    "deep": lambda data: b"[" * 100_000,
    "binary": lambda data: b"\xff\xfe" * 50,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_plan_is_passed_over(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    files = LocalFiles(tmp_path)
    first = settle_tasks(files, "w", set(KEYS), cut_by(9))
    plan = tmp_path / "claims/plans/w/0"
    damaged = damage(plan.read_bytes())
    assert damaged != plan.read_bytes()
    plan.write_bytes(damaged)
    assert read_plans(files) == {"claims/plans/w/0": []}
    after = settle_tasks(files, "w", set(KEYS), cut_by(9))
    assert contents(after) == contents(first) and settle_tasks(files, "w", set(KEYS), cut_by(1)) == after
    assert sorted(path.name for path in plan.parent.iterdir()) == ["0", "1"]


def test_a_plan_that_is_removed_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    settle_tasks(files, "w", set(KEYS), cut_by(9))
    names = files.names

    def names_then_remove(folder: str) -> list[str]:
        listed = names(folder)
        (tmp_path / "claims/plans/w/0").unlink(missing_ok=True)
        monkeypatch.setattr(files, "names", names)
        return listed

    monkeypatch.setattr(files, "names", names_then_remove)
    tasks = settle_tasks(files, "w", set(KEYS), cut_by(3))
    assert {key for task in tasks for key in task.keys} == set(KEYS)
