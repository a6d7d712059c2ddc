"""One run directory as a report needs it: settings, scaler, how training went. Imports nothing slow."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedcache.errors import InvalidInputError
from heads.report.content import Arm, Curve, Spread
from heads.report.reading import Part, read_json, read_lines

__all__ = ["RunFiles", "open_run"]

RUN_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """A run directory that has been looked into."""

    path: Path
    config: Part
    labels: tuple[str, ...]
    tissues: tuple[str, ...]
    expression: tuple[Spread, ...]
    """Mean and standard deviation of each tissue over training rows: also the z-scale of this run."""
    unit: str
    dataset: Path
    digest: str
    """Of the dataset."""
    seed: int
    epochs: tuple[Part, ...]
    """Lines of the history."""

    @property
    def predictions(self) -> Path:
        """Predictions of the test rows, on the z-scale."""
        return self.path / "test_predictions.parquet"

    @property
    def has_predictions(self) -> bool:
        """Whether they were kept."""
        return self.predictions.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether training came to its end."""
        return (self.path / "model.safetensors").is_file()

    def curve(self, name: str) -> Curve | None:
        """Losses by epoch; None before the first epoch is done."""
        if not self.epochs:
            return None
        train, validation = (
            tuple(epoch.number(key) for epoch in self.epochs) for key in ("train_loss", "validation_loss")
        )
        return Curve(name=name, train_loss=train, validation_loss=validation)

    def complete(self, arm: Arm, runs: Sequence[tuple[str, "RunFiles"]]) -> Arm:
        """An arm with the curves of its runs and, for a single run, its validation scores."""
        curves = tuple(curve for name, run in runs if (curve := run.curve(name or f"seed {run.seed}")))
        if not arm.validation and len(runs) == 1 and curves and (best := curves[0].best_epoch):
            epoch = self.epochs[best - 1]
            scores = {"r2": epoch.number("r2"), "spearman": epoch.number("spearman")}
            arm = replace(arm, validation={**scores, "loss": epoch.number("validation_loss")})
        return replace(arm, curves=curves)

    @property
    def encoders(self) -> tuple[str, ...]:
        """What is read, such as ``rna mini-rna-0123456789ab``."""
        found = self.config.needed("encoders")
        return tuple(f"{modality} {found.needed(modality).text('directory') or '?'}" for modality in found.values)

    @property
    def rows(self) -> str:
        """How many measured rows each part of the data has, in words."""
        rows = self.config.needed("dataset").part("rows")
        counts = [(name, rows.whole(name)) for name in rows.values] if rows else []
        return ", ".join(f"{name} {n:,}" for name, n in counts if n is not None)


def open_run(path: Path) -> RunFiles:
    """Read a run directory.

    Raises:
        InvalidInputError: There is no run, it is of another version, or damaged.
    """
    if not os.path.isfile(path / "config.json"):  # noqa: PTH113 - False for what cannot be looked at
        raise InvalidInputError(f"There is no run at {path}: it has no config.json. Train one with `heads train`.")
    config = read_json(path / "config.json", "isoheads-run", RUN_VERSION)
    dataset = config.needed("dataset")
    return RunFiles(
        path=path,
        config=config,
        labels=config.texts("labels"),
        tissues=config.texts("tissues"),
        expression=_expression(config),
        unit=dataset.text("target_unit") or "unknown",
        dataset=Path(dataset.name("path")),
        digest=dataset.name("digest"),
        seed=config.needed("training").whole("seed") or 0,
        epochs=tuple(read_lines(path / "history.jsonl")),
    )


def _expression(config: Part) -> tuple[Spread, ...]:
    scaler, tissues = config.needed("scaler"), config.texts("tissues")
    means, sds, constant = scaler.numbers("mean"), scaler.numbers("sd"), scaler.texts("constant")
    if scaler.texts("tissues") != tissues or not len(means) == len(sds) == len(tissues):
        scaler.fail("tissues", f"the {len(tissues)} tissues of the run, each with a mean and an sd")
    spreads = []
    for tissue, mean, sd in zip(tissues, means, sds, strict=True):
        if mean is None or sd is None or sd <= 0:
            scaler.fail("sd" if mean is not None else "mean", "finite numbers, the sd above 0")
        spreads.append(Spread(tissue=tissue, mean=mean, sd=sd, constant=tissue in constant))
    return tuple(spreads)
