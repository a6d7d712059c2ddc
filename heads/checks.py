"""Checks that settings share. Imports nothing slow."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from numbers import Integral
from typing import Any

from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.sequences import MODALITIES, Modality, check_modality

__all__ = ["LARGEST", "MANY", "in_order", "known_fields", "within"]

LARGEST = 65_536
"""Of a width; such a layer has 16 GiB."""
MANY = 2**63 - 1
"""What torch takes as a seed."""


def within(least: int, most: int, name: str, value: int) -> None:
    """Refuse what is no whole number, or is out of range.

    Raises:
        InvalidSettingError: Says the range.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidSettingError(f"{name} is {value!r}. Give a whole number from {least} to {most:,}.")


def in_order(modalities: Iterable[Modality], what: str) -> tuple[Modality, ...]:
    """Modalities as dna, rna, protein.

    Args:
        modalities: In any order.
        what: Begins the error, such as "Modalities are".

    Raises:
        UnknownNameError: One that there is not.
        InvalidSettingError: None, or one of them twice.
    """
    if isinstance(modalities, str):
        raise InvalidSettingError(f"{what} the text {modalities!r}. Give a list, such as ['rna', 'protein'].")
    chosen = tuple(modalities)
    for name in chosen:
        check_modality(name)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InvalidSettingError(f"{what} {list(chosen)}. Name at least one modality, each once.")
    return tuple(name for name in MODALITIES if name in chosen)


def known_fields(cls: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What was written of a frozen dataclass, by this version or an older one.

    A setting that an older version did not have keeps its default, which is what that version did.

    Raises:
        InvalidInputError: A setting that this version does not know, or one without a default is missing.
    """
    names = {item.name for item in fields(cls)}
    needed = {item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING}
    if different := sorted(set(found) - names | needed - set(found)):
        raise InvalidInputError(
            f"{cls.__name__} of another version: settings {', '.join(different)} are missing or unknown. "
            "Use the release that wrote it."
        )
    return dict(found)
