"""Before the first step: the head of a frozen run on live encoders must score what it scored on the cache."""

import json
import sys
from typing import Any

from tqdm import tqdm

from embedcache.store.files import create_file
from heads.checkpoint import CheckpointError, writing
from heads.directory import RunDirectory
from heads.fit import predict_cohort
from heads.metrics import score
from heads.run import Run
from heads.setup import Study
from heads.team import Alone
from heads.text import three
from heads.trained import TrainedRun

__all__ = ["no_better_than_start", "score_start"]

_SCORES = ("r2", "spearman", "r2_pooled", "spearman_pooled")
_FAR = 0.02
"""Relative difference of validation losses that rounding of stores (0.001) and of bfloat16 (0.01) does not explain."""


def score_start(run: Run, study: Study, directory: RunDirectory, frozen: TrainedRun, team: Alone) -> None:
    """Score the validation rows before the first step, keep that in ``start.json`` and tell it; once.

    Processes of a team take a share of the rows each, and the first one writes.

    Raises:
        CheckpointError: The scores are not those of the frozen run: something other than rounding differs.
    """
    if directory.start.exists():
        return
    rows = study.rows["validation"]
    with run.scoring():
        (predictions,) = team.gather(predict_cohort([run], study.data, team.share(rows)))
    found = score(study.data.targets[rows], predictions).to_json()
    now = {"validation_loss": found["mse"], **{name: found[name] for name in _SCORES}}
    before = _best(frozen)
    loss, was = now["validation_loss"], before["validation_loss"]
    if team.is_first:
        tqdm.write(
            f"before the first step: validation loss {three(loss)}, R2 {three(now['r2'])}; "
            f"the run it comes from: {three(was)}, {three(before['r2'])}",
            file=sys.stderr,
        )
    if loss is None or not abs(loss - was) <= _FAR * abs(was):
        raise CheckpointError(
            f"{frozen.directory.path} had validation loss {was:.6g}, its head on live encoders has {three(loss)}: they "
            "are not the encoders of its cache. Check --weights, or build the cache and train the run again."
        )
    if team.is_first:
        text = json.dumps({"format": "isoheads-start", "version": 1, "validation": now, "from": before}, indent=2)
        with writing(directory.start):
            create_file(directory.start, [f"{text}\n".encode()])


def no_better_than_start(directory: RunDirectory, loss: float) -> str:
    """A sentence where a fine-tuning ended with a validation loss over that before its first step; else nothing."""
    if not directory.start.exists():
        return ""
    try:
        before = json.loads(directory.start.read_text(encoding="utf-8"))["validation"]["validation_loss"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory.start} is damaged: {error!r}. Restore it from a copy, or train again in a new directory."
        ) from error
    if loss < before:
        return ""
    return (
        f"no epoch was better than the run it came from (validation loss {three(loss)}, before the first step "
        f"{three(before)}). Lower --learning-rate (of the head) and --encoder-learning-rate, or add --warmup 0.1."
    )


def _best(frozen: TrainedRun) -> dict[str, Any]:
    """Validation scores of the best epoch."""
    try:
        lines = frozen.directory.history.read_text(encoding="utf-8").splitlines()
        found = json.loads(lines[frozen.best_epoch - 1])
        return {name: found[name] for name in ("validation_loss", *_SCORES)}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"{frozen.directory.history} is damaged: {error!r}. Restore it from a copy, or train the run again."
        ) from error
