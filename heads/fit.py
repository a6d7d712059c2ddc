"""The training loop: batches are read once and every run of a cohort takes its step on them.

A run alone is a cohort of one. Order of data follows from (data_seed, epoch) alone, each run draws from a random
stream of its own, cuts a batch into parts by what it reads itself, and nobody writes to a batch, so a run ends with
the same numbers in any company.

Shapes: N rows, K tissues.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from embedcache.interrupt import StopFlag
from embedcache.progress import Progress
from heads.data import CachedDataset, Rows, cut, epoch_order, epoch_steps
from heads.pooling import fitting
from heads.resident import keep_resident
from heads.run import Run
from heads.setup import Study
from heads.team import Alone
from heads.text import three

__all__ = ["deterministic", "fit", "predict_cohort"]

_SCALE_ROWS = 4096  # training rows on which the scales of pooled vectors are measured
_ROWS_READ = 64  # rows of tokens that are read, and held as float32, at a time
_SAVE_EVERY_S, _SAVE_SHARE = 2.0, 0.05  # a run is saved as often as that takes a twentieth of its time

Save = Callable[[Run], None]


def fit(
    cohort: Sequence[Run], study: Study, save: Save, stop: StopFlag | bool = False, *, title: str = "train",
    quiet: bool = False, team: Alone | None = None,
) -> None:  # fmt: skip
    """Train runs that share their batches until each has stopped, or a stop is asked for.

    Args:
        cohort: Runs with one data_seed and batch size that all read tokens, or all the same summary of them. Those
            that were resumed may stand at different epochs and steps.
        study: Rows, targets and the sources that the runs name.
        save: Called when a run has stopped, now and then before, and when a stop is asked for.
        stop: Becomes true when the work must end; runs are saved where they stand.
        title: Of the progress bar.
        quiet: Show neither a bar nor lines.
        team: Processes that take shares of every step of a run alone.
    """
    team = team or Alone()
    data = _resident(cohort[0], study.data)
    _measure_scales([run for run in cohort if run.epoch == run.step == 0 and not run.measured], study, data)
    n_rows, timer = len(study.rows["train"]), _SaveTimer(save, team)
    show = _Hidden if quiet else Progress
    with show(n_rows * sum(run.config.epochs for run in cohort), "transcripts", title) as progress:
        progress.update(n_rows * sum(run.epoch for run in cohort))
        lines = _Lines(len(cohort))
        while (left := [run for run in cohort if not run.stopped]) and not team.agree(bool(stop)):
            behind = min((run.epoch, run.step) for run in left)
            active = [run for run in left if (run.epoch, run.step) == behind]
            if not _train_epoch(active, study, data, save=timer, stop=stop, progress=progress, team=team):
                break
            rows = study.rows["validation"]
            with ExitStack() as stack:
                for run in active:
                    stack.enter_context(run.scoring())
                found = team.gather(predict_cohort(active, data, team.share(rows)))
                for run, predictions in zip(active, found, strict=True):
                    run.end_epoch(study.data.targets[rows], predictions)
            for run in active:
                if not quiet:
                    lines.tell(run)
                if run.stopped:
                    timer.save([run])
                    progress.update(n_rows * (run.config.epochs - run.epoch))
            timer.offer([run for run in cohort if not run.stopped])
        timer.save([run for run in cohort if not run.stopped])


def _train_epoch(
    cohort: Sequence[Run], study: Study, data: CachedDataset, *, save: "_SaveTimer", stop: StopFlag | bool,
    progress: Progress, team: Alone,
) -> bool:  # fmt: skip
    """The steps of one epoch that are left. False if a stop was asked for."""
    first = cohort[0]
    steps = epoch_steps(study.rows["train"], first.config, first.epoch, data.lengths)[first.step :]
    in_parts = [_read_together(team.share(step), first) for step in steps]
    batches = data.batches([part for parts in in_parts for part in parts], reads=first.reads, device=first.device)
    measured = ~np.isnan(data.targets)
    for step, parts in zip(steps, in_parts, strict=True):
        n_cells = max(int(measured[step].sum()), 1)
        for run in cohort:
            run.begin_step(team)
        for _ in parts:
            batch = next(batches)
            versions = batch.versions()
            for run in cohort:
                run.accumulate(batch, n_cells)
            assert batch.versions() == versions, "a run wrote to the shared batch"
        for run in cohort:
            run.update(team)
        progress.update(len(step) * len(cohort))
        if team.agree(bool(stop)):
            return False
        save.offer(cohort)
    return True


@torch.no_grad()
def predict_cohort(cohort: Sequence[Run], data: CachedDataset, rows: Rows) -> list[NDArray[np.float64]]:
    """Predictions of each run on the z-scale for some rows, (N, K), from one pass. Draws no random numbers."""
    first = cohort[0]
    parts = [part for step in cut(rows, data.lengths, first.config.batch_size) for part in _read_together(step, first)]
    found: list[list[NDArray[np.float64]]] = [[] for _ in cohort]
    for run in cohort:
        run.set_training(False)
    for batch in data.batches(parts, reads=first.reads, device=first.device):
        for run, mine in zip(cohort, found, strict=True):
            mine += [run.predict(part).cpu().double().numpy() for part in run.parts(batch)]
    for run in cohort:
        run.catch_up()
    empty = np.zeros((0, data.targets.shape[1]))
    return [np.concatenate([empty, *mine]) for mine in found]


@torch.no_grad()
def _measure_scales(cohort: Sequence[Run], study: Study, data: CachedDataset) -> None:
    """Before the first step, from one pass over some training rows."""
    if not cohort:
        return
    first = cohort[0]
    some = epoch_order(study.rows["train"], first.config.data_seed, 0)[:_SCALE_ROWS]
    parts = [part for step in cut(some, data.lengths, first.config.batch_size) for part in _read_together(step, first)]
    with ExitStack() as stack:
        for run in cohort:
            run.set_training(False)
            stack.enter_context(fitting(run.model))
        for batch in data.batches(parts, reads=first.reads, device=first.device):
            for run in cohort:
                run.measure(batch)
        for run in cohort:
            run.catch_up()


def _read_together(step: Rows, run: Run) -> list[Rows]:
    """Rows of a step that are read at a time, which depends on nothing that runs of a cohort may differ in."""
    if run.reads != "tokens":
        return [step]
    return [step[start : start + _ROWS_READ] for start in range(0, len(step), _ROWS_READ)]


def _resident(run: Run, data: CachedDataset) -> CachedDataset:
    """The data with its stores in the memory of the device, where that is asked for, or fits."""
    if run.reads == "tokens":
        data.sources = keep_resident(data.sources, run.device, run.config.resident)
    return data


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU, choose kernels that repeat their results; a warning tells where there is none."""
    if device.type != "cuda":  # the switch imports the compiler of torch, which takes seconds
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


