"""Workers as processes of this machine, one a GPU; one that dies is started again."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from embedcache.engines.run import WorkerEnd
from embedcache.errors import EmbedCacheError
from embedcache.interrupt import StopFlag, StoppedError, stop_requests
from embedcache.job import BuildJob, run_job
from embedcache.place import Place
from embedcache.store.files import open_files
from embedcache.store.find import list_stores

__all__ = ["LocalEngine"]

log = logging.getLogger(__name__)

MOST_DEATHS = 6
"""Of workers in a row without a new commit or a new verdict on a sequence between them. A sequence that kills its
worker takes four until it is skipped."""


@dataclass(slots=True)
class _Child:
    number: int
    process: SpawnProcess
    result: Connection


class LocalEngine:
    """See ``Engine``. Workers are spawned, so that none inherits threads, locks or a CUDA context."""

    def run(self, job: BuildJob, *, workers: int) -> Iterator[WorkerEnd]:
        """Start workers and yield how each ended, in the order of their ends.

        Raises:
            StoppedError: A signal asked to stop; all workers have committed what they had and are gone.
        """
        gpus = _gpus(job, workers)
        with stop_requests() as stop:
            first, job = job, replace(job, retry=False)  # one lets sequences be tried again, and only once
            children = [_start(first if number == 0 else job, number, gpus) for number in range(workers)]
            try:
                yield from self._watch(job, children, gpus, stop)
            finally:
                for child in children:
                    child.process.terminate()
                    child.process.join()
        stop.check("Stopped; what was finished is in the cache. Run the same command to go on.")

    def _watch(
        self, job: BuildJob, children: list[_Child], gpus: list[str | None], stop: StopFlag
    ) -> Iterator[WorkerEnd]:
        deaths, before, told = 0, _progress(job), False
        while children:
            if stop and not told:
                told = True
                for child in children:
                    child.process.terminate()  # SIGTERM: it commits what it has
            for ready in wait([child.result for child in children], timeout=0.2):
                child = next(child for child in children if child.result is ready)
                end = _end_of(child)
                children.remove(child)
                if end is not None or stop:
                    yield end or WorkerEnd(None, "stopped")
                    continue
                now = _progress(job)
                deaths, before = (deaths + 1, before) if now == before else (1, now)
                log.warning("worker %d died (%s)", child.number, _death(child.process.exitcode))
                if deaths < MOST_DEATHS:
                    children.append(_start(job, child.number, gpus))
                else:
                    yield WorkerEnd(
                        None, f"{deaths} workers died one after the other ({_death(child.process.exitcode)})"
                    )


def _gpus(job: BuildJob, workers: int) -> list[str | None]:
    """For each worker what CUDA_VISIBLE_DEVICES is to be; None leaves it."""
    if job.device not in ("auto", "cuda") or workers == 1:
        return [None] * workers
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else None
    names = given or [str(i) for i in range(count)]
    return [names[i % count] if count else None for i in range(workers)]


def _start(job: BuildJob, number: int, gpus: list[str | None]) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, gpus[number], theirs))
    process.start()
    theirs.close()
    return _Child(number, process, ours)


def _work(job: BuildJob, gpu: str | None, result: Connection) -> None:
    """The worker process."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        result.send(WorkerEnd(run_job(job)))
    except StoppedError:
        result.send(WorkerEnd(None, "stopped"))
    except EmbedCacheError as error:
        result.send(WorkerEnd(None, str(error)))


def _follow_parent() -> None:
    """Stop cleanly when the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _end_of(child: _Child) -> WorkerEnd | None:
    """What a worker reported; None if it died."""
    try:
        end = child.result.recv()
    except EOFError:
        end = None
    child.process.join()
    assert end is None or isinstance(end, WorkerEnd)
    if end is None and child.process.exitcode == 1:  # its traceback is on standard error: our bug, or the encoder's
        return WorkerEnd(None, "a worker ended with a traceback, see above")
    return end


def _death(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _progress(job: BuildJob) -> dict[Place, int]:
    """Commits and verdicts in the stores of a modality."""
    counts = {}
    for place in list_stores(job.cache, job.modality):
        files = open_files(place)
        counts[place] = len(files.names("commits")) + len(files.statuses("claims/quarantine"))
    return counts
