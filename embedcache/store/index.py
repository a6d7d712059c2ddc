"""Which sequences are committed: the records, merged and sorted by key.

``index.npy`` holds the merge and, behind it in the same file, the names of the merged tasks and a checksum, so
that "behind" is a comparison of names and never of times. It may be missing, old or deleted: the records decide.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place
from embedcache.store.files import Files, open_files
from embedcache.store.layout import ENTRY, FORMAT_VERSION, REPAIR, Array, crc32c, read_layout

__all__ = ["Record", "committed_tasks", "encode_record", "load_entries", "read_record", "read_records", "write_index"]

Record = tuple[Array, Mapping[str, Any]]
"""Entries of a commit, dtype ENTRY, and its header."""


def committed_tasks(files: Files) -> list[str]:
    """Names of all committed tasks, sorted."""
    try:
        return files.names("commits")
    except FileNotFoundError as error:
        root = files.place
        raise CacheDamagedError(
            f"{root} has lost its directory commits. Restore it, or delete {root} and build again."
        ) from error


def encode_record(task: str, entries: Array, extra: Mapping[str, Any] | None = None) -> list[bytes]:
    """Bytes of a commit record; ``extra`` goes into its header."""
    header = {"version": 1, "task": task, "sequences": len(entries), "crc32c": crc32c(entries), **(extra or {})}
    return [json.dumps(header).encode() + b"\n", entries.tobytes()]


def read_record(files: Files, task: str) -> Record:
    """One commit record.

    Raises:
        CacheDamagedError: The bytes are not those that were committed.
        CacheError: A newer version of isoheads wrote it.
    """
    try:
        return _parse_record(files.place, task, files.read(f"commits/{task}"))
    except OSError as error:
        raise _damaged(files.place, task, str(error)) from error


def read_records(files: Files, tasks: list[str]) -> list[Array]:
    """Entries of several commits; errors as in ``read_record``."""
    found = list[Array]()
    try:
        for task, data in zip(tasks, files.read_many(f"commits/{task}" for task in tasks), strict=True):
            found.append(_parse_record(files.place, task, data)[0])
    except OSError as error:
        raise _damaged(files.place, tasks[len(found)], str(error)) from error
    return found


def _parse_record(root: Place, task: str, data: bytes) -> Record:
    try:
        head, _, body = data.partition(b"\n")
        header = json.loads(head)
        version, checksum, count = header["version"], header["crc32c"], header["sequences"]
        entries, is_newer = np.frombuffer(bytearray(body), ENTRY), version > FORMAT_VERSION
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(root, task, str(error)) from error
    if is_newer:
        raise CacheError(
            f"{root / 'commits' / task} has version {version}, this isoheads reads up to {FORMAT_VERSION}. "
            "Update isoheads."
        )
    if count != len(entries) or crc32c(entries) != checksum:
        raise _damaged(root, task, "its checksum does not match")
    return entries, header


def _damaged(root: Place, task: str, reason: str) -> CacheDamagedError:
    return CacheDamagedError(f"{root / 'commits' / task} is damaged: {reason}. {REPAIR}")


def load_entries(files: Files) -> tuple[Array, list[str], bool]:
    """Entries of all commits sorted by key, the names of their tasks, and whether ``index.npy`` was up to date."""
    tasks = committed_tasks(files)
    entries, merged = _read_index(files)
    if merged == set(tasks):
        return entries, tasks, True
    if not merged <= set(tasks):  # a record was withdrawn: start over
        entries, merged = np.zeros(0, ENTRY), set()
    fresh = read_records(files, [task for task in tasks if task not in merged])
    entries = np.concatenate([entries, *fresh])
    entries = entries[np.lexsort((entries["shard"], entries["low"], entries["high"]))]
    first = np.ones(len(entries), bool)  # two tasks may hold one key, then the lower shard counts
    first[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
    return entries[first], tasks, False


def _read_index(files: Files) -> tuple[Array, set[str]]:
    """What ``write_index`` saved; nothing if there is no file or it is not ours, for the records know all."""
    try:
        file = io.BytesIO(files.read("index.npy"))
        entries, tasks, checksum = np.load(file), np.load(file), np.load(file)
    except (FileNotFoundError, ValueError, EOFError, SyntaxError):
        return np.zeros(0, ENTRY), set()
    except OSError as error:
        raise CacheDamagedError(
            f"{files.place / 'index.npy'} cannot be read: {error.strerror}. Delete it; it is made again."
        ) from error
    if entries.dtype != ENTRY or crc32c(entries) != checksum:
        return np.zeros(0, ENTRY), set()
    return entries, set(tasks.tolist())


def write_index(root: str | Place) -> None:
    """Save the next reader the merge, and tell other readers of Zarr how many rows there are.

    Raises:
        CacheError: The disk is full or cannot be written; the records have everything all the same.
    """
    files = open_files(root)
    if load_entries(files)[2]:
        return  # so that a whole store on a read-only disk can be built again
    try:
        with files.lock(".lock"):  # or an older merge could replace a newer one
            _merge(files)
    except OSError as error:
        raise CacheError(
            f"{root}: the index cannot be written: {error.strerror or error}. What was embedded is committed, nothing "
            "is lost. Free space or mend the disk, then run the same command again."
        ) from error


def _merge(files: Files) -> None:
    entries, tasks, up_to_date = load_entries(files)
    if up_to_date:
        return
    n_shards = int(entries["shard"].max(initial=0)) + 1 if len(entries) else 0
    files.replace("tokens/zarr.json", [read_layout(files).array_metadata(n_shards)])
    file = io.BytesIO()
    np.save(file, entries)
    np.save(file, np.array(tasks, np.str_))
    np.save(file, np.uint32(crc32c(entries)))
    files.replace("index.npy", [file.getbuffer()])
