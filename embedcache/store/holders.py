"""Who works on a store right now, as its leases tell; and what time it is by the clock that stamps its files."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import CacheError
from embedcache.store.files import Files
from embedcache.store.leases import FOLDER
from embedcache.store.processes import is_gone, this_process

__all__ = ["Holder", "find_holders", "guess_clock", "living_holders", "place_clock"]

ALIVE_SECONDS = 300.0
"""A lease that was written so lately belongs to a worker that lives; a heartbeat comes every 15 seconds."""
NAME = re.compile(rf"{FOLDER}/(?P<task>.+)-[0-9]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Holder:
    """A lease, and whether its worker lives."""

    name: str
    """File of the lease."""
    task: str
    age_seconds: float
    is_alive: bool
    """Seen to run on this machine, or, if it runs elsewhere, heard of lately."""
    worker: str
    """What tells its process from all others; one may hold several leases."""


def find_holders(files: Files, now: float) -> list[Holder]:
    """All leases of a store.

    Args:
        files: Of the store.
        now: Seconds since 1970 by the clock of the place, see ``place_clock``.
    """
    found = []
    for name, status in files.statuses(FOLDER).items():
        if match := NAME.fullmatch(name):
            body, age = _read(files, name), now - status.modified
            runs_here = body.get("machine") == this_process().get("machine", "") and not is_gone(body)
            is_alive = runs_here or (age < ALIVE_SECONDS and not is_gone(body))
            known = [str(body[part]) for part in ("machine", "pid", "start") if part in body]
            found.append(Holder(name, match["task"], age, is_alive, " ".join(known) or name))
    return found


def living_holders(files: Files) -> list[Holder]:
    """The leases whose workers live."""
    if not files.statuses(FOLDER):
        return []  # nothing is written where nobody works: the disk may be read-only
    return [one for one in find_holders(files, place_clock(files)) if one.is_alive]


def _read(files: Files, name: str) -> dict[str, Any]:
    try:
        body = json.loads(files.read(name))
    except (FileNotFoundError, ValueError, RecursionError):  # removed meanwhile, or torn by a power cut
        return {}
    return body if isinstance(body, dict) else {}


def guess_clock(files: Files) -> float:
    """As ``place_clock``; where nothing can be written, which is no error of one who only looks, our own clock."""
    try:
        return place_clock(files)
    except CacheError:
        return time.time()


def place_clock(files: Files) -> float:
    """Now, by the clock that stamps the files of this place: of a file server it is not ours, and ours may jump.

    Raises:
        CacheError: The place cannot be written.
    """
    try:
        if isinstance(files.place, Path):
            files.replace(".clock", [b""], lasting=False)
            return (files.place / ".clock").stat().st_mtime
        files.replace("claims/clock", [b""], lasting=False)
        return files.statuses("claims")["claims/clock"].modified
    except OSError as error:
        raise CacheError(
            f"{files.place} cannot be written: {error.strerror or error}. Mend its permissions, or free space."
        ) from error
