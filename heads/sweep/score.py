"""The table of a sweep: every arm on the test rows, with intervals, beside the baselines.

Shapes: S seeds, N rows, K tissues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError
from embedcache.sequences import MODALITIES
from heads.arms import arms_table
from heads.baselines import BASELINES, fit_baseline
from heads.checkpoint import read_tensors
from heads.differential import differential_usage
from heads.model import ExpressionModel
from heads.predictions import read_predictions, write_predictions
from heads.rng import PrivateRng
from heads.splits import unit_of_rows
from heads.sweep.directory import SweepDirectory
from heads.sweep.grid import Arm, Grid
from heads.sweep.plan import NamedRun
from heads.sweep.scale import Scale
from heads.sweep.work import Opened

__all__ = ["ArmRuns", "score_sweep"]

Array = NDArray[np.float64]
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRuns:
    """An arm and the run of each seed and fold."""

    arm: Arm
    runs: Mapping[tuple[int, int | None], NamedRun]


def score_sweep(
    grid: Grid, chosen: Sequence[ArmRuns], opened: Opened, sweep: SweepDirectory, *, resamples: int
) -> dict[str, Any]:
    """Score all arms and baselines on the same rows and resamples, and write ``table.json``.

    With folds, each row is predicted by the run that had not seen its gene, and all rows are scored together, on the
    z-scale of all of them; else on the z-scale of the training rows.

    Raises:
        InvalidInputError: There is no measured test row.
    """
    scale = _open_scale(grid, chosen, opened)
    predictions = {one.arm.name: _of_arm(one, grid, opened, sweep, scale) for one in chosen}
    found = {name: arm for name, (arm, kept) in predictions.items() if kept}
    n_seeds = max((len(arm) for arm in found.values()), default=1)
    for name in BASELINES:  # the same for every seed, so that they are paired with each
        one = _of_baseline(name, chosen, opened, sweep, scale)
        found[name] = np.broadcast_to(one, (n_seeds, *one.shape))
    units = _numbered(unit_of_rows(opened.dataset, scale.split)[scale.rows])
    genes = _numbered(np.unique(opened.dataset.samples["gene_id"].to_numpy()[scale.rows], return_inverse=True)[1])
    reference = grid.reference if grid.reference in found else None
    scores = arms_table(scale.targets, found, units, genes=genes, reference=reference, resamples=resamples)
    about = {one.arm.name: _about(one, sweep) | {"planted_r2": _planted(one, opened)} for one in chosen}
    different = {name: one if name in about else one[:1] for name, one in found.items()}  # not equal ones again
    arms = [
        {
            **one.to_json(),
            **about.get(one.name, _BASELINE),
            "differential": _differential(opened, scale, different[one.name], genes),
        }
        for one in scores
    ]
    lost = {name: sorted(set(grid.seeds) - set(kept)) for name, (_, kept) in predictions.items()}
    table = {
        "format": "isoheads-sweep-table",
        "version": _VERSION,
        **_described(grid, chosen, opened, sweep, scale),
        "n_groups": int(units.max()) + 1,
        "resamples": resamples,
        "diverged": {name: seeds for name, seeds in lost.items() if seeds},
        "arms": arms,
    }
    sweep.write(sweep.table, table)
    return table


def _described(
    grid: Grid, chosen: Sequence[ArmRuns], opened: Opened, sweep: SweepDirectory, scale: Scale
) -> dict[str, Any]:
    """What was scored, but for the scores."""
    unit = scale.split.unit
    return {
        "name": grid.name,
        "labels": _labels(chosen, sweep),
        "unit": "similarity" if unit == "similarity" else "gene",
        "n_transcripts": len(scale.rows),
        "tissues": opened.dataset.tissues,
        "seeds": list(grid.seeds),
        "folds": grid.folds,
        "reference": grid.reference,
        "scored": "test rows of the dataset" if unit == "given" else f"{grid.folds or 1} folds by {unit}",
    }


def _open_scale(grid: Grid, chosen: Sequence[ArmRuns], opened: Opened) -> Scale:
    """The rows that are scored, and their scale; all arms have the same division of the rows."""
    folds = {fold: next(run for (_, f), run in chosen[0].runs.items() if f == fold) for fold in grid.fold_numbers}
    divided = {fold: opened.divide(run.settings.split) for fold, run in folds.items()}
    rows_of = {fold: rows["test"] for fold, (rows, _) in divided.items()}
    if not sum(map(len, rows_of.values())):
        raise InvalidInputError(
            f"{opened.dataset.path} has no measured test row. "
            "Write folds = 5 at the top of the grid, or prepare it with another split."
        )
    scalers = {fold: scaler for fold, (_, scaler) in divided.items()}
    return Scale(opened.dataset, rows_of, scalers, next(iter(folds.values())).settings.split)


_BASELINE: dict[str, Any] = {
    "kind": "baseline", "settings": {}, "parameters": None, "validation": None, "runs": [], "planted_r2": None
}  # fmt: skip


def _planted(one: ArmRuns, opened: Opened) -> float | None:
    """What a simulated study lets the modalities of an arm explain; None where the truth is not known."""
    reads = next(iter(one.runs.values())).settings.model.modalities
    known: Mapping[str, float] = opened.dataset.info.get("truth", {}).get("explainable_r2", {})
    return known.get("+".join(modality for modality in MODALITIES if modality in reads))


def _of_arm(one: ArmRuns, grid: Grid, opened: Opened, sweep: SweepDirectory, scale: Scale) -> tuple[Array, list[int]]:
    """Predictions (S, N, K), and the seeds whose runs all have a model."""
    found, kept = [], []
    for seed in grid.seeds:
        paths = {fold: sweep.predictions(one.runs[seed, fold].settings) for fold in grid.fold_numbers}
        if not all(path.exists() for path in paths.values()):  # a run that diverged; told in the table
            continue
        kept.append(seed)
        by_fold = {fold: read_predictions(path, opened.dataset, scale.rows_of[fold]) for fold, path in paths.items()}
        found.append(scale.together(by_fold))
    return (np.stack(found) if found else np.zeros((0, *scale.targets.shape))), kept


def _of_baseline(name: str, chosen: Sequence[ArmRuns], opened: Opened, sweep: SweepDirectory, scale: Scale) -> Array:
    """Predictions (N, K) of a baseline that sees what the arm with the most modalities sees."""
    widest = max(chosen, key=lambda one: len(next(iter(one.runs.values())).settings.model.modalities))
    by_fold = {}
    for fold in scale.rows_of:
        path, rows = sweep.baseline(name, fold), scale.rows_of[fold]
        if not path.exists():
            run = next(run for (_, f), run in widest.runs.items() if f == fold)
            fitted = fit_baseline(name, opened.study(run), rows)
            write_predictions(path, opened.dataset, rows, fitted.predictions, {"alpha": fitted.alpha})
        by_fold[fold] = read_predictions(path, opened.dataset, rows)
    return scale.together(by_fold)


def _about(one: ArmRuns, sweep: SweepDirectory) -> dict[str, Any]:
    """What an arm is, how large, and what its runs reached on validation rows."""
    best, runs, parameters = [], [], None
    for (seed, fold), run in one.runs.items():
        directory = sweep.run(run.settings)
        runs.append({"seed": seed, "fold": fold, "directory": str(directory.path.relative_to(sweep.path))})
        if directory.model.exists():
            _, values = read_tensors(directory.checkpoint)
            parameters = parameters or _parameters(run, directory.read_config())
            best.append(values["history"][values["best_epoch"] - 1])
    names = {"r2": "r2", "spearman": "spearman", "loss": "validation_loss"}
    means = {
        new: float(np.mean([np.nan if one[old] is None else one[old] for one in best] or [np.nan]))
        for new, old in names.items()
    }
    return {
        "kind": "arm",
        "settings": dict(one.arm.differs),
        "parameters": parameters,
        "validation": {name: x if np.isfinite(x) else None for name, x in means.items()} if best else None,
        "runs": runs,
    }


def _differential(opened: Opened, scale: Scale, predictions: Array, genes: NDArray[np.int64]) -> dict[str, Any] | None:
    """How well differences of isoform usage between tissues are told; None where they cannot be."""
    if opened.dataset.info.get("target_unit") != "log1p_tpm":
        return None
    undone = scale.scaler.undo(scale.targets), scale.scaler.undo(predictions)
    found = differential_usage(*undone, genes)
    return found.to_json() if found.n_genes else None


def _parameters(run: NamedRun, description: Mapping[str, Any]) -> int:
    """Numbers that are learned."""
    encoders = description["encoders"]
    widths = {m: encoder["width"] for m, encoder in encoders.items()}
    layers = {m: len(encoder.get("layers", [1])) for m, encoder in encoders.items()}
    # made and dropped: a model that is only laid out, on the device "meta", imports the compiler of torch for seconds
    with PrivateRng(0, torch.device("cpu")).active():
        model = ExpressionModel(run.settings.model, widths, len(description["tissues"]), layers)
    return sum(parameter.numel() for parameter in model.parameters())


def _labels(chosen: Sequence[ArmRuns], sweep: SweepDirectory) -> list[str]:
    labels: dict[str, None] = {}
    for one in chosen:
        for run in one.runs.values():
            labels |= dict.fromkeys(sweep.run(run.settings).read_config()["labels"])
    return list(labels)


def _numbered(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same groups numbered 0 .. G - 1."""
    return np.unique(units, return_inverse=True)[1].astype(np.int64)
