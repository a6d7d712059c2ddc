"""Whether predictions mean what they say: measured values against predicted ones.

Shapes: N rows, K tissues, S trainings with different seeds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.plain import to_plain

__all__ = ["Bin", "Calibration", "calibrate"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Cells with similar predictions."""

    predicted: float
    """Mean of the predictions."""
    measured: float
    """Mean of what was measured there; equal to ``predicted`` if predictions are calibrated."""
    n: int
    """Cells, each counted once a training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Least squares of measured on predicted values, and means of both in bins of the predictions."""

    slope: float
    """1 if calibrated, below 1 if predictions are spread too widely; NaN if they are all equal."""
    intercept: float
    """0 if calibrated."""
    bins: tuple[Bin, ...]
    """From small to large predictions, of about equal size; equal predictions are never parted."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined ones are null."""
        return to_plain(asdict(self))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        slope, intercept = (float("nan") if found[name] is None else found[name] for name in ("slope", "intercept"))
        return cls(slope=slope, intercept=intercept, bins=tuple(Bin(**item) for item in found["bins"]))


def calibrate(targets: Array, predictions: Array, *, bins: int = 10) -> Calibration:
    """Measured values against predictions, over all measured cells of all tissues and trainings together.

    Trainings are not averaged first: their mean is another model, and errs less.

    Args:
        targets: (N, K), NaN where not measured.
        predictions: (N, K) or (S, N, K), in the units of the targets.
        bins: Quantiles of the predictions; fewer come back where many predictions are equal.
    """
    measured = ~np.isnan(targets)
    p = predictions.reshape(-1, *targets.shape)[:, measured]  # (S, cells)
    y = np.broadcast_to(targets[measured], p.shape).ravel()
    p = p.ravel()
    if not len(p):
        return Calibration(slope=float("nan"), intercept=float("nan"), bins=())
    centred = p - p.mean()
    variation = float(centred @ centred)
    slope = float(centred @ y) / variation if variation > 1e-12 * len(p) else float("nan")
    edges = np.unique(np.quantile(p, np.arange(1, bins) / bins))
    chosen = np.searchsorted(edges, p)  # a prediction equal to an edge falls below it
    n, predicted, observed = (np.bincount(chosen, weights, len(edges) + 1) for weights in (None, p, y))
    rows = zip(n.tolist(), predicted.tolist(), observed.tolist(), strict=True)
    return Calibration(
        slope=slope,
        intercept=float(y.mean() - slope * p.mean()),
        bins=tuple(Bin(predicted=a / count, measured=b / count, n=int(count)) for count, a, b in rows if count),
    )
