"""Sequences that an encoder cannot embed: kept by key with the reason, so that no build tries them for ever."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from embedcache.store.files import Files

__all__ = ["Poisoned", "quarantine", "read_quarantine", "release"]

FOLDER = "claims/quarantine"


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A sequence that was given up."""

    id: str
    """Of the first record that had it."""
    reason: str


def quarantine(files: Files, key: bytes, found: Poisoned) -> None:
    """Keep a sequence from being tried again, until ``release``."""
    files.create(f"{FOLDER}/{key.hex()}", [json.dumps(asdict(found)).encode()])


def read_quarantine(files: Files) -> dict[bytes, Poisoned]:
    """All sequences that were given up, by key."""
    found = {}
    names = list(files.statuses(FOLDER))
    for name, data in zip(names, files.read_many(names), strict=True):
        try:
            key, body = bytes.fromhex(name.rpartition("/")[2]), json.loads(data)
            found[key] = Poisoned(str(body["id"]), str(body["reason"]))
        except (ValueError, KeyError, TypeError):
            continue  # not ours: the sequence is tried again
    return found


def release(files: Files, keys: Iterable[bytes]) -> None:
    """Let sequences be tried again."""
    files.remove(f"{FOLDER}/{key.hex()}" for key in keys)
