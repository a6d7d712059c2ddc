"""What all engines share: start workers, start those again that are lost, end all when asked to."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from embedcache.engines.run import Job, WorkerEnd
from embedcache.errors import EmbedCacheError
from embedcache.interrupt import StoppedError, stop_at_once, stop_requests

__all__ = ["Fleet", "Lost", "supervise", "take_part"]

log = logging.getLogger(__name__)

MOST_LOST = 6
"""For each worker: so many are lost in a row, without a new commit or a new verdict on a sequence by anybody, until no
more are started. A sequence that kills its worker takes four until it is skipped."""
LAST_SECONDS = 30.0
"""Once a worker found nothing left to do, others that long have time to find so too: one may still wait in a queue."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that died, or was told to stop by somebody else. Another one can go on."""

    how: str


W = TypeVar("W")


class Fleet(Protocol[W]):
    """How an engine starts, watches and stops one worker, W being what it knows of it."""

    def start(self, job: Job, number: int) -> W:
        """Start a worker; ``take_part`` is what it does. A lost one is started again under its number."""
        ...

    def ended(self, running: Mapping[int, W]) -> list[tuple[int, WorkerEnd | Lost]]:
        """Those that ended, by number. Waits for one for a moment, no longer than Ctrl-C may take."""
        ...

    def stop(self, worker: W) -> None:
        """Ask a worker to commit what it has and end; the second time, end it. One that ended already is no error."""
        ...


def supervise(fleet: Fleet[W], job: Job, workers: int) -> Iterator[WorkerEnd]:
    """Run workers until all have ended.

    Yields:
        How each ended, in the order of their ends.

    Raises:
        StoppedError: A signal asked to stop; all workers have committed what they had and are gone.
    """
    running: dict[int, W] = {}
    watch = _Watch(job, MOST_LOST * workers)
    with stop_requests() as stop:
        try:
            for number in range(workers):  # one lets sequences be tried again, and only once
                running[number] = fleet.start(job if number == 0 else job.again(), number)
            while running:
                if watch.must_tell(bool(stop)):
                    for worker in running.values():
                        fleet.stop(worker)
                for number, end in fleet.ended(running):
                    del running[number]
                    if not stop and watch.is_to_be_replaced(number, end):
                        running[number] = fleet.start(job.again(), number)
                    else:
                        yield watch.settle(end)
        finally:
            _end(fleet, running)
    stop.check("Stopped; what was finished is in the cache. Run the same command to go on.")


def _end(fleet: Fleet[W], running: dict[int, W]) -> None:
    """Stop what still runs after an error, or after a second Ctrl-C."""
    for worker in running.values():
        fleet.stop(worker)
    while running:
        for number, _ in fleet.ended(running):
            del running[number]


@dataclass(slots=True)
class _Watch:
    """What is known of a build while its workers run."""

    job: Job
    most: int
    lost: int = 0
    """Workers in a row without progress between them."""
    before: object = None
    done_at: float | None = None
    told: bool = False

    def must_tell(self, stop: bool) -> bool:
        """Whether the workers are to be told to end now, which they are once."""
        late = self.done_at is not None and time.monotonic() - self.done_at > LAST_SECONDS
        if self.told or not (stop or late):
            return False
        self.told = True
        return True

    def is_to_be_replaced(self, number: int, end: WorkerEnd | Lost) -> bool:
        if isinstance(end, WorkerEnd):
            if end.report is not None and self.done_at is None:
                self.done_at = time.monotonic()
            return False
        if self.told or self.done_at is not None:
            return False
        now = self.job.progress()
        self.lost, self.before = (self.lost + 1, now) if now == self.before else (1, now)
        log.warning("worker %d was lost (%s); the report counts what it committed as there before", number, end.how)
        return self.lost < self.most

    def settle(self, end: WorkerEnd | Lost) -> WorkerEnd:
        """How a worker ended for good."""
        if isinstance(end, WorkerEnd):
            return end
        if self.done_at is not None:
            return WorkerEnd(None)  # nothing was left for it
        if self.told:
            return WorkerEnd(None, "stopped")
        return WorkerEnd(None, f"{self.lost} workers were lost one after the other ({end.how})")


def take_part(job: Job) -> WorkerEnd | Lost:
    """What a worker does, in the main thread of a process of its own, which must end with it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
    try:
        with stop_at_once("stopped while the encoder was loaded", once=True):  # later a stop waits for a commit
            return _run(job)
    except StoppedError:
        return Lost("it was told to stop")
    except EmbedCacheError as error:
        return WorkerEnd(None, str(error))


def _run(job: Job) -> WorkerEnd | Lost:
    from embedcache.embedding import DeviceLostError

    try:
        return WorkerEnd(job.perform())
    except DeviceLostError as error:
        return Lost(str(error))  # the next process may use the GPU again
