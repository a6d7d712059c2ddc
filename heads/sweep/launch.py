"""A sweep on any engine: workers train, this process scores."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from embedcache.choices import EngineName
from embedcache.engines.run import choose_engine, one_a_gpu
from embedcache.place import parse_place
from heads.checkpoint import CheckpointError
from heads.sweep.estimate import SweepEstimate, estimate_sweep
from heads.sweep.sweep import SweepJob, SweepResult, sweep

__all__ = ["estimate_launch", "launch_sweep"]


def launch_sweep(
    job: SweepJob,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    options: Mapping[str, str] | None = None,
    resamples: int = 2000,
) -> SweepResult:
    """Train every run of a grid by workers of an engine and score all arms; the same call again goes on.

    Args:
        job: The sweep.
        engine: Name of the engine.
        workers: Processes that share the cohorts; None takes one, or one a GPU.
        options: For the engine: what submitit or Ray take.
        resamples: Draws for the intervals.

    Raises:
        CheckpointError: No worker finished, or the directory holds another sweep.
        EmbedCacheError: See ``sweep``.
    """
    chosen, count = choose_engine(engine, options), workers or one_a_gpu(job, engine)
    if engine == "local" and count == 1:
        return sweep(job, resamples=resamples)
    job = _for_workers(job, count)
    ends = list(chosen.run(job, workers=count))
    errors = [end.error for end in ends if end.error is not None]
    if not any(end.report for end in ends):
        raise CheckpointError(errors[0] if errors else f"none of {len(ends)} workers finished: they all died")
    return sweep(job, resamples=resamples)  # every run has ended: this only scores


def estimate_launch(
    job: SweepJob,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    options: Mapping[str, str] | None = None,
) -> SweepEstimate:
    """What ``launch_sweep`` of the same arguments will take; nothing is written and no worker is started.

    Raises:
        InvalidSettingError: An option that the engine does not have.
        EmbedCacheError: See ``estimate_sweep``.
    """
    choose_engine(engine, options)
    return estimate_sweep(_for_workers(job, workers or one_a_gpu(job, engine)))


def _for_workers(job: SweepJob, workers: int) -> SweepJob:
    """The job with whole paths: a worker of Ray has another directory."""
    cache = parse_place(job.cache)
    return replace(
        job,
        workers=workers,
        output=job.output.absolute(),
        dataset=job.dataset.absolute(),
        cache=cache.absolute() if isinstance(cache, Path) else cache,
    )
