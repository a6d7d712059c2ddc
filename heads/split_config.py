"""How the rows of a dataset are divided for a run: as the dataset says, or anew. Imports nothing slow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from embedcache.errors import InvalidSettingError, UnknownNameError
from heads.checks import MANY, known_fields, within

__all__ = ["SimilarityTool", "SplitConfig", "SplitUnit"]

SplitUnit = Literal["given", "gene", "chromosome", "similarity", "column"]
SimilarityTool = Literal["built-in", "mmseqs", "cd-hit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Which rows a run trains on, chooses its epoch by, and is scored on. A gene is never cut apart."""

    unit: SplitUnit = "given"
    """``given``: the split column of the dataset. Else what stays together: a ``gene``, a ``chromosome``, genes whose
    sequences are alike (``similarity``), or equal values of a ``column``."""
    folds: int = 5
    """Parts of equal size; each is the test set of one run. Not for ``given``."""
    fold: int = 0
    """Which part is the test set, from 0 on."""
    inner_folds: int = 0
    """Parts into which the rest is cut again, for choices made without the test part; 0 does not cut it."""
    inner_fold: int = 0
    """Which of those parts takes the place of the test set."""
    validation_fraction: float = 0.1
    """Share of the transcripts outside the test part, in whole units, for early stopping."""
    seed: int = 0
    """Of the draw of parts."""
    column: str = ""
    """Column of samples.parquet whose equal values stay together."""
    similarity: float = 0.5
    """Share of equal letters, estimated from common k-mers, from which on two proteins keep their genes together; for
    RNAs 0.9 where this is less, for below it repeats that many RNAs contain would join them all."""
    tool: SimilarityTool = "built-in"
    """What finds similar sequences: k-mers shared by gene and sequence, or an installed program."""

    def __post_init__(self) -> None:
        if self.unit not in get_args(SplitUnit):
            raise UnknownNameError("unit of a split", self.unit, get_args(SplitUnit))
        if self.tool not in get_args(SimilarityTool):
            raise UnknownNameError("tool", self.tool, get_args(SimilarityTool))
        within(2, MANY, "folds", self.folds)
        within(0, self.folds - 1, "fold", self.fold)
        if self.inner_folds:
            within(2, MANY, "inner_folds", self.inner_folds)
        within(0, max(self.inner_folds - 1, 0), "inner_fold", self.inner_fold)
        within(0, MANY, "seed", self.seed)
        if self.unit == "given" and (self.fold or self.inner_folds):
            raise InvalidSettingError(
                f"unit is 'given', fold is {self.fold} and inner_folds is {self.inner_folds}. A given split "
                "has no folds: take unit gene, chromosome or similarity."
            )
        if not 0 < self.validation_fraction < 1:
            raise InvalidSettingError(
                f"validation_fraction is {self.validation_fraction}. Give a share above 0 and below 1."
            )
        if not 0 < self.similarity <= 1:
            raise InvalidSettingError(f"similarity is {self.similarity}. Give a share above 0, at most 1.")
        if (self.unit == "column") != bool(self.column):
            raise InvalidSettingError(
                f"unit is {self.unit!r} and column is {self.column!r}. Name a column for unit column only."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``; only the unit where the dataset decides."""
        return asdict(self) if self.unit != "given" else {"unit": "given"}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, in this version or an older one."""
        return cls(**known_fields(cls, found))
