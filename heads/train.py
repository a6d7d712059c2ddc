"""Training one run: opened, gone on with from its checkpoint, and finished in a directory of its own.

Training that was killed goes on to the same numbers, bit for bit, on the same device with as many threads.
"""

import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedcache.errors import EmbedCacheError
from embedcache.interrupt import StoppedError, stop_requests
from embedcache.place import Place, parse_place
from embedcache.sequences import Modality
from heads.checkpoint import CheckpointError, read_tensors, write_tensors
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.directory import RunDirectory
from heads.finetune.setup import Start, describe_tuning, open_tuned
from heads.finetune.start import no_better_than_start, score_start
from heads.fit import deterministic, fit
from heads.inference import choose_device
from heads.memory import memory_told
from heads.run import Run
from heads.setup import Study, describe, open_study
from heads.team import Alone, find_team
from heads.text import how_again, three

__all__ = ["DivergedError", "TrainResult", "finish", "resume", "save", "train", "validation_loss"]


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
    note: str = ""
    """A sentence for the user; empty where nothing is to be said."""

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {three(self.validation[name])}" for name in ("r2", "spearman"))
        label = f" [{'; '.join(self.labels)}]" if self.labels else ""
        again = "" if self.computed else " (was finished before; nothing to do)"
        return (
            f"{self.run}: best epoch {self.best_epoch} of {self.epochs}, validation {scores} "
            f"(mean over tissues); {self.stopped}{again}{label}"
            f"{f'{chr(10)}note: {self.note}' if self.note else ''}"
        )


@memory_told("Training")
def train(
    *,
    dataset: Path | str,
    cache: str | Place,
    run: Path | str,
    model: ModelConfig,
    config: TrainConfig,
    encoders: Mapping[Modality, str] | None = None,
    split: SplitConfig | None = None,
    start: Start | None = None,
) -> TrainResult:
    """Train a model on the embeddings of a cache; the same call again goes on, or finds it finished.

    Args:
        dataset: Directory that ``embedcache prepare`` wrote.
        cache: Root of the cache.
        run: Directory of the run, made if it is not there.
        model: What to train.
        config: How.
        encoders: Encoder of a modality by name, or by name and digest, or several joined by ``+`` whose layers are
            mixed; else the dataset's default.
        split: How rows are divided; None as the dataset says.
        start: Which encoders to train with it, and what to begin with; None to train on frozen ones.

    Raises:
        InvalidInputError: The dataset has no targets, or not the modalities.
        SplitError: A gene is in two splits.
        CacheError: A store is missing or lacks sequences.
        CheckpointError: The directory holds another run, or its files are damaged.
        DivergedError: The loss became infinite in the first epoch.
        StoppedError: A signal asked to stop; everything up to the last step is kept.
        NoMemoryLeftError: The model, or a step, does not fit the memory.
    """
    directory, cache, team = RunDirectory(run), parse_place(cache), find_team(config.device)
    team.shards = start is not None and start.shard
    device = team.device or choose_device(config.device)
    study = open_study(Path(dataset), cache, model, encoders, split)
    # before the directory is made: settings that no model can have leave nothing behind
    described: Mapping[str, Any] = describe(study, cache, model, config)
    if start is None:
        trainee = Run(model, config, study=study, device=device)
    else:
        trainee, study = open_tuned(model, config, study=study, device=device, start=start, team=team)
        described = describe_tuning(described, trainee, start)
    with directory.locked() if team.is_first else nullcontext(), deterministic(device):
        described = directory.settle(described) if team.is_first else described
        team.wait()
        resumed = resume(trainee, directory)
        if start is not None and start.frozen is not None and resumed is None:
            score_start(trainee, study, directory, start.frozen, team)
        computed = not (trainee.stopped and directory.model.exists())
        team.wait()  # until all have read what the first one will replace
        if not trainee.stopped:
            _go_on(trainee, study, directory, team)
        trainee.gather_best()
        if team.is_first:
            finish(trainee, directory, described)
    return _result(trainee, directory, described["labels"], resumed=resumed, computed=computed)


def _result(
    run: Run, directory: RunDirectory, labels: Sequence[str], *, resumed: int | None, computed: bool
) -> TrainResult:
    best = run.history[run.best_epoch - 1]
    return TrainResult(
        run=directory.path,
        epochs=run.epoch,
        best_epoch=run.best_epoch,
        validation=best,
        stopped=run.stopped,
        resumed_epoch=resumed,
        computed=computed,
        labels=tuple(labels),
        note=no_better_than_start(directory, best["validation_loss"]),
    )


def _go_on(run: Run, study: Study, directory: RunDirectory, team: Alone) -> None:
    """Train to the end, or until a stop is asked for; one process of a team writes.

    Raises:
        StoppedError: A stop was asked for.
    """
    keep = partial(save, directory=directory, team=team) if team.is_first or team.shards else lambda _: None
    with stop_requests() as stop:
        fit([run], study, keep, stop, quiet=not team.is_first, team=team)
    if not run.stopped:
        said = f"Stopped in epoch {run.epoch + 1} of {directory.path}; everything so far is kept. "
        stop.check(f"{said}Run the same command to go on.")
        raise StoppedError(said, signal.SIGTERM)  # another process of the team was asked


def save(run: Run, directory: RunDirectory, team: Alone | None = None) -> None:
    """Write where a run stands, and its history; of a team, the first process does."""
    state = run.state()
    if team is None or team.is_first:
        write_tensors(directory.checkpoint, *state)
        directory.write_history(run.history)


def resume(run: Run, directory: RunDirectory) -> int | None:
    """Load the checkpoint if there is one; returns the epochs it had done."""
    if not directory.checkpoint.exists():
        return None
    tensors, values = read_tensors(directory.checkpoint)
    try:
        run.load(tensors, values)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{directory.checkpoint} does not fit its config.json: {str(error).splitlines()[0]}. "
            f"{how_again(directory.path)}"
        ) from error
    return run.epoch


def finish(run: Run, directory: RunDirectory, described: Mapping[str, Any]) -> None:
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


def validation_loss(directory: RunDirectory) -> float:
    """Validation loss of the best epoch of a run that has ended; infinite if it diverged at once."""
    _, values = read_tensors(directory.checkpoint)
    best = values["best_epoch"]
    return float(values["history"][best - 1]["validation_loss"]) if best else float("inf")
