"""Sequences that an encoder cannot embed: kept by key with the reason, so that no build tries them for ever."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from embedcache.store.disk import disk_errors
from embedcache.store.files import Files

__all__ = ["Poisoned", "damaged_entries", "quarantine", "quarantined_keys", "read_quarantine", "release"]

FOLDER = "claims/quarantine"
KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A sequence that was given up."""

    id: str
    """Of the first record that had it."""
    reason: str


def quarantine(files: Files, key: bytes, found: Poisoned) -> None:
    """Keep a sequence from being tried again, until ``release``."""
    name, data = f"{FOLDER}/{key.hex()}", json.dumps(asdict(found)).encode()
    with disk_errors(files.place):
        if not files.create(name, [data]) and _parse(name, files.read(name)) is None:
            files.replace(name, [data])  # a damaged entry keeps nobody from trying it


def read_quarantine(files: Files) -> dict[bytes, Poisoned]:
    """All sequences that were given up, by key; one whose entry is damaged is tried again."""
    found = (_parse(name, data) for name, data in _contents(files))
    return dict(one for one in found if one is not None)


def damaged_entries(files: Files) -> list[str]:
    """Names of entries that are not as we write them."""
    return [name for name, data in _contents(files) if _parse(name, data) is None]


def _parse(name: str, data: bytes) -> tuple[bytes, Poisoned] | None:
    try:
        key, body = bytes.fromhex(name.rpartition("/")[2]), json.loads(data)
        return (key, Poisoned(str(body["id"]), str(body["reason"]))) if len(key) == KEY_BYTES else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def quarantined_keys(files: Files) -> set[bytes]:
    """Keys of all sequences that were given up, from one listing."""
    names = [name.rpartition("/")[2] for name in files.statuses(FOLDER)]
    return {bytes.fromhex(name) for name in names if re.fullmatch("[0-9a-f]{32}", name)}


def release(files: Files, keys: Iterable[bytes]) -> None:
    """Let sequences be tried again."""
    with disk_errors(files.place):
        files.remove(f"{FOLDER}/{key.hex()}" for key in keys)


def _contents(files: Files) -> list[tuple[str, bytes]]:
    while True:
        names = list(files.statuses(FOLDER))
        with suppress(FileNotFoundError):  # released between listing and reading: list them again
            return list(zip(names, files.read_many(names), strict=True))
