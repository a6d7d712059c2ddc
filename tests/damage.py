"""What must come of damage: an error that helps, or exactly what the file says.

A case makes small valid files, damages them at random and reads them. It returns what came of it, and raises
``DefectError`` where damage was accepted in silence or an error is not one line that a user can act on. What files say
is told by rules of its own, written apart from the readers.
"""

import atexit
import functools
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

from damage_bytes import spoil, unpack

from embedcache.errors import EmbedCacheError

T = TypeVar("T")
Outcome = Literal["refused", "unchanged", "counted", "valid"]
"""Refused in one line, or named by ``verify``; read as without damage; read otherwise, and counts or reasons of what
was left out tell so; or read exactly as the damaged file says, which is another valid file: no reader can know that.
"""


class DefectError(AssertionError):
    """Damage that was accepted in silence, or an error that does not help."""


@dataclass
class Case:
    """One damaged input: where it lies, and what was done to it."""

    rng: Random
    folder: Path
    done: list[str] = field(default_factory=list)

    def spoil(self, data: bytes) -> bytes:
        """Damage to the content of a text file, or now and then none."""
        data, done = spoil(self.rng, data)
        self.done += done
        return data

    def place(self, data: bytes, usual: str, folder: Path | None = None) -> Path:
        """Write a file, now and then under an odd name, or put something that is no file in its place."""
        path, kind = place(self.rng, folder or self.folder, data, usual)
        self.done += [kind] if kind else []
        return path

    def refused(self) -> Outcome:
        """An outcome, unless nothing was wrong."""
        require(bool(self.done), "a file without damage was refused")
        return "refused"

    def read(self, is_unchanged: bool, is_counted: bool = False) -> Outcome:
        """An outcome, unless it is other than without damage and nothing was wrong."""
        require(is_unchanged or bool(self.done), "a file without damage was read as another one")
        return "unchanged" if is_unchanged else "counted" if is_counted else "valid"


def attempt(action: Callable[[], T], *names: str) -> T | None:
    """What an action returns, None if it was refused in one good line that has one of ``names``."""
    try:
        return action()
    except EmbedCacheError as error:
        text = str(error)
        if not text.isprintable():
            raise DefectError(f"the error is not one printable line: {text!r}") from error
        if not any(shown(name) in text for name in names):
            raise DefectError(f"the error names none of {names}: {text!r}") from error
        if not re.search(r"\S\. +[A-Z`]", text) or len(text) > 2000:
            raise DefectError(f"the error does not say what to do, or is too long: {text[:2000]!r}") from error
    return None


def shown(name: str) -> str:
    """A file name as it stands in a message: without line ends and other bytes that a terminal would obey."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def require(is_right: bool, message: str) -> None:
    if not is_right:
        raise DefectError(message)


def compare(found: dict[str, T], said: dict[str, T] | None) -> None:
    """What was read must be what the file says; None if nothing may be read from it."""
    if said is None:
        raise DefectError("a file that must be refused was read")
    require(list(found) == list(said), f"the names are {list(found)}, the file says {list(said)}")
    for name, value in found.items():
        require(value == said[name], f"{name!r} was read as {value!r}, the file says {said[name]!r}")


def unpacked(path: Path) -> bytes:
    """What a file that could be read holds."""
    data = unpack(path.read_bytes())
    if data is None:
        raise DefectError("a damaged gzip stream was read")
    return data


@functools.cache
def workshop() -> Path:
    """A folder for what is made once a process and copied for each case; it is removed at the end of the process."""
    made = tempfile.TemporaryDirectory(prefix="damage-")
    atexit.register(made.cleanup)
    return Path(made.name).resolve()


# Damage to paths

NAMES = [
    "in.txt", "in.gz", "a b", "line\nend", "-x", "é", "\x1b[31mred", "q'\"`$(x)", "n" * 250, "\udce9", "a.parquet.txt",
]  # fmt: skip


def place(rng: Random, folder: Path, data: bytes, usual: str) -> tuple[Path, str]:
    """Where a file was written, and what else was put there, if anything."""
    path = folder / (rng.choice(NAMES) if rng.random() < 0.1 else usual)
    if os.path.lexists(path):
        path = folder / usual
    if rng.random() < 0.97:
        path.write_bytes(data)
        return path, ""
    kind = rng.choice(["missing", "directory", "pipe", "loop", "dangling", "device", "below a file", "long"])
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "below a file":
        path.write_bytes(data)
        path /= "x"
    elif kind == "long":
        path = folder / ("n" * 300)
    return path, "no file"


def replace_by_no_file(rng: Random, path: Path) -> None:
    path.unlink()
    kind = rng.choice(["missing", "directory", "loop", "dangling"])
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.symlink_to(path.name if kind == "loop" else "nowhere")
