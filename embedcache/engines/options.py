"""Options of an engine: what users wrote, as values of the kinds that the engine knows."""

from collections.abc import Callable, Mapping
from typing import Any

from embedcache.errors import InvalidSettingError

__all__ = ["number", "read_options", "text", "whole_number"]

Kind = Callable[[str], Any]


def read_options(engine: str, given: Mapping[str, str], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Values of the options given.

    Args:
        engine: Name of the engine, for errors.
        given: Options by name, as written.
        kinds: For each option that there is, what reads it: ``text``, ``number`` or ``whole_number``.

    Raises:
        InvalidSettingError: No such option, or a value of another kind.
    """
    for name in given:
        if name not in kinds:
            raise InvalidSettingError(
                f"the {engine} engine has no option {name!r}. Its options are {', '.join(sorted(kinds))}."
            )
    values = {}
    for name, value in given.items():
        try:
            values[name] = kinds[name](value)
        except ValueError as error:
            wanted = "a whole number" if kinds[name] is whole_number else "a number"
            raise InvalidSettingError(
                f"--engine-option {name}={value}: expected {wanted} of 0 or more. Write {name}=1, for one."
            ) from error
    return values


def text(value: str) -> str:
    """Any text."""
    return value


def whole_number(value: str) -> int:
    """A count; raises ValueError for anything else."""
    found = int(value)
    if found < 0:
        raise ValueError(value)
    return found


def number(value: str) -> float:
    """A finite number of 0 or more; raises ValueError for anything else."""
    found = float(value)
    if not 0 <= found < float("inf"):
        raise ValueError(value)
    return found
