"""Parameters of ``HeadRegressor``: of what kind they are, and their names in errors that commands share."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from embedcache.errors import EmbedCacheError, InvalidSettingError
from embedcache.sequences import check_modality
from heads.checks import MANY, within
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.settings import FIELDS, wrong_kind

__all__ = ["check_parameters", "parameters_named"]

_ENCODER = re.compile(r"--encoder (dna|rna|protein)=([^\s,]+?)(?=[.,]?(?:\s|$))")
_OPTION = re.compile(r"--([a-z][a-z-]*)")


@contextmanager
def parameters_named() -> Iterator[None]:
    """Name parameters in errors where a command has options; whole commands, which stand in backticks, stay."""
    try:
        yield
    except EmbedCacheError as error:
        parts = str(error).split("`")
        error.args = ("`".join(part if i % 2 else _in_python(part) for i, part in enumerate(parts)),)
        raise


def _in_python(text: str) -> str:
    def named(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return "encoders" if name == "encoder" else name if name in FIELDS else found[0]

    return _OPTION.sub(named, _ENCODER.sub(r"encoders={'\1': '\2'}", text))


def check_parameters(values: Mapping[str, Any]) -> None:
    """Refuse parameters of a wrong kind, which settings of a command cannot have, or that do not go together.

    Args:
        values: Of all parameters, by name.

    Raises:
        InvalidSettingError: Names the parameter.
        UnknownNameError: ``blocks`` or ``encoders`` name something that is no modality.
    """
    for name, default in _DEFAULTS.items():
        value = values[name]
        if type(default) is bool and not isinstance(value, bool | np.bool_):
            raise wrong_kind(name, value, "True or False")
        if type(default) is float and not _is_number(value):
            raise wrong_kind(name, value, "a number")
        if type(default) is str and not isinstance(value, str):
            raise wrong_kind(name, value, "a text")
    if values["clip"] is not None and not _is_number(values["clip"]):
        raise wrong_kind("clip", values["clip"], "a number or None")
    within(0, MANY, "split_seed", values["split_seed"])
    _check_places(values)
    modalities = values["modalities"]
    if modalities is not None and (isinstance(modalities, str) or not isinstance(modalities, Iterable)):
        raise wrong_kind("modalities", modalities, "a sequence such as ('dna', 'rna')")
    _check_weights(values["tissue_weights"])
    _check_by_modality("blocks", values["blocks"], "columns by modality, such as {'rna': 768}", _is_count)
    _check_by_modality("encoders", values["encoders"], "names by modality, such as {'rna': 'nt-v2-250m'}", _is_text)


_DEFAULTS = {item.name: item.default for cls in (ModelConfig, TrainConfig) for item in fields(cls)} | {
    "validation_fraction": SplitConfig().validation_fraction
}


def _check_places(values: Mapping[str, Any]) -> None:
    """What is read: rows of a dataset from its cache, or blocks of an array."""
    if (dataset := values["dataset"]) is None:
        if values["cache"] is not None or values["encoders"] is not None:
            raise InvalidSettingError(
                "cache or encoders is given without dataset. Give the dataset whose rows X names."
            )
        return
    if not isinstance(dataset, str | os.PathLike):
        raise wrong_kind("dataset", dataset, "the path of its directory")
    if values["cache"] is None:
        raise InvalidSettingError("dataset is given and cache is None. Give the cache that its rows are read from.")
    if values["blocks"] is not None:
        raise InvalidSettingError("dataset and blocks are both given. Give blocks for arrays of embeddings only.")


def _check_weights(weights: Any) -> None:
    try:
        fine = not isinstance(weights, str | Mapping) and all(
            isinstance(name, str) and _is_number(weight) for name, weight in weights
        )
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise wrong_kind("tissue_weights", weights, "pairs such as (('Liver', 2.0),)")


def _check_by_modality(name: str, values: Any, wanted: str, is_fine: Callable[[Any], bool]) -> None:
    if values is None:
        return
    if not isinstance(values, Mapping) or not values or not all(map(is_fine, values.values())):
        raise wrong_kind(name, values, f"{wanted}, or None")
    for modality in values:
        check_modality(modality)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
