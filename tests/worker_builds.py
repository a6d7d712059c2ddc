"""Builds in processes of their own that may be killed, forked from a server that has its imports behind it."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from fakes import FakeEncoder, random_records
from numpy.typing import NDArray

import embedcache.store.leases as leases_module
import embedcache.store.objects  # noqa: F401  here, and not in each worker
from embedcache.build import build_products
from embedcache.errors import EmbedCacheError
from embedcache.place import parse_place
from embedcache.products import Product
from embedcache.store.quarantine import Poisoned

SHARD_BYTES = 1 << 14
TOLD = 5
"""Exit status of a worker that told an error in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A build and what happens in it."""

    place: str
    notes: Path
    """Directory; each worker appends the sequences that it begins to embed to a file of its number."""
    count: int = 300
    longest: int = 60
    workers: int = 3
    pause: float = 0.0
    """Seconds that a batch takes longer."""
    kills: frozenset[str] = frozenset()
    """Sequences that kill the process."""
    raises: frozenset[str] = frozenset()
    """Sequences that the encoder refuses."""
    ttl: float = 60.0
    is_blind: bool = False
    """Deaths are known from silence alone, as of workers on another machine."""
    is_silent: bool = False
    """There is no heartbeat."""
    most_bytes: int | None = None
    """Largest file that the process may write."""
    retry: bool = False


class Notes(FakeEncoder):
    """Writes down what it begins to embed."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        if self.job.most_bytes is None:
            with (self.job.notes / str(os.getpid())).open("a") as file:
                file.write("".join(f"{one}\n" for one in sequences))
        if self.job.kills.intersection(sequences):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.job.pause)
        if wrong := self.job.raises.intersection(sequences):
            raise ValueError(f"no embedding of {len(wrong)} sequences")
        return super().encode(sequences)


def build(job: Job) -> tuple[Poisoned, ...]:
    """Take part in a build until it is done; what was skipped."""
    if job.is_blind:
        leases_module.is_gone = lambda process: False
    if job.is_silent:
        leases_module.Leases._beat = lambda self: None  # type: ignore[method-assign]
    if job.most_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (job.most_bytes, job.most_bytes))
    encoder = Notes(job)
    return build_products(
        random_records(job.count, longest=job.longest),
        encoder,
        [Product(encoder.spec, parse_place(job.place))],
        tokens_per_batch=200,
        shard_bytes=SHARD_BYTES,
        workers=job.workers,
        retry=job.retry,
        ttl=job.ttl,
    ).skipped


def start(job: Job) -> BaseProcess:
    """A worker of this build."""
    job.notes.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    if forkserver._forkserver._forkserver_pid is None:  # type: ignore[attr-defined]
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)
        context.set_forkserver_preload(["worker_builds", "pytest"])
        forkserver.ensure_running()
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    cloud = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    worker = context.Process(target=_work, args=(job, cloud))
    worker.start()
    return worker


def _work(job: Job, cloud: dict[str, str]) -> None:
    os.environ.update(cloud)  # the server may have been started before there was an object store
    try:
        build(job)
    except EmbedCacheError:
        sys.exit(TOLD)  # told by no line: a process that may not write a file may not be able to say so


def begun(notes: Path) -> list[str]:
    """Sequences that all workers began to embed."""
    return [line for file in notes.iterdir() for line in file.read_text().splitlines()]


def run_to_the_end(job: Job, workers: list[BaseProcess], most_restarts: int = 12) -> int:
    """Replace workers that die until all have ended; how often that was."""
    restarts = 0
    while workers:
        worker = workers.pop(0)
        worker.join(60)
        assert worker.exitcode is not None, "a worker does not end"
        if worker.exitcode == -signal.SIGKILL:
            restarts += 1
            assert restarts <= most_restarts, "workers die for ever"
            workers.append(start(job))
        else:
            assert worker.exitcode == 0
    return restarts
