"""One build on any engine: start workers, take their ends together."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from embedcache.choices import EngineName
from embedcache.errors import CacheError, InvalidSettingError
from embedcache.job import BuildJob, prepare_job, run_job

if TYPE_CHECKING:
    from embedcache.build import BuildReport

__all__ = ["Engine", "Job", "WorkerEnd", "choose_engine", "one_a_gpu", "run_build"]

log = logging.getLogger(__name__)

ENGINES: dict[EngineName, str] = {
    "local": "embedcache.engines.local:LocalEngine",
    "ray": "embedcache.engines.ray_cluster:RayEngine",
    "slurm": "embedcache.engines.slurm:SlurmEngine",
}


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How one worker ended: with a report when no task was open any more, with an error, or, too late, with neither."""

    report: Any
    """What ``Job.perform`` returned."""
    error: str | None = None


class Job(Protocol):
    """Work that several workers share through a disk, as a value that can be sent to them."""

    @property
    def device(self) -> str:
        """``cpu``, ``cuda``, ``cuda:1`` or ``auto``."""
        ...

    def perform(self) -> Any:
        """What a worker does, until nothing is left to do for any worker; its report."""
        ...

    def again(self) -> Self:
        """The job for every worker but the first, and for one in place of a lost one."""
        ...

    def on_cpu(self) -> Self:
        """The job for a worker that is given no GPU."""
        ...

    def progress(self) -> object:
        """Something that changes when any worker got anything done."""
        ...


class Engine(Protocol):
    """Starts workers. Each performs the job: they share it through a disk and need nothing from the engine."""

    def run(self, job: Job, *, workers: int) -> Iterator[WorkerEnd]:
        """Start workers, start those again that die without an error of their own, and tell how each ended.

        Raises:
            StoppedError: A signal asked to stop; all workers have committed what they had and are gone.
        """
        ...


def run_build(
    job: BuildJob,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    supervised: bool = False,
    options: Mapping[str, str] | None = None,
) -> "BuildReport":
    """Run a build to its end.

    Args:
        job: What to build. ``job.workers`` of it is set to ``workers`` unless it is larger.
        engine: Name of the engine.
        workers: Processes to start; None takes one, or one a GPU.
        supervised: Also a single local worker gets a process of its own, started again when it dies.
        options: For the engine: what submitit or Ray take.

    Returns:
        What the workers did together.

    Raises:
        CacheError: No worker finished.
        EmbedCacheError: What a single worker in this process raises; what no worker could do, see ``prepare_job``.
    """
    chosen, count = choose_engine(engine, options), workers or one_a_gpu(job, engine)
    if engine == "local" and count == 1 and not supervised:
        return run_job(job)
    job = prepare_job(replace(job, workers=max(count, job.workers)))
    ends = list(chosen.run(job, workers=count))
    return _together(ends)


def choose_engine(engine: EngineName, options: Mapping[str, str] | None = None) -> Engine:
    """The engine of a name.

    Args:
        engine: Name of the engine.
        options: What submitit or Ray take.

    Raises:
        InvalidSettingError: Options for the local engine, which takes none.
    """
    given = dict(options or {})
    if engine == "local" and given:
        raise InvalidSettingError(f"The local engine takes no options, found {sorted(given)}. Leave them out.")
    module, _, name = ENGINES[engine].partition(":")
    chosen: Engine = getattr(import_module(module), name)(**({"options": given} if engine != "local" else {}))
    return chosen


def _together(ends: list[WorkerEnd]) -> "BuildReport":
    """One report of all workers. One that finished has seen every task committed, so the others may have failed."""
    reports = [end.report for end in ends if end.report is not None]
    errors = [end.error for end in ends if end.error is not None]
    if not reports:
        raise CacheError(f"none of {len(ends)} workers finished: {errors[0] if errors else 'they all died'}")
    for error in errors:
        log.warning("a worker failed and others did its work: %s", error)
    first: BuildReport = reports[0]
    return replace(
        first,
        computed=sum(report.computed for report in reports),
        tokens=sum(report.tokens for report in reports),
        cropped=max(report.cropped for report in reports),
        skipped=tuple({one.id: one for report in reports for one in report.skipped}.values()),
        seconds=max(report.seconds for report in reports),
    )


def one_a_gpu(job: Job, engine: EngineName) -> int:
    """Workers that the local engine starts if nobody says how many; one of the others."""
    if engine != "local" or job.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count()) if job.device == "auto" else 1
