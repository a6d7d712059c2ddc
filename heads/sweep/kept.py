"""What an earlier call left of a run of a sweep: whether it can be built on, and what is told where it cannot."""

import logging
from pathlib import Path

from heads.checkpoint import CheckpointError, read_tensors
from heads.directory import RunDirectory
from heads.text import how_again

__all__ = ["check_files", "drop_damaged_model", "has_ended"]

log = logging.getLogger(__name__)


def check_files(run: RunDirectory) -> None:
    """Refuse a directory whose files are there in part; an empty one is a run that has not begun.

    Raises:
        CheckpointError: Names the file that was lost.
    """
    found = {path.name for path in run.path.iterdir() if not path.name.startswith(".")} if run.path.exists() else set()
    needed = (run.config, run.checkpoint) if run.model.name in found else (run.config,)
    lost = [path.name for path in needed if path.name not in found]
    if found and lost:
        raise CheckpointError(f"{run.path} has lost its {lost[0]}. {how_again(run.path)}")


def has_ended(run: RunDirectory, predictions: Path | None) -> bool:
    """Whether nothing is left to do for a run. Its model is read, for files change after they were written.

    Args:
        run: Of the sweep.
        predictions: What it must have left besides its model; None for a trial.

    Raises:
        CheckpointError: A file that is needed was lost.
    """
    if not run.model.exists() or (predictions is not None and not predictions.exists()):
        return False
    check_files(run)
    return _is_whole(run.model)


def drop_damaged_model(run: RunDirectory) -> None:
    """Remove a model that is damaged, where the checkpoint of the run is whole: it has the same weights."""
    if run.model.exists() and not _is_whole(run.model):
        log.warning("%s is damaged and is written again from %s.", run.model, run.checkpoint.name)
        run.model.unlink()


def _is_whole(path: Path) -> bool:
    try:
        read_tensors(path)
    except CheckpointError:
        return False
    return True
