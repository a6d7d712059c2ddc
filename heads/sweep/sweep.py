"""A sweep from grid to table: cohorts one after the other, trials first where an arm is tuned."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from embedcache.interrupt import StopFlag, stop_requests
from embedcache.place import Place, parse_place
from heads.setup import provenance
from heads.sweep.beforehand import check_runs
from heads.sweep.directory import SweepDirectory
from heads.sweep.grid import Arm, Grid
from heads.sweep.plan import NamedRun, cohorts_of, told_of
from heads.sweep.score import ArmRuns, score_sweep
from heads.sweep.table import format_sweep
from heads.sweep.tuning import Trials, words_of
from heads.sweep.work import Opened, train_cohort
from heads.train import validation_loss

__all__ = ["SweepJob", "SweepResult", "planned_runs", "sweep", "train_sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepJob:
    """A sweep as a value that any worker of it can be sent."""

    grid: Grid
    dataset: Path
    cache: str | Place
    output: Path
    device: str = "auto"
    workers: int = 1
    """How many workers share the cohorts; each may be killed at any time."""

    hide_gpus: bool = False
    """A worker that is given no GPU must see none; the device stays as it is set, for it names the runs."""

    def perform(self) -> bool:
        """What a worker does: train until every run has ended. It leaves the table to the process that asked."""
        if self.hide_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        train_sweep(self, SweepDirectory(self.output))
        return True

    def again(self) -> "SweepJob":
        """The job of a further worker."""
        return self

    def on_cpu(self) -> "SweepJob":
        """The job for a worker that is given no GPU."""
        return replace(self, hide_gpus=True)

    def progress(self) -> dict[str, int]:
        """When each run was last saved."""
        found = (self.output / "runs").glob("*/checkpoint.safetensors")
        return {path.parent.name: path.stat().st_mtime_ns for path in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """The table of a sweep; its text shows it."""

    directory: Path
    table: Mapping[str, Any]

    def __str__(self) -> str:
        return format_sweep(self.table, self.directory)


def sweep(job: SweepJob, *, resamples: int = 2000) -> SweepResult:
    """Train every run of a grid and score all arms; the same call again goes on where it stopped.

    Raises:
        CheckpointError: The directory holds another sweep.
        InvalidInputError: The dataset lacks targets, modalities or test rows.
        CacheError: A store is missing or lacks sequences.
        StoppedError: A signal asked to stop; everything up to the last step is kept.
    """
    directory = SweepDirectory(job.output)
    chosen, opened = train_sweep(job, directory)
    return SweepResult(
        directory=directory.path, table=score_sweep(job.grid, chosen, opened, directory, resamples=resamples)
    )


def train_sweep(job: SweepJob, directory: SweepDirectory) -> tuple[list[ArmRuns], Opened]:
    """Train what other workers of the job do not; ends when all runs have ended, whoever trained them."""
    opened = Opened.open(job.dataset, parse_place(job.cache))
    check_runs(_kinds_of_runs(job), opened)
    directory.settle(_described(job, opened))
    with stop_requests() as stop:
        more = _tune(job, opened, directory, stop) if job.grid.tuning else {}
        chosen = [ArmRuns(arm=arm, runs=dict(_keyed(arm, job, more))) for arm in job.grid.arms]
        _train_all([run for one in chosen for run in one.runs.values()], job, opened, directory, stop, title="sweep")
    directory.write_plan({**_described(job, opened), "arms": [_listed(one, directory) for one in chosen]})
    return chosen, opened


def _train_all(
    runs: Sequence[NamedRun], job: SweepJob, opened: Opened, directory: SweepDirectory, stop: StopFlag, *,
    title: str, predict: bool = True,
) -> None:  # fmt: skip
    """Train all runs, cohort by cohort: first those that nobody trains, then what others left behind."""
    cohorts = cohorts_of(runs, workers=job.workers)
    for wait in (False, True):
        for i, cohort in enumerate(cohorts):
            with directory.claimed(cohort.name, wait=wait) as mine:
                if mine:
                    count = f"{len(cohort.runs)} run{'s' if len(cohort.runs) > 1 else ''}"
                    words = f"{title}, cohort {i + 1} of {len(cohorts)} ({count})"
                    train_cohort(cohort, opened, directory, stop, title=words, predict=predict)
            stop.check(f"Stopped; every run so far is kept in {directory.path}. Run the same command to go on.")


def _tune(
    job: SweepJob, opened: Opened, directory: SweepDirectory, stop: StopFlag
) -> dict[tuple[str, int | None], dict[str, Any]]:
    """Best settings of each arm in each fold."""
    assert job.grid.tuning is not None
    keys = product(job.grid.arms, job.grid.fold_numbers)
    searches = {(arm.name, fold): (arm, Trials(job.grid.tuning)) for arm, fold in keys}
    while True:
        asked = {key: search.ask() for key, (_, search) in searches.items()}
        if not any(asked.values()):
            return {key: search.best() for key, (_, search) in searches.items()}
        runs = {
            key: [_run(searches[key][0], job, job.grid.seeds[0], key[1], more) for more in trials]
            for key, trials in asked.items()
        }
        every = [run for several in runs.values() for run in several]
        _train_all(every, job, opened, directory, stop, title="tuning", predict=False)
        for key, trials in asked.items():
            searches[key][1].tell(trials, [validation_loss(directory.run(run.settings)) for run in runs[key]])


def planned_runs(job: SweepJob) -> list[NamedRun]:
    """Runs of all arms, seeds and folds; where they are tuned, as the first trial has them, and all listed trials."""
    grid = job.grid
    if grid.tuning is None:
        return [run for arm in grid.arms for _, run in _keyed(arm, job, {})]
    tried = grid.tuning.combinations()
    first = {(arm.name, fold): tried[0] for arm, fold in product(grid.arms, grid.fold_numbers)}
    runs = [run for arm in grid.arms for _, run in _keyed(arm, job, first)]
    return runs + (_trials(job, grid.fold_numbers, tried) if grid.tuning.method == "grid" else [])


def _kinds_of_runs(job: SweepJob) -> list[NamedRun]:
    """A run of each kind: those with the first seed, and what a search by Optuna may try."""
    runs = [run for run in planned_runs(job) if run.settings.training.seed == job.grid.seeds[0]]
    if job.grid.tuning is not None and job.grid.tuning.method == "optuna":
        runs += _trials(job, job.grid.fold_numbers[:1], job.grid.tuning.combinations())
    return runs


def _trials(job: SweepJob, folds: Sequence[int | None], tried: Sequence[Mapping[str, Any]]) -> list[NamedRun]:
    return [_run(arm, job, job.grid.seeds[0], fold, more) for arm, fold, more in product(job.grid.arms, folds, tried)]


def _keyed(
    arm: Arm, job: SweepJob, more: Mapping[tuple[str, int | None], dict[str, Any]]
) -> Iterator[tuple[tuple[int, int | None], NamedRun]]:
    for fold in job.grid.fold_numbers:
        for seed in job.grid.seeds:
            yield (seed, fold), _run(arm, job, seed, fold, more.get((arm.name, fold), {}))


def _run(arm: Arm, job: SweepJob, seed: int, fold: int | None, more: Mapping[str, Any]) -> NamedRun:
    words = [arm.name, *([words_of(more)] if more else []), f"seed {seed}", *([] if fold is None else [f"fold {fold}"])]
    with told_of(", ".join(words)):
        settings = arm.settings(seed, fold, job.grid.folds, {"device": job.device, **more})
    return NamedRun(name=", ".join(words), settings=settings)


def _described(job: SweepJob, opened: Opened) -> dict[str, Any]:
    dataset, cache = opened.dataset, parse_place(job.cache)
    return {
        "name": job.grid.name,
        "grid": job.grid.to_json(),
        "dataset": {"path": str(dataset.path.absolute()), "digest": dataset.digest},
        "cache": str(cache.absolute() if isinstance(cache, Path) else cache),
        "labels": list(dataset.labels),
        "software": {**provenance(), "threads": torch.get_num_threads()},
        "arms": [],
    }


def _listed(one: ArmRuns, directory: SweepDirectory) -> dict[str, Any]:
    runs = [
        {"seed": seed, "fold": fold, "directory": str(directory.run(run.settings).path.relative_to(directory.path))}
        for (seed, fold), run in one.runs.items()
    ]
    return {"name": one.arm.name, "settings": dict(one.arm.differs), "runs": runs}
