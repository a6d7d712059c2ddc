"""What a sweep will take, before it is begun: cohorts, time from a trial of a few steps, memory."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from embedcache.place import parse_place
from heads.data import CachedDataset, Rows, epoch_steps
from heads.inference import choose_device
from heads.model import count_parameters
from heads.run import Run
from heads.sweep.plan import Cohort, NamedRun, cohorts_of
from heads.sweep.sweep import SweepJob, planned_runs
from heads.sweep.work import Opened, shared_data, source_name
from heads.table import format_table

__all__ = ["CohortEstimate", "SweepEstimate", "estimate_sweep"]

_TRIAL_STEPS = 3  # the first is not counted
_COPIES = 5  # of the weights: themselves, gradients, Adam's two moments, the best epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortEstimate:
    """What one cohort will take."""

    runs: int
    reads: str
    stores: tuple[str, ...]
    rows: int
    """Training rows."""
    tokens_per_epoch: int
    """Tokens that an epoch reads for all runs together; 0 for summaries, which are read once."""
    tokens_once: int
    """Tokens that are read once, to be summarised."""
    seconds_per_epoch: float
    """All runs together, measured on a few steps."""
    most_seconds: float
    """If no run stops early."""
    memory_bytes: int
    """Weights and their copies for all runs, and summaries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEstimate:
    """What a sweep will take. Its text is a table."""

    name: str
    cohorts: tuple[CohortEstimate, ...]
    tuned: bool
    workers: int = 1
    """That share the cohorts."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "tuned": self.tuned,
            "workers": self.workers,
            "cohorts": [asdict(cohort) for cohort in self.cohorts],
        }

    def __str__(self) -> str:
        rows = [["cohort", "runs", "reads", "stores", "tokens an epoch", "s an epoch", "at most", "memory"]]
        for i, one in enumerate(self.cohorts):
            tokens = f"{one.tokens_per_epoch:,}" if one.reads == "tokens" else f"{one.tokens_once:,} once"
            rows.append(
                [
                    str(i + 1), str(one.runs), one.reads, " ".join(one.stores), tokens, f"{one.seconds_per_epoch:.2f}",
                    _duration(one.most_seconds), f"{one.memory_bytes / 2**20:,.0f} MiB",
                ]
            )  # fmt: skip
        total = sum(one.most_seconds for one in self.cohorts)
        text = f"{self.name}: {sum(one.runs for one in self.cohorts)} runs in {len(self.cohorts)} cohorts, at most "
        text += f"{_duration(total)} on this machine by a trial of a few steps; early stopping makes it less."
        if self.workers > 1:
            longest = max(one.most_seconds for one in self.cohorts)
            text += (
                f" {self.workers} workers share the cohorts: at most {_duration(longest)} for the longest, and "
                f"{_duration(max(longest, total / self.workers))} in all, if each has a machine like this one."
            )
        if self.tuned:
            text += " Trials of tuning are counted; a chosen trial is not trained again."
        return f"{format_table(rows)}\n\n{text}"


def estimate_sweep(job: SweepJob) -> SweepEstimate:
    """Estimate a sweep without writing anything.

    Raises:
        InvalidInputError: The dataset lacks targets or modalities.
        CacheError: A store is missing or lacks sequences.
    """
    opened = Opened.open(job.dataset, parse_place(job.cache))
    cohorts = cohorts_of(planned_runs(job), workers=job.workers)
    found = tuple(_estimate(cohort, opened) for cohort in cohorts)
    return SweepEstimate(name=job.grid.name, cohorts=found, tuned=job.grid.tuning is not None, workers=job.workers)


def _estimate(cohort: Cohort, opened: Opened) -> CohortEstimate:
    data = shared_data(cohort.runs, opened)
    device = choose_device(cohort.runs[0].settings.training.device)
    alike: dict[str, list[NamedRun]] = {}
    for run in cohort.runs:  # runs that differ in seeds only take the same time
        model, training = run.settings.model.to_json(), {**run.settings.training.to_json(), "seed": 0}
        alike.setdefault(f"{model} {training} {run.settings.encoders}", []).append(run)
    train = opened.divide(cohort.runs[0].settings.split)[0]["train"]
    per_epoch = most = 0.0
    parameters = 0
    for same in alike.values():
        made = _make(same[0], opened, data, device)
        seconds = _seconds_per_epoch(made, data, train) * len(same)
        per_epoch, most = per_epoch + seconds, most + seconds * made.config.epochs
        parameters += count_parameters(made.model) * len(same)
    tokens = sum(int(source.lengths[train].sum()) for source in data.sources.values())
    every = sum(int(source.lengths.sum()) for source in data.sources.values())
    summaries = 0
    if cohort.reads != "tokens":
        summaries = sum(source.summaries(cohort.reads).nbytes for source in data.sources.values())
    return CohortEstimate(
        runs=len(cohort.runs),
        reads=cohort.reads,
        stores=tuple(data.sources),
        rows=len(train),
        tokens_per_epoch=tokens if cohort.reads == "tokens" else 0,
        tokens_once=every if cohort.reads != "tokens" else 0,
        seconds_per_epoch=per_epoch,
        most_seconds=most,
        memory_bytes=4 * _COPIES * parameters + summaries,
    )


def _make(named: NamedRun, opened: Opened, data: CachedDataset, device: torch.device) -> Run:
    study, settings = opened.study(named, data), named.settings
    inputs = {m: source_name(source) for m, source in study.sources.items()}
    return Run(settings.model, settings.training, study=study, device=device, inputs=inputs)


def _seconds_per_epoch(run: Run, data: CachedDataset, rows: Rows) -> float:
    """Time of an epoch of one run, reading included, from a few steps."""
    steps = epoch_steps(rows, run.config, 0, data.lengths)
    times, started = [], time.perf_counter()
    for batch in data.batches(steps[:_TRIAL_STEPS], reads=run.reads, device=run.device):
        run.accumulate(batch, max(int(batch.measured.sum()), 1))
        run.update()
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        now = time.perf_counter()
        times.append(now - started)
        started = now
    counted = times[1:] or times
    return sum(counted) / len(counted) * len(steps)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
