"""Runs and tables of sweeps as pandas frames.

Other files of a run are read without help: ``pd.read_json("history.jsonl", lines=True)``,
``pd.read_parquet("test_predictions.parquet")``; polars has ``read_ndjson`` and ``read_parquet``.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from embedcache.errors import InvalidInputError
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.directory import RunDirectory
from heads.sweep.directory import SweepDirectory

__all__ = ["read_runs", "read_table"]

_SPLIT = {"unit": "split", "seed": "split_seed", "column": "split_column"}
_SCORES = ("r2", "spearman", "r2_pooled", "spearman_pooled")


def read_runs(path: Path | str) -> pd.DataFrame:
    """One row a run: where it is, its settings by flat name, and its scores.

    Columns: ``run`` (directory, relative to ``path``); of a sweep ``arm``; the settings of ``heads train`` by their
    names, ``encoder.dna`` and the like as directories of stores; ``dataset``, ``labels``, ``finished``,
    ``epochs_done``; of the epoch with the lowest validation loss ``best_epoch``, ``train_loss``, ``validation_loss``,
    ``validation_r2``, ...; ``test_r2``, ``test_spearman``, ... where ``heads evaluate`` scored the run. What there is
    not is missing (NaN or None).

    Args:
        path: A sweep, a run, or a folder with runs anywhere below it.

    Raises:
        InvalidInputError: There is no run.
        CheckpointError: A run or a sweep is damaged, or of another version.
    """
    root = Path(path)
    named = list(_planned(root)) if (root / "sweep.json").is_file() else []
    if not named:
        found = sorted(one.parent for one in root.rglob("config.json") if b'"isoheads-run"' in one.read_bytes()[:100])
        named = [(directory, {}) for directory in found]
    rows = [
        {"run": str(directory.relative_to(root)), **told, **_row(RunDirectory(directory))} for directory, told in named
    ]
    if not rows:
        raise InvalidInputError(f"There is no run at {path}. Give a directory of `heads train` or `heads sweep`.")
    return pd.DataFrame(rows)


def read_table(path: Path | str) -> pd.DataFrame:
    """The table of a sweep: a row an arm or baseline, and a column a number.

    Of nested values the names are joined: ``r2_estimate``, ``r2_low``, ``within_gene_r2``, ``validation_loss``,
    ``difference_r2_p_holm``, .... Settings in which an arm differs are ``settings.width`` and the like.

    Args:
        path: A sweep that ``heads sweep`` finished, or its ``table.json``.

    Raises:
        InvalidInputError: There is no table, or the file is damaged.
    """
    file = Path(path)
    file = file / "table.json" if file.is_dir() else file
    if not file.is_file():
        raise InvalidInputError(f"There is no table at {file}. Let `heads sweep` finish; the same command goes on.")
    table = _read_json(file)
    if table.get("format") != "isoheads-sweep-table" or not isinstance(table.get("arms"), list):
        raise InvalidInputError(f"{file} is no table of a sweep. Give the directory that `heads sweep` wrote.")
    return pd.DataFrame([_arm(arm) for arm in table["arms"]])


def _planned(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Directories of the runs of a sweep that have begun, and what its plan says of them."""
    for arm in SweepDirectory(root).read_plan()["arms"]:
        for run in arm["runs"]:
            if (root / run["directory"] / "config.json").is_file():
                yield root / run["directory"], {"arm": arm["name"]}


def _row(directory: RunDirectory) -> dict[str, Any]:
    description = directory.read_config()
    return {
        **_settings(description),
        "dataset": description["dataset"]["path"],
        "labels": "; ".join(description["labels"]),
        "finished": directory.model.exists(),
        **_best(directory.history),
        **_tested(directory.test),
    }


def _settings(description: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flat name, lists as text; those that an older version did not have at what it did."""
    model = ModelConfig.from_json(description["model"]).to_json()
    training = TrainConfig.from_json(description["training"]).to_json()
    split = asdict(SplitConfig.from_json(description.get("split", {})))
    stores = {
        f"encoder.{m}": "+".join(one["directory"] for one in encoder.get("layers", [encoder]))
        for m, encoder in description["encoders"].items()
    }
    return {
        **model,
        "modalities": ",".join(model["modalities"]),
        **training,
        "tissue_weights": ",".join(f"{name}={weight:g}" for name, weight in training["tissue_weights"]),
        **{_SPLIT.get(name, name): value for name, value in split.items()},
        **stores,
    }


def _best(history: Path) -> dict[str, Any]:
    """The epoch with the lowest validation loss."""
    text = history.read_text(encoding="utf-8") if history.is_file() else ""
    try:
        epochs = [json.loads(line) for line in text.splitlines()]
        whole = [one for one in epochs if one["validation_loss"] is not None]
        best = min(whole, key=lambda one: one["validation_loss"], default=None)
        if best is None:
            return {"epochs_done": len(epochs), "best_epoch": None}
        losses = {name: best[name] for name in ("train_loss", "validation_loss")}
        scores = {f"validation_{name}": best[name] for name in _SCORES}
        return {"epochs_done": len(epochs), "best_epoch": best["epoch"], **losses, **scores}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{history} is damaged: {error!r}. Restore it from a copy.") from error


def _tested(test: Path) -> dict[str, Any]:
    """Scores of the run itself among those that ``heads evaluate`` wrote."""
    if not test.is_file():
        return {}
    try:
        overall = _read_json(test)["models"][0]["overall"]
        return {f"test_{name}": overall[name] for name in _SCORES}
    except (KeyError, IndexError, TypeError) as error:
        raise InvalidInputError(f"{test} is damaged: {error!r}. Restore it from a copy.") from error


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Plain numbers and names of an arm; lists, by tissue or by run, are left out."""
    row: dict[str, Any] = {}
    for name, value in arm.items():
        if name == "settings":
            row |= {
                f"settings.{key}": one if not isinstance(one, list) else ",".join(one) for key, one in value.items()
            }
        elif isinstance(value, Mapping):
            row |= {f"{name}_{key}": one for key, one in _arm(value).items()}
        elif not isinstance(value, list):
            row[name] = value
    return row


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{path} holds no table of names and values. Restore it from a copy.")
    return found
