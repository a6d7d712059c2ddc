"""Leases: who embeds which task. They keep two workers from the same work and carry no correctness.

``claims/tasks/<task>-<n>`` is attempt n at a task: created once, written again as a heartbeat, removed when the task
is committed or handed back. A lease whose tag stands still for ``ttl`` seconds of the watcher's own clock belongs to a
dead worker, as does one whose process is seen to be gone from this machine. It stays, so that the next attempt knows
that one died, and on which sequence if it had said so.
"""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from embedcache.errors import CacheError
from embedcache.store.disk import disk_errors
from embedcache.store.files import Files
from embedcache.store.processes import is_gone, this_process
from embedcache.store.status import FileStatus

__all__ = ["STALLED_SECONDS", "TTL_SECONDS", "Attempt", "Leases", "Survey"]

FOLDER = "claims/tasks"
TTL_SECONDS = 60.0
STALLED_SECONDS = 900.0
"""A worker whose batches have not moved for so long, a hung GPU call for one, stops its heartbeat."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task."""

    task: str
    number: int
    deaths: int
    """Earlier attempts whose worker died."""
    died_alone: Mapping[str, int]
    """By key of a sequence: workers that died while they embedded nothing else."""

    @property
    def name(self) -> str:
        """File of the lease."""
        return f"{FOLDER}/{self.task}-{self.number}"


@dataclass(frozen=True, slots=True)
class Survey:
    """Who works on what, at one moment."""

    free: list[Attempt]
    """Next attempts at the tasks that nobody works on, in the order of the tasks."""
    must_wait: bool
    """Others work on some of the tasks that were asked for."""
    crowded: bool
    """Others work in this store, on these tasks or on those of another build."""


@dataclass(slots=True)
class _Seen:
    """What a watcher knows of a lease since its tag last changed."""

    tag: str
    since: float
    body: dict[str, Any]


@dataclass(slots=True)
class Leases:
    """The leases of one worker, and its view of those of others. A context manager: its heartbeat runs within.

    Leases that are held at its end are handed back: work that ends with an error is no death.

    Attributes:
        files: Of the store.
        ttl: Seconds after which a lease without heartbeat is dead.
        stalled_seconds: After so long without ``moved`` or ``mark`` the heartbeat stops.
    """

    files: Files
    ttl: float = TTL_SECONDS
    stalled_seconds: float = STALLED_SECONDS
    _held: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _moved: float = field(default_factory=time.monotonic)

    def __enter__(self) -> "Leases":
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        with suppress(OSError, CacheError):  # a lease that cannot be removed dies by itself
            self.files.remove(self._held)
        self._held.clear()

    def survey(self, tasks: Iterable[str]) -> Survey:
        """Look at the leases of all workers."""
        found: dict[str, dict[int, FileStatus]] = {}
        held = set(self._held)  # once, for a task may be committed and its lease forgotten while this runs
        for name, status in self.files.statuses(FOLDER).items():
            task, _, number = name.removeprefix(f"{FOLDER}/").rpartition("-")
            if number.isdigit():
                found.setdefault(task, {})[int(number)] = status
        busy = {task for task, attempts in found.items() if self._is_taken(task, attempts, held)}
        free, must_wait = [], False
        for task in tasks:
            numbers = found.get(task, {})
            names = [f"{FOLDER}/{task}-{number}" for number in numbers]
            if task in busy:
                must_wait = True
            elif held.isdisjoint(names):
                marks = Counter(str(mark) for name in names if (mark := self._seen[name].body.get("alone")))
                free.append(Attempt(task, max(numbers, default=-1) + 1, len(numbers), marks))
        return Survey(free, must_wait, bool(busy))

    def _is_taken(self, task: str, attempts: Mapping[int, FileStatus], held: set[str]) -> bool:
        """Whether a living worker other than this one holds a task."""
        names = {f"{FOLDER}/{task}-{number}": status.tag for number, status in attempts.items()}
        dead = [self._is_dead(name, tag) for name, tag in names.items() if name not in held]
        return not all(dead) and len(dead) == len(names)

    def _is_dead(self, name: str, tag: str) -> bool:
        seen, now = self._seen.get(name), time.monotonic()
        if seen is None or seen.tag != tag:
            seen = self._seen[name] = _Seen(tag, now, self._read(name))
        return now - seen.since > self.ttl or is_gone(seen.body)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            body = json.loads(self.files.read(name))
        except (FileNotFoundError, ValueError, RecursionError):  # removed meanwhile, or torn by a power cut
            return {}
        return body if isinstance(body, dict) else {}

    def acquire(self, attempt: Attempt) -> bool:
        """Begin an attempt. False if another worker was first."""
        body = {**this_process(), "nonce": secrets.token_hex(8), "alone": "", "beat": 0}
        with self._lock, disk_errors(self.files.place):
            created = self.files.create(attempt.name, _encode(body), lasting=False)
            # an object store may have made our lease and lost its answer
            if not created and self._read(attempt.name).get("nonce") != body["nonce"]:
                return False
            self._held[attempt.name] = body
            self._moved = time.monotonic()
        return True

    def mark(self, attempt: Attempt, key: str) -> None:
        """Say that this sequence, and no other, is being embedded: if the worker dies now, it is the suspect."""
        self.moved()
        with self._lock, disk_errors(self.files.place):
            self._held[attempt.name]["alone"] = key
            self._write(attempt.name)

    def moved(self) -> None:
        """Say that the work goes on; without it the heartbeat stops after a while."""
        self._moved = time.monotonic()

    def hand_back(self, attempt: Attempt) -> None:
        """End an attempt that did not finish: no failure, another may begin."""
        self._drop([attempt.name], attempt.name)

    def finish(self, attempt: Attempt) -> None:
        """End an attempt whose task is committed, and forget those before it."""
        self._drop([f"{FOLDER}/{attempt.task}-{number}" for number in range(attempt.number + 1)], attempt.name)

    def abandon(self, attempt: Attempt) -> None:
        """Leave an attempt as a killed worker would: it counts as a death."""
        with self._lock:
            del self._held[attempt.name]

    def _drop(self, names: Iterable[str], held: str) -> None:
        with self._lock, disk_errors(self.files.place):  # no heartbeat may write a lease again that was removed
            self._held.pop(held, None)
            self.files.remove(names)

    def _write(self, name: str) -> None:
        """Write a lease again, never with the bytes of before: some tags are a digest of them."""
        body = self._held[name]
        body["beat"] += 1
        self.files.replace(name, _encode(body), lasting=False)

    def _beat(self) -> None:
        while not self._over.wait(self.ttl / 4):
            if time.monotonic() - self._moved > self.stalled_seconds:
                continue
            with self._lock:
                for name in self._held:
                    try:
                        self._write(name)
                    except (OSError, CacheError):  # the lease may die: work is done twice, and nothing worse
                        break


def _encode(body: Mapping[str, Any]) -> list[bytes]:
    return [json.dumps(body).encode()]
