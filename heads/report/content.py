"""What a report shows, whatever it was read from. Anything that is not known is None or empty, and shown as such.

Shapes: K tissues. All scores are on the z-scale of the training rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arm", "Bin", "Calibration", "Curve", "Density", "Difference", "Estimate", "Report", "Spread", "WithinGene"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95% interval."""

    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference of scores, with its interval and p-values where they were computed."""

    estimate: float | None
    low: float | None
    high: float | None
    p: float | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinGene:
    """How well the isoforms of a gene are told apart."""

    r2: float | None
    spearman: float | None
    kendall: float | None
    n_genes: int | None
    n_transcripts: int | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Cells of near predictions: their mean prediction, their mean measured value, how many."""

    predicted: float
    measured: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The line of measured on predicted values, and binned means."""

    slope: float | None
    intercept: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """How one training went, a value an epoch; None where it was not a finite number."""

    name: str
    """Such as ``seed 0``."""
    train_loss: tuple[float | None, ...]
    validation_loss: tuple[float | None, ...]

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the lowest validation loss, from 1 on: the one whose weights were kept."""
        finite = [(loss, i) for i, loss in enumerate(self.validation_loss, start=1) if loss is not None]
        return min(finite)[1] if finite else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Density:
    """Counts of (predicted, measured) cells in squares."""

    counts: NDArray[np.int64]
    """(B, B): rows from low to high measured values, columns from low to high predictions."""
    low: float
    high: float
    """Of both axes."""
    n_cells: int
    n_outside: int
    """Cells beyond the axes, not drawn."""
    source: str
    """Which training and which rows, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and standard deviation of the expression in one tissue, over measured training rows."""

    tissue: str
    mean: float
    sd: float
    constant: bool
    """No variation in training: the standard deviation is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One configuration, or a baseline."""

    name: str
    kind: Literal["arm", "baseline"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    validation: Mapping[str, float | None] = field(default_factory=dict)
    """Scores of the validation rows: r2, spearman, loss."""
    n_seeds: int | None = None
    planted_r2: float | None = None
    """What a simulated study lets the modalities of the arm explain."""
    r2: Estimate | None = None
    spearman: Estimate | None = None
    r2_pooled: float | None = None
    spearman_pooled: float | None = None
    r2_seed_sd: float | None = None
    spearman_seed_sd: float | None = None
    r2_by_tissue: tuple[Estimate, ...] = ()
    """K of them, or none."""
    spearman_by_tissue: tuple[Estimate, ...] = ()
    within_gene: WithinGene | None = None
    calibration: Calibration | None = None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """By metric, as ``Report.difference`` says."""
    difference_seeds: int | None = None
    curves: tuple[Curve, ...] = ()
    density: Density | None = None

    @property
    def is_scored(self) -> bool:
        """Whether test rows were scored."""
        return self.r2 is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is shown."""

    kind: Literal["run", "sweep"]
    name: str
    labels: tuple[str, ...]
    tissues: tuple[str, ...]
    arms: tuple[Arm, ...]
    """In the order of the table, baselines among them."""
    scored: str = ""
    """Which rows were scored, in words; empty if none were."""
    unit: str = "gene"
    """What was resampled."""
    n_transcripts: int | None = None
    n_groups: int | None = None
    seeds: tuple[int, ...] = ()
    folds: int | None = None
    resamples: int | None = None
    reference: str | None = None
    difference: str = ""
    """What the differences are, such as ``arm minus reference``; empty without differences."""
    expression: tuple[Spread, ...] = ()
    expression_unit: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    """More that a reader must know: encoders, rows of each split."""
    lost: tuple[str, ...] = ()
    """Trainings that failed and are in no score, in words."""
    notes: tuple[str, ...] = ()
    """What is missing here and how to get it."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Configuration, data and software, as nested JSON values."""

    @property
    def arms_only(self) -> tuple[Arm, ...]:
        """Without baselines."""
        return tuple(arm for arm in self.arms if arm.kind == "arm")

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Baselines only."""
        return tuple(arm for arm in self.arms if arm.kind == "baseline")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What weakens the numbers: few seeds, few groups."""
        found = list(self.lost)
        counts = {arm.n_seeds for arm in self.arms_only if arm.is_scored and arm.n_seeds is not None}
        if counts == {1}:
            found.append("ONE seed: variation between trainings is not in these intervals.")
        elif 1 in counts:
            names = ", ".join(arm.name for arm in self.arms_only if arm.n_seeds == 1)
            found.append(f"ONE seed only, so that variation between trainings is not in their intervals: {names}.")
        if len(counts) > 1:
            found.append("The arms have different numbers of seeds; each row tells its own.")
        if self.n_groups is not None and self.n_groups < 30:
            found.append(f"Only {self.n_groups} resampled units ({self.unit}): these intervals are rough.")
        return tuple(found)