class _Hidden(Progress):
    """Of a training that shows nothing."""

    hidden = True


class _SaveTimer:
    """Saves runs so seldom that saving takes a small share of the time."""

    def __init__(self, save: Save, team: Alone) -> None:
        self._save, self._team = save, team
        self._last, self._wait = time.monotonic(), 0.0  # the first one tells what it costs

    def offer(self, runs: Sequence[Run]) -> None:
        """Save if it is time to; where all have to take part, by the clock of the first process."""
        is_time = time.monotonic() - self._last >= self._wait
        if self._team.agree(is_time and self._team.is_first) if self._team.shards else is_time:
            self.save(runs)

    def save(self, runs: Sequence[Run]) -> None:
        """Save now."""
        started = time.monotonic()
        for run in runs:
            self._save(run)
        self._last = time.monotonic()
        self._wait = max(_SAVE_EVERY_S, (self._last - started) / _SAVE_SHARE)


class _Lines:
    """A line on standard error after an epoch of a run alone, at most one in two seconds; one when a run has ended."""

    def __init__(self, n_runs: int) -> None:
        self.told, self.alone = 0.0, n_runs == 1

    def tell(self, run: Run) -> None:
        if not run.stopped and not (self.alone and time.monotonic() - self.told >= 2):
            return
        self.told, last = time.monotonic(), run.history[-1]
        name = f"{run.name}: " if run.name else ""
        tqdm.write(
            f"{name}epoch {run.epoch}: train loss {three(last['train_loss'])}, "
            f"validation loss {three(last['validation_loss'])}, R2 {three(last['r2'])}, "
            f"Spearman {three(last['spearman'])}; best epoch {run.best_epoch}",
            file=sys.stderr,
        )
