"""Per-tissue z-score of the targets: fitted on measured training cells, undone in every output.

Shapes: N rows, K tissues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError

__all__ = ["TissueScaler"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueScaler:
    """Mean and standard deviation of each tissue over its measured training rows."""

    tissues: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    """Of the population, as scikit-learn's StandardScaler; 1 for a tissue without variation."""
    constant: tuple[str, ...] = ()
    """Tissues without variation in training: predicted by their mean, shown wherever results are."""

    @classmethod
    def fit(cls, targets: Array, tissues: Sequence[str]) -> Self:
        """Measure training rows.

        Args:
            targets: (N, K), training rows only; NaN where not measured.
            tissues: Names of the columns.

        Raises:
            InvalidInputError: A tissue has no measured training row or endless values, or all are constant.
        """
        means, sds, constant = [], [], []
        for name, column in zip(tissues, targets.T, strict=True):
            measured = column[~np.isnan(column)]
            if not len(measured):
                raise InvalidInputError(
                    f"Tissue {name!r} has no measured training row. Leave it out of the targets, or split otherwise."
                )
            with np.errstate(over="ignore", invalid="ignore"):
                sd = float(measured.std())
            if not np.isfinite(sd):
                raise InvalidInputError(
                    f"Tissue {name!r} has training targets too large to scale, up to {np.abs(measured).max():g}. "
                    "Mend the table of targets, prepare again."
                )
            # a column of equal values may have a standard deviation of rounding errors
            if np.ptp(measured) == 0 or sd == 0:
                constant.append(name)
                sd = 1.0
            means.append(float(measured.mean()))
            sds.append(sd)
        if len(constant) == len(means):
            raise InvalidInputError("No tissue varies over the training rows: there is nothing to learn from them.")
        return cls(tissues=tuple(tissues), mean=tuple(means), sd=tuple(sds), constant=tuple(constant))

    def apply(self, targets: Array) -> Array:
        """To the z-scale, (N, K); NaN stays NaN."""
        scaled: Array = (targets - np.asarray(self.mean)) / np.asarray(self.sd)
        return scaled

    def undo(self, scaled: Array) -> Array:
        """Back to the units of the targets, (N, K)."""
        targets: Array = scaled * np.asarray(self.sd) + np.asarray(self.mean)
        return targets

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {name: list(getattr(self, name)) for name in ("tissues", "mean", "sd", "constant")}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; floats come back bit for bit."""
        return cls(**{name: tuple(found[name]) for name in ("tissues", "mean", "sd", "constant")})
