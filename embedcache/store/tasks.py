"""What one build does, cut into tasks: settled once, so that all its workers speak of the same tasks.

``claims/plans/<work>/<n>`` is created once: a JSON line with the number of sequences of each task, then their keys.
A worker that planned from "what is missing now" would cut other tasks than one that started earlier. Further plans of
the same work come only for sequences that no open task has, such as those of a withdrawn commit.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from embedcache.store.disk import disk_errors
from embedcache.store.files import Files
from embedcache.store.layout import crc32c
from embedcache.store.write import task_name

__all__ = ["Task", "read_plans", "settle_tasks"]

FOLDER = "claims/plans"
KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Task:
    """Sequences that one worker embeds and commits together."""

    name: str
    keys: tuple[bytes, ...]


def settle_tasks(
    files: Files,
    work: str,
    missing: set[bytes],
    cut: Callable[[Collection[bytes]], list[list[bytes]]],
    *,
    known: Collection[str] = (),
    committed: Callable[[], Collection[str]] = tuple,
) -> list[Task]:
    """Open tasks of some work: every missing sequence is in one of them, for every worker that asks.

    Args:
        files: Of the store.
        work: Name of the work, a digest of all that it wants.
        missing: Keys that were to be embedded when the caller looked.
        cut: Cuts keys that have no task yet into tasks.
        known: Tasks that were committed when the caller looked; what is missing all the same is not in them.
        committed: Tells which tasks are committed now.
    """
    while True:
        numbers = sorted(int(name) for name in _names(files, f"{FOLDER}/{work}") if name.isdigit())
        tasks = [task for number in numbers for task in _read_plan(files, f"{FOLDER}/{work}/{number}", number)]
        uncovered = missing.difference(*(task.keys for task in tasks if task.name not in known))
        if not uncovered:
            done = committed()
            return [task for task in tasks if task.name not in done and not missing.isdisjoint(task.keys)]
        number = max(numbers, default=-1) + 1
        with disk_errors(files.place):
            files.create(f"{FOLDER}/{work}/{number}", _write(cut(uncovered)))  # whoever is second reads the first's


def read_plans(files: Files) -> dict[str, list[Task]]:
    """Tasks of every plan, by file name; none of one that is damaged, for a plan is never empty."""
    names = [name for name in files.statuses(FOLDER) if re.fullmatch("[0-9]{1,9}", name.rpartition("/")[2])]
    return {name: _read_plan(files, name, int(name.rpartition("/")[2])) for name in names}


def _read_plan(files: Files, name: str, number: int) -> list[Task]:
    try:
        return _read(files.read(name), number)
    except FileNotFoundError:  # of work that is done: removed since it was listed
        return []


def _names(files: Files, folder: str) -> list[str]:
    try:
        return files.names(folder)
    except FileNotFoundError:
        return []


def _write(tasks: list[list[bytes]]) -> list[bytes]:
    keys = b"".join(key for task in tasks for key in task)
    checksum = crc32c(np.frombuffer(keys, np.uint8))
    return [
        json.dumps({"version": 1, "tasks": [len(task) for task in tasks], "crc32c": checksum}).encode(),
        b"\n",
        keys,
    ]


def _read(data: bytes, number: int) -> list[Task]:
    """Tasks of a plan; none of one that is damaged, for what they would hold is planned again."""
    head, _, body = data.partition(b"\n")
    try:
        header = json.loads(head)
        counts, checksum = list(header["tasks"]), header["crc32c"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    are_counts = all(type(count) is int and count > 0 for count in counts)
    if not are_counts or sum(counts) * KEY_BYTES != len(body) or checksum != crc32c(np.frombuffer(body, np.uint8)):
        return []
    return list(_cut(body, counts, number))


def _cut(body: bytes, counts: list[int], number: int) -> Iterator[Task]:
    # a later plan may hold the very keys of a task that was committed without them
    salt = [number.to_bytes(KEY_BYTES, "big")] if number else []
    start = 0
    for count in counts:
        stop = start + count * KEY_BYTES
        keys = tuple(body[i : i + KEY_BYTES] for i in range(start, stop, KEY_BYTES))
        yield Task(task_name([*keys, *salt]), keys)
        start = stop
