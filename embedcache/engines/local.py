"""Workers as processes of this machine, one a GPU; one that dies is started again."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from embedcache.engines.run import Job, WorkerEnd
from embedcache.engines.supervise import Lost, supervise, take_part
from embedcache.progress import Progress

__all__ = ["LocalEngine"]


class LocalEngine:
    """See ``Engine``. Workers are spawned, so that none inherits threads, locks or a CUDA context."""

    def run(self, job: Job, *, workers: int) -> Iterator[WorkerEnd]:
        """Start workers and yield how each ended, see ``supervise``."""
        return supervise(_Processes(_gpus(job, workers)), job, workers)


@dataclass(slots=True)
class _Child:
    process: SpawnProcess
    result: Connection
    told: bool = False


@dataclass(slots=True)
class _Processes:
    """See ``Fleet``."""

    gpus: list[str | None]

    def start(self, job: Job, number: int) -> _Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(job, number, self.gpus[number], theirs))
        process.start()
        theirs.close()
        return _Child(process, ours)

    def ended(self, running: Mapping[int, _Child]) -> list[tuple[int, WorkerEnd | Lost]]:
        ready = wait([child.result for child in running.values()], timeout=0.2)
        return [(number, _end_of(child)) for number, child in running.items() if child.result in ready]

    def stop(self, worker: _Child) -> None:
        (worker.process.kill if worker.told else worker.process.terminate)()
        worker.told = True


def _gpus(job: Job, workers: int) -> list[str | None]:
    """For each worker what CUDA_VISIBLE_DEVICES is to be; None leaves it."""
    if job.device not in ("auto", "cuda") or workers == 1:
        return [None] * workers
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else None
    names = given or [str(i) for i in range(count)]
    return [names[i % count] if count else None for i in range(workers)]


def _work(job: Job, number: int, gpu: str | None, result: Connection) -> None:
    """The worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent tells us
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is imported
    Progress.hidden = number > 0  # each worker counts the work of all: one bar is enough
    threading.Thread(target=_follow_parent, daemon=True).start()
    end = take_part(job)
    with suppress(BrokenPipeError):  # the parent was killed: nobody is left to tell
        result.send(end)


def _follow_parent() -> None:
    """Stop cleanly when the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _end_of(child: _Child) -> WorkerEnd | Lost:
    """What a worker reported, or that it died."""
    try:
        end = child.result.recv()
    except (EOFError, ConnectionResetError):
        end = None
    child.process.join()
    child.result.close()
    code = child.process.exitcode
    if end is None and code == 1:  # its traceback is on standard error: our bug, or the encoder's
        return WorkerEnd(None, "a worker ended with a traceback, see above")
    assert end is None or isinstance(end, WorkerEnd | Lost)
    return end or Lost(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}")
