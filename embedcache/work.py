"""The loop of a worker: take a task that nobody works on, embed it, commit it, until no task is open.

Any number of workers run it on one store at once, started by anything. Each task is committed once whatever happens
to them; leases keep them from doing the same work.
"""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.embedding import DeviceLostError, Embedded, Embedder
from embedcache.interrupt import StopFlag
from embedcache.plan import Plan
from embedcache.products import Product
from embedcache.progress import Progress
from embedcache.store.index import read_records
from embedcache.store.layout import Array
from embedcache.store.leases import Attempt, Leases
from embedcache.store.quarantine import Poisoned, quarantine, quarantined_keys
from embedcache.store.tasks import Task
from embedcache.store.write import commit_task

__all__ = ["Worker", "committed_everywhere"]

DEATHS_ALONE = 3
"""So many workers died while they embedded one sequence and nothing else. Fewer may have been preempted."""


@dataclass(slots=True)
class Worker:
    """One worker on the open tasks of a plan.

    Attributes:
        plan: What is missing, with its letters.
        products: Stores to write; the first one also holds plans and leases.
        tasks: Open tasks.
        leases: Of this worker.
        stop: Asked between batches.
        progress: Counts tokens.
        poll_seconds: How often to look at what others are doing while they hold all that is left.
    """

    plan: Plan
    products: Sequence[Product]
    tasks: Sequence[Task]
    leases: Leases
    stop: StopFlag
    progress: Progress
    poll_seconds: float = 1.0
    computed: int = 0
    """Sequences that this worker embedded."""
    tokens: int = 0
    """Tokens that this worker embedded."""
    _index: dict[bytes, int] = field(init=False)
    _open: dict[str, Task] = field(init=False)
    _given_up: set[int] = field(default_factory=set)
    _there: list[set[bytes]] = field(init=False)
    """For each store the keys that parts of tasks, or builds of other sequences, have committed meanwhile."""
    _records: list[set[str]] = field(init=False)
    """For each store the records whose keys are known, and those of our tasks."""
    _counted: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._index = {key: i for i, key in enumerate(self.plan.keys)}
        self._open = {task.name: task for task in self.tasks}
        self._there = [set() for _ in self.products]
        self._records = [{*self._open, *(one.present.tasks if one.present else ())} for one in self.products]
        self._counted = np.zeros(len(self.plan.keys), bool)

    def run(self, embedder: Embedder) -> None:
        """Work until every task is committed, or a stop is asked for."""
        embedder.give_up = self.give_up
        with self._writer() as write:
            while not self.stop and (attempt := self._take(write)):
                try:
                    done = self._embed(attempt, embedder)
                except DeviceLostError:
                    self.leases.abandon(attempt)  # the sequences may be to blame
                    raise
                write(attempt, done)

    def give_up(self, plan: Plan, index: int, reason: Poisoned) -> None:
        """Keep a sequence that cannot be embedded from being tried again by anybody."""
        quarantine(self.products[0].files, plan.keys[index], reason)
        plan.given_up[plan.keys[index]] = plan.ids[index]
        self._given_up.add(index)
        self._count([index])

    def _count(self, indices: Sequence[int]) -> None:
        """Count sequences as done, each once."""
        fresh = [i for i in indices if not self._counted[i]]
        self._counted[fresh] = True
        self.progress.update(sum(self.plan.lengths[i] for i in fresh))

    def _take(self, write: Any) -> Attempt | None:
        """Begin an attempt at a task; None when all are committed."""
        while not self.stop:
            seen = self.leases.survey(self._open)
            self._forget_committed()  # after the leases: whoever gave one back has committed before
            free = [attempt for attempt in seen.free if attempt.task in self._open]
            if seen.crowded:
                # workers that agree on an order fight for its first task, or embed the same sequences side by side
                # where their builds differ and have tasks of their own
                random.shuffle(free)
            for attempt in free:
                if self.leases.acquire(attempt):  # a name that someone else created a moment ago is not ours
                    if not self._is_committed(attempt.task):  # its last owner may have finished a moment ago
                        return attempt
                    self.leases.finish(attempt)
            if not self._open or not (free or seen.must_wait):
                return None
            if not free:
                write(None, None)
                self.stop.wait(self.poll_seconds * random.uniform(0.5, 1.5))
        return None

    def _is_committed(self, task: str) -> bool:
        return all(product.files.exists(f"commits/{task}") for product in self.products)

    def _forget_committed(self) -> None:
        """Look what others have committed: whole tasks, and sequences of ours in other records."""
        listed = [set(product.files.names("commits")) for product in self.products]
        for name in self._open.keys() & set.intersection(*listed):
            task = self._open.pop(name)
            self._count([self._index[key] for key in task.keys if key in self._index])
        for k, (product, names) in enumerate(zip(self.products, listed, strict=True)):
            if fresh := sorted(names - self._records[k]):
                self._there[k].update(_keys(read_records(product.files, fresh)))
                self._records[k].update(fresh)

    def _is_there(self, key: bytes, k: int) -> bool:
        present = self.products[k].present
        return key in self._there[k] or (present is not None and key in present)

    def _missing(self, task: Task) -> list[int]:
        """The sequences of a task that are still to embed; the others are counted as done."""
        found = [self._index[key] for key in task.keys if key in self._index]
        everywhere = range(len(self.products))
        missing = [i for i in found if not all(self._is_there(self.plan.keys[i], k) for k in everywhere)]
        missing = [i for i in missing if i not in self._given_up]
        self._count(sorted({*found} - {*missing}))
        return missing

    def _embed(self, attempt: Attempt, embedder: Embedder) -> list[Embedded]:
        """The sequences of a task that are missing, alone one by one if a worker has died of them before."""
        if not attempt.deaths:
            return self._run(attempt, embedder, self._missing(self._open[attempt.task]))
        given_up = quarantined_keys(self.products[0].files)  # by a worker that died afterwards
        self._given_up |= {self._index[key] for key in given_up & self._index.keys()}
        indices = self._missing(self._open[attempt.task])
        embedder.alone = True
        try:
            deaths = {i: attempt.died_alone.get(self.plan.keys[i].hex(), 0) for i in indices}
            if suspects := [i for i in indices if deaths[i]]:
                # all others first, and safe before a suspect is tried again
                done = self._run(attempt, embedder, [i for i in indices if not deaths[i]])
                self._commit_rows(done, None, self._rounding())
            indices = [i for i in suspects or indices if not self._is_deadly(i, deaths[i])]
            return self._run(attempt, embedder, indices)
        finally:
            embedder.alone = False

    def _run(self, attempt: Attempt, embedder: Embedder, indices: Sequence[int]) -> list[Embedded]:
        def before(batch: Sequence[int]) -> bool:
            self.leases.moved()
            if embedder.alone and not self.stop:
                self.leases.mark(attempt, self.plan.keys[batch[0]].hex())
            return not self.stop

        done: list[Embedded] = []
        for one in embedder.embed(self.plan, indices, before):
            done.append(one)
            self.computed += 1
            self.tokens += self.plan.lengths[one.index]
            self._count([one.index])
        if embedder.alone:
            self.leases.mark(attempt, "")  # no sequence is to blame for a death while the rows are written
        return done

    def _is_deadly(self, index: int, deaths: int) -> bool:
        if deaths >= DEATHS_ALONE:
            reason = f"{deaths} workers died while they embedded it alone; it may need more memory than there is"
            self.give_up(self.plan, index, Poisoned(self.plan.ids[index], reason))
        return deaths >= DEATHS_ALONE

    @contextmanager
    def _writer(self) -> Iterator[Any]:
        """A function that commits a task in a thread, one at a time; without a task it waits for the last one."""
        pending: list[tuple[Attempt, Future[None]]] = []

        def write(attempt: Attempt | None, done: list[Embedded] | None) -> None:
            if pending:
                pending.pop()[1].result()  # at most one task waits, and a full disk is told at once
            if attempt is not None and done is not None:
                pending.append((attempt, pool.submit(self._commit, attempt, done, self._rounding(), bool(self.stop))))

        with ThreadPoolExecutor(1) as pool:
            yield write
            write(None, None)

    def _rounding(self) -> list[dict[str, Any]]:
        return [product.take_rounding() for product in self.products]

    def _commit(self, attempt: Attempt, done: list[Embedded], extra: list[dict[str, Any]], stopped: bool) -> None:
        """Commit a task, or what there is of it after a stop, and end the attempt."""
        self._commit_rows(done, None if stopped else attempt.task, extra)
        (self.leases.hand_back if stopped else self.leases.finish)(attempt)

    def _commit_rows(self, done: list[Embedded], name: str | None, extra: list[dict[str, Any]]) -> None:
        """Commit sequences to every store, as a whole task or, without a name, as a part that has its own."""
        for k, product in enumerate(self.products):
            rows = [(self.plan.keys[one.index], one.stored[k]) for one in done]
            rows = [pair for pair in rows if not self._is_there(pair[0], k)]
            if rows or name is not None:
                commit_task(product.root, rows, task=name, extra=extra[k])


def _keys(entries: Array) -> list[bytes]:
    """Keys of the entries of records."""
    data = np.stack([entries["high"], entries["low"]], axis=1).astype(">u8").tobytes()
    return [data[i : i + 16] for i in range(0, len(data), 16)]


def committed_everywhere(products: Sequence[Product]) -> set[str]:
    """Names of the tasks that are committed to all stores of a build."""
    return set.intersection(*(set(product.files.names("commits")) for product in products))
