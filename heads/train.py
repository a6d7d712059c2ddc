"""Training: one loop over batches that every run of a cohort takes its step on.

A run alone is a cohort of one. Order of data follows from (data_seed, epoch) alone, each run draws from a random
stream of its own, and nobody writes to a batch, so a run ends with the same numbers in any company. Training that was
killed goes on from its checkpoint to the same numbers, bit for bit, on the same device with as many threads.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from embedcache.errors import EmbedCacheError
from embedcache.interrupt import StopFlag, stop_requests
from embedcache.place import Place, parse_place
from embedcache.progress import Progress
from embedcache.sequences import Modality
from heads.aggregators import what_it_reads
from heads.checkpoint import CheckpointError, read_tensors, write_tensors
from heads.config import ModelConfig, TrainConfig
from heads.data import Rows, cut, epoch_order
from heads.directory import RunDirectory
from heads.inference import choose_device, predict_rows
from heads.run import Run
from heads.setup import Study, describe, open_study

__all__ = ["DivergedError", "TrainResult", "train"]

_SAVE_EVERY_S = 300.0  # within an epoch; a long one is not lost
_SCALE_ROWS = 4096  # training rows on which the scales of pooled vectors are measured


class DivergedError(EmbedCacheError):
    """The loss was no finite number before any epoch could be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How a training ended."""

    run: Path
    epochs: int
    best_epoch: int
    validation: Mapping[str, Any]
    """Scores of the best epoch: validation_loss, r2, spearman, r2_pooled, spearman_pooled, on the z-scale."""
    stopped: str
    """Why it ended."""
    resumed_epoch: int | None
    """Epochs that were done when this call began; None if it began anew."""
    computed: bool
    """False if the run had been finished before and nothing was done."""
    labels: tuple[str, ...]
    """Words that stand beside every result, such as ``simulated``."""

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {_three(self.validation[name])}" for name in ("r2", "spearman"))
        label = f" [{'; '.join(self.labels)}]" if self.labels else ""
        again = "" if self.computed else " (was finished before; nothing to do)"
        return (
            f"{self.run}: best epoch {self.best_epoch} of {self.epochs}, validation {scores} "
            f"(mean over tissues); {self.stopped}{again}{label}"
        )


def train(
    *,
    dataset: Path | str,
    cache: str | Place,
    run: Path | str,
    model: ModelConfig,
    config: TrainConfig,
    encoders: Mapping[Modality, str] | None = None,
) -> TrainResult:
    """Train a model on the embeddings of a cache; the same call again goes on, or finds it finished.

    Args:
        dataset: Directory that ``embedcache prepare`` wrote.
        cache: Root of the cache.
        run: Directory of the run, made if it is not there.
        model: What to train.
        config: How.
        encoders: Encoder of a modality by name, or by name and digest; else the dataset's default.

    Raises:
        InvalidInputError: The dataset has no targets, or not the modalities.
        SplitError: A gene is in two splits.
        CacheError: A store is missing or lacks sequences.
        CheckpointError: The directory holds another run, or its files are damaged.
        DivergedError: The loss became infinite in the first epoch.
        StoppedError: A signal asked to stop; everything up to the last step is kept.
    """
    directory, cache = RunDirectory(run), parse_place(cache)
    device = choose_device(config.device)
    study = open_study(Path(dataset), cache, model, encoders)
    # before the directory is made: settings that no model can have leave nothing behind
    trainee = Run(model, config, widths=study.widths, n_tissues=len(study.dataset.tissues), device=device)
    with directory.locked(), deterministic(device):
        described = directory.settle(describe(study, cache, model, config))
        resumed = _resume(trainee, directory)
        computed = not (trainee.stopped and directory.model.exists())
        if not trainee.stopped:
            with stop_requests() as stop:
                fit([trainee], study, lambda trained: _save(trained, directory), stop)
            if not trainee.stopped:
                stop.check(
                    f"Stopped in epoch {trainee.epoch + 1} of {directory.path}; everything so far is kept. "
                    "Run the same command to go on."
                )
        _finish(trainee, directory, described)
    return TrainResult(
        run=directory.path,
        epochs=trainee.epoch,
        best_epoch=trainee.best_epoch,
        validation=trainee.history[trainee.best_epoch - 1],
        stopped=trainee.stopped,
        resumed_epoch=resumed,
        computed=computed,
        labels=tuple(described["labels"]),
    )


def fit(cohort: Sequence[Run], study: Study, save: Callable[[Run], None], stop: StopFlag | bool = False) -> None:
    """Train runs that share their batches until each has stopped, or a stop is asked for.

    Args:
        cohort: Runs with one data_seed, batch size and token limit, at the same epoch and step, that all read
            tokens or all read means.
        study: What they read.
        save: Called after each epoch of a run, and now and then within long ones.
        stop: Becomes true when the work must end; runs are saved where they stand.
    """
    first = cohort[0]
    if first.epoch == first.step == 0:
        some = epoch_order(study.rows["train"], first.config.data_seed, 0)[:_SCALE_ROWS]
        parts = cut(some, study.data.lengths, first.config.batch_size, first.config.max_tokens_per_batch)
        for run in cohort:
            reads = what_it_reads(run.model.config)
            run.measure_scales(study.data.batches(parts, reads=reads, device=run.device))
    n_rows = len(study.rows["train"])
    with Progress(n_rows * first.config.epochs, "transcripts", "train") as progress:
        progress.update(n_rows * first.epoch)
        lines = _Lines()
        while (active := [run for run in cohort if not run.stopped]) and not stop:
            if not train_epoch(active, study, save=save, stop=stop, progress=progress):
                return
            for run in active:
                end_epoch(run, study)
                save(run)
                lines.tell(run)


def train_epoch(
    cohort: Sequence[Run],
    study: Study,
    *,
    save: Callable[[Run], None],
    stop: StopFlag | bool,
    progress: Progress,
) -> bool:
    """The steps of one epoch that are left. False if a stop was asked for; runs are then saved."""
    first, saved = cohort[0], time.monotonic()
    config = first.config
    order = epoch_order(study.rows["train"], config.data_seed, first.epoch)
    steps = cut(order, study.data.lengths, config.batch_size)[first.step :]
    in_parts = [cut(step, study.data.lengths, config.batch_size, config.max_tokens_per_batch) for step in steps]
    reads, all_parts = what_it_reads(first.model.config), [part for parts in in_parts for part in parts]
    batches = study.data.batches(all_parts, reads=reads, device=first.device)
    measured = ~np.isnan(study.data.targets)
    for step, parts in zip(steps, in_parts, strict=True):
        n_cells = int(measured[step].sum())
        for _ in parts:
            batch = next(batches)
            versions = batch.versions()
            for run in cohort:
                run.accumulate(batch, n_cells)
            assert batch.versions() == versions, "a run wrote to the shared batch"
        for run in cohort:
            run.update()
        progress.update(len(step))
        if stop or time.monotonic() - saved > _SAVE_EVERY_S:
            saved = time.monotonic()
            for run in cohort:
                save(run)
        if stop:
            return False
    return True


def end_epoch(run: Run, study: Study) -> None:
    """Score the validation rows."""
    rows: Rows = study.rows["validation"]
    run.end_epoch(study.data.targets[rows], predict_rows(run.model, study.data, rows, run.config))


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU, choose kernels that repeat their results; a warning tells where there is none."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


class _Lines:
    """A line on standard error after an epoch, at most one in two seconds."""

    def __init__(self) -> None:
        self.told = 0.0

    def tell(self, run: Run) -> None:
        if time.monotonic() - self.told < 2 and not run.stopped:
            return
        self.told, last = time.monotonic(), run.history[-1]
        tqdm.write(
            f"epoch {run.epoch}: train loss {_three(last['train_loss'])}, "
            f"validation loss {_three(last['validation_loss'])}, R2 {_three(last['r2'])}, "
            f"Spearman {_three(last['spearman'])}; best epoch {run.best_epoch}",
            file=sys.stderr,
        )


def _three(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _save(run: Run, directory: RunDirectory) -> None:
    write_tensors(directory.checkpoint, *run.state())
    directory.write_history(run.history)


def _resume(run: Run, directory: RunDirectory) -> int | None:
    """Load the checkpoint if there is one; returns the epochs it had done."""
    if not directory.checkpoint.exists():
        return None
    tensors, values = read_tensors(directory.checkpoint)
    try:
        run.load(tensors, values)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{directory.checkpoint} does not fit its config.json: {str(error).splitlines()[0]}. "
            "Remove the run directory and train again."
        ) from error
    return run.epoch


def _finish(run: Run, directory: RunDirectory, described: Mapping[str, Any]) -> None:
    """Write the best model. A kill just before this is mended by the next call."""
    if not run.best_epoch:
        raise DivergedError(
            f"{directory.path}: {run.stopped} in epoch {run.epoch}, before any model could be kept. "
            f"Choose another run directory and a --learning-rate below {run.config.learning_rate:g}; if that does not "
            "help, embeddings or targets hold values that are no numbers: build the cache again."
        )
    directory.write_history(run.history)
    if not directory.model.exists():
        write_tensors(directory.model, run.best, {"best_epoch": run.best_epoch, "config": described})
