"""JSON files that others wrote, read with care: what is missing is None, what is of the wrong kind is one line.

Imports nothing slow.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from embedcache.errors import InvalidInputError

__all__ = ["Part", "read_json", "read_lines"]

_DEEPEST = 40


@dataclass(frozen=True, slots=True)
class Part:
    """A JSON object and where it stands, for the text of errors. A missing entry is as good as null."""

    file: Path
    where: str
    values: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """A finite number, or None; Infinity and NaN are None too."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(name, "a number or null")
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            self.fail(name, "a number or null")

    def whole(self, name: str) -> int | None:
        """A whole number from 0 on, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            self.fail(name, "a whole number or null")
        return value

    def text(self, name: str) -> str | None:
        """A text, or None."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            self.fail(name, "text or null")
        return value

    def name(self, name: str) -> str:
        """A text that has to be there."""
        value = self.text(name)
        return self.fail(name, "text") if value is None else value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty if it is missing."""
        values = self._list(name)
        if not all(isinstance(value, str) for value in values):
            self.fail(name, "a list of texts")
        return tuple(values)

    def numbers(self, name: str) -> tuple[float | None, ...]:
        """A list of numbers or nulls; empty if it is missing."""
        items = Part(self.file, f"{self.where}{name}.", {str(i): value for i, value in enumerate(self._list(name))})
        return tuple(items.number(i) for i in items.values)

    def wholes(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, nulls left out; empty if it is missing."""
        items = Part(self.file, f"{self.where}{name}.", {str(i): value for i, value in enumerate(self._list(name))})
        return tuple(found for i in items.values if (found := items.whole(i)) is not None)

    def part(self, name: str) -> "Part | None":
        """An object, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fail(name, "an object or null")
        return Part(self.file, f"{self.where}{name}.", value)

    def needed(self, name: str) -> "Part":
        """An object that has to be there."""
        found = self.part(name)
        return self.fail(name, "an object") if found is None else found

    def parts(self, name: str) -> "list[Part]":
        """A list of objects; empty if it is missing. A null in it is an object without entries."""
        values = self._list(name)
        if not all(value is None or isinstance(value, dict) for value in values):
            self.fail(name, "a list of objects")
        return [Part(self.file, f"{self.where}{name}[{i}].", value or {}) for i, value in enumerate(values)]

    def plain(self, name: str) -> Mapping[str, Any]:
        """An object of any JSON values, to be shown as it is; empty if it is missing."""
        found = self.part(name)
        return found.values if found else {}

    def fail(self, name: str, expected: str) -> NoReturn:
        """Say what is wrong with an entry.

        Raises:
            InvalidInputError: Always.
        """
        found = json.dumps(self.values[name])[:80] if name in self.values else "missing"
        raise InvalidInputError(
            f"{self.file} is damaged: {self.where}{name} is {found}, expected {expected}. Restore it, or make it again."
        )

    def _list(self, name: str) -> list[Any]:
        values = self.values.get(name)
        if values is None:
            return []
        if not isinstance(values, list):
            self.fail(name, "a list")
        return values


def read_json(path: Path, kind: str, version: int) -> Part:
    """Read one of our JSON files.

    Args:
        path: The file.
        kind: What its entry ``format`` must say.
        version: And its entry ``version``.

    Raises:
        InvalidInputError: It cannot be read, is something else, or of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}. Restore it, or make it again.") from error
    if not _is_shallow(found):
        raise InvalidInputError(
            f"{path} is damaged: it is nested more than {_DEEPEST} deep. Restore it, or make it again."
        )
    if not isinstance(found, dict) or found.get("format") != kind:
        raise InvalidInputError(f"{path} has another content than expected: its format is not {kind!r}.")
    if found.get("version") != version or isinstance(found["version"], bool):
        raise InvalidInputError(
            f"{path} has format version {found.get('version')!r}, this program reads {version}. "
            "Use the release that wrote it."
        )
    return Part(path, "", found)


def read_lines(path: Path) -> Iterator[Part]:
    """Read a file of one JSON object a line; nothing if it is not there.

    Raises:
        InvalidInputError: It cannot be read, or a line is no object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}. Restore it, or train again.") from error
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{path}, line {i}, is damaged: {error}. Restore it, or train again.") from error
        if not isinstance(found, dict) or not _is_shallow(found):
            raise InvalidInputError(f"{path}, line {i}, is no plain JSON object. Restore it, or train again.")
        yield Part(path, f"line {i}: ", found)


def _is_shallow(found: Any) -> bool:
    """Whether what follows can walk through it without a care."""
    level = [found]
    for _ in range(_DEEPEST):
        level = [one for part in level if isinstance(part, dict | list)
                 for one in (part.values() if isinstance(part, dict) else part)]  # fmt: skip
        if not level:
            return True
    return False
