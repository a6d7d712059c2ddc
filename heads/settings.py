"""Everything that fixes one run, as one value with flat names: what a command line or a grid sets.

Imports nothing slow.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any, Self

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality
from heads.config import ModelConfig, SplitConfig, TrainConfig

__all__ = ["FIELDS", "SPLIT_NAMES", "RunSettings", "wrong_kind"]

SPLIT_NAMES = {
    "split": "unit",
    "folds": "folds",
    "fold": "fold",
    "inner_folds": "inner_folds",
    "inner_fold": "inner_fold",
    "validation_fraction": "validation_fraction",
    "split_seed": "seed",
    "split_column": "column",
    "similarity": "similarity",
    "split_tool": "tool",
}
"""Flat name of each field of ``SplitConfig``."""
_MODEL = tuple(item.name for item in fields(ModelConfig))
_TRAINING = tuple(item.name for item in fields(TrainConfig))
FIELDS: tuple[str, ...] = (*_MODEL, *_TRAINING, *SPLIT_NAMES, *(f"encoder.{m}" for m in MODALITIES))
"""Every name that ``RunSettings.from_flat`` takes."""
_KINDS: dict[str, type] = {
    **{item.name: type(item.default) for cls in (ModelConfig, TrainConfig) for item in fields(cls)},
    **{flat: type(getattr(SplitConfig(), name)) for flat, name in SPLIT_NAMES.items()},
    **{name: str for name in FIELDS if name.startswith("encoder.")},
    "width": int,
    "depth": int,
    "clip": float,
    "max_tokens_per_batch": int,
}
_OPTIONAL = ("width", "depth", "clip", "max_tokens_per_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Model, training, division of the rows, and the encoders to read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    encoders: Mapping[Modality, str] = field(default_factory=dict)
    """Encoder of a modality; the dataset's default where there is none."""

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from names and plain values, as a TOML file holds them.

        An encoder of a modality that the model does not read has no part in them: arms may share a base that names it.

        Args:
            values: Any of ``FIELDS``. Modalities are a list, or one string with commas; ``"none"`` is no limit where
                a setting may be absent; tissue_weights a table of numbers.

        Raises:
            UnknownNameError: A name that is not a setting.
            InvalidSettingError: A value of another kind, or out of range.
        """
        if unknown := [name for name in values if name not in FIELDS]:
            raise UnknownNameError("setting", unknown[0], FIELDS)
        read = {name: _read(name, value) for name, value in values.items()}
        model = ModelConfig(**{name: read[name] for name in _MODEL if name in read})
        return cls(
            model=model,
            training=TrainConfig(**{name: read[name] for name in _TRAINING if name in read}),
            split=SplitConfig(**{name: read[flat] for flat, name in SPLIT_NAMES.items() if flat in read}),
            encoders={m: read[f"encoder.{m}"] for m in model.modalities if f"encoder.{m}" in read},
        )

    def flat(self) -> dict[str, Any]:
        """Values by flat name, without those of encoders."""
        found = {name: getattr(self.model, name) for name in _MODEL}
        found |= {name: getattr(self.training, name) for name in _TRAINING}
        return {**found, **{flat: getattr(self.split, name) for flat, name in SPLIT_NAMES.items()}}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "model": self.model.to_json(),
            "training": self.training.to_json(),
            "split": self.split.to_json(),
            "encoders": dict(self.encoders),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, in this version or an older one."""
        return cls(
            model=ModelConfig.from_json(found["model"]),
            training=TrainConfig.from_json(found["training"]),
            split=SplitConfig.from_json(found["split"]),
            encoders=dict(found["encoders"]),
        )

    def digest(self) -> str:
        """Short name of these settings: equal for equal ones, in any order."""
        return sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]


def _read(name: str, value: Any) -> Any:
    """A plain value as the setting takes it."""
    if name == "modalities":
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
            raise wrong_kind(name, value, 'a list such as ["dna", "rna"], or "dna,rna"')
        return tuple(one.strip() for one in names)
    if name == "tissue_weights":
        if not isinstance(value, Mapping) or not all(_is_number(one) for one in value.values()):
            raise wrong_kind(name, value, "a table such as {Liver = 2.0}")
        return tuple(value.items())
    if name in _OPTIONAL and value == "none":
        return None
    kind = _KINDS[name]
    if kind is float and _is_number(value):
        return float(value)
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes"}
        raise wrong_kind(name, value, words[kind] + (' or "none"' if name in _OPTIONAL else ""))
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def wrong_kind(name: str, value: Any, wanted: str) -> InvalidSettingError:
    """The error of a setting whose value is of another kind than ``wanted`` says."""
    return InvalidSettingError(f"{name} is {value!r}. Give {wanted}.")
