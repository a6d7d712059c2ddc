"""Scores as plain JSON values: a score that is not defined is null there, and NaN here."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

__all__ = ["from_plain", "to_plain"]


def to_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples become lists and numbers that are not finite null, at any depth."""
    return {name: _plain(x) for name, x in values.items()}


def from_plain(cls: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from what ``to_plain`` made of it: lists become tuples and null NaN.

    Raises:
        KeyError: A field is missing.
    """
    return {item.name: _value(found[item.name]) for item in fields(cls)}


def _plain(x: Any) -> Any:
    if isinstance(x, Mapping):
        return to_plain(x)
    if isinstance(x, tuple | list):
        return [_plain(item) for item in x]
    return None if isinstance(x, float) and not np.isfinite(x) else x


def _value(x: Any) -> Any:
    if isinstance(x, list):
        return tuple(_value(item) for item in x)
    return float("nan") if x is None else x
