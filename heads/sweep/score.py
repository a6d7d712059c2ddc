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
from heads.arms import arms_table
from heads.baselines import BASELINES, fit_baseline
from heads.checkpoint import read_tensors
from heads.differential import differential_usage
from heads.model import ExpressionModel
from heads.predictions import read_predictions, write_predictions
from heads.rng import PrivateRng
from heads.scaling import TissueScaler
from heads.splits import unit_of_rows
from heads.sweep.directory import SweepDirectory
from heads.sweep.grid import Arm, Grid
from heads.sweep.plan import NamedRun
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
    folds = {fold: next(run for (_, f), run in chosen[0].runs.items() if f == fold) for fold in grid.fold_numbers}
    rows_of = {fold: opened.divide(run.settings.split)[0]["test"] for fold, run in folds.items()}
    rows = np.sort(np.concatenate(list(rows_of.values())))
    if not len(rows):
        raise InvalidInputError(
            f"{opened.dataset.path} has no measured test row. "
            "Write folds = 5 at the top of the grid, or prepare it with another split."
        )
    split = next(iter(folds.values())).settings.split
    scale = _Scale(opened, rows, rows_of, {fold: opened.divide(run.settings.split)[1] for fold, run in folds.items()})
    predictions = {one.arm.name: _of_arm(one, grid, opened, sweep, scale) for one in chosen}
    lost = {name: kept for name, (_, kept) in predictions.items() if len(kept) < len(grid.seeds)}
    baselines = {name: _of_baseline(name, chosen, opened, sweep, scale) for name in BASELINES}
    units = _numbered(unit_of_rows(opened.dataset, split)[rows])
    genes = _numbered(np.unique(opened.dataset.samples["gene_id"].to_numpy()[rows], return_inverse=True)[1])
    arms = {name: found for name, (found, kept) in predictions.items() if kept}
    scores = arms_table(
        scale.targets, {**arms, **baselines}, units, genes=genes,
        reference=grid.reference if grid.reference in arms else None, resamples=resamples,
    )  # fmt: skip
    by_name = {one.arm.name: one for one in chosen}
    table = {
        "format": "isoheads-sweep-table",
        "version": _VERSION,
        "name": grid.name,
        "labels": _labels(chosen, sweep),
        "unit": "gene" if split.unit == "given" else split.unit,
        "n_transcripts": len(rows),
        "n_groups": int(units.max()) + 1,
        "tissues": opened.dataset.tissues,
        "seeds": list(grid.seeds),
        "folds": grid.folds,
        "resamples": resamples,
        "reference": grid.reference,
        "scored": "test rows of the dataset" if split.unit == "given" else f"{grid.folds or 1} folds by {split.unit}",
        "diverged": {name: sorted(set(grid.seeds) - set(kept)) for name, kept in lost.items()},
        "arms": [
            {
                **one.to_json(),
                **(_about(by_name[one.name], sweep) if one.name in by_name else _BASELINE),
                "differential": _differential(opened, scale, {**arms, **baselines}[one.name], genes),
            }
            for one in scores
        ],
    }
    sweep.write(sweep.table, table)
    return table


_BASELINE: dict[str, Any] = {"kind": "baseline", "settings": {}, "parameters": None, "validation": None, "runs": []}


class _Scale:
    """Targets and predictions of the scored rows on one scale, whatever scale each fold was trained on."""

    def __init__(
        self,
        opened: Opened,
        rows: NDArray[np.int64],
        rows_of: Mapping[int | None, NDArray[np.int64]],
        scalers: Mapping[int | None, TissueScaler],
    ) -> None:
        assert opened.dataset.targets is not None
        self.rows, self.rows_of, self.scalers = rows, rows_of, scalers
        values = opened.dataset.targets.to_numpy(dtype=np.float64)[rows]
        whole = len(scalers) > 1
        self.scaler = TissueScaler.fit(values, opened.dataset.tissues) if whole else next(iter(scalers.values()))
        self.targets: Array = self.scaler.apply(values)

    def together(self, by_fold: Mapping[int | None, Array]) -> Array:
        """Predictions (N, K) of all folds in the order of ``rows``."""
        found = np.empty_like(self.targets)
        for fold, predictions in by_fold.items():
            where = np.searchsorted(self.rows, self.rows_of[fold])
            found[where] = self.scaler.apply(self.scalers[fold].undo(predictions))
        return found


def _of_arm(one: ArmRuns, grid: Grid, opened: Opened, sweep: SweepDirectory, scale: _Scale) -> tuple[Array, list[int]]:
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


def _of_baseline(name: str, chosen: Sequence[ArmRuns], opened: Opened, sweep: SweepDirectory, scale: _Scale) -> Array:
    """Predictions (1, N, K) of a baseline that sees what the arm with the most modalities sees."""
    widest = max(chosen, key=lambda one: len(next(iter(one.runs.values())).settings.model.modalities))
    by_fold = {}
    for fold in scale.rows_of:
        path, rows = sweep.baseline(name, fold), scale.rows_of[fold]
        if not path.exists():
            run = next(run for (_, f), run in widest.runs.items() if f == fold)
            fitted = fit_baseline(name, opened.study(run), rows)
            write_predictions(path, opened.dataset, rows, fitted.predictions, {"alpha": fitted.alpha})
        by_fold[fold] = read_predictions(path, opened.dataset, rows)
    return scale.together(by_fold)[None]


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


def _differential(opened: Opened, scale: _Scale, predictions: Array, genes: NDArray[np.int64]) -> dict[str, Any] | None:
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
