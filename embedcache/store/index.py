"""Which sequences are committed: the records, merged and sorted by key.

``index.npy`` holds the merge and, behind it in the same file, the names of the merged tasks and a checksum, so
that "behind" is a comparison of names and never of times. It may be missing, old or deleted: the records decide.
"""

import fcntl
import io
import json
from pathlib import Path

import numpy as np

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.store.files import replace_file
from embedcache.store.layout import ENTRY, FORMAT_VERSION, Array, crc32c, read_layout

__all__ = ["committed_tasks", "encode_record", "load_entries", "read_record", "write_index"]


def committed_tasks(root: Path) -> list[str]:
    """Names of all committed tasks, sorted."""
    try:
        return sorted(path.name for path in (root / "commits").iterdir() if not path.name.startswith("."))
    except FileNotFoundError as error:
        raise CacheDamagedError(
            f"{root} has lost its directory commits. Restore it, or delete {root} and build again."
        ) from error


def encode_record(task: str, entries: Array) -> list[bytes]:
    """Bytes of a commit record."""
    header = {"version": FORMAT_VERSION, "task": task, "sequences": len(entries), "crc32c": crc32c(entries)}
    return [json.dumps(header).encode() + b"\n", entries.tobytes()]


def read_record(path: Path) -> Array:
    """Entries of one commit record, dtype ENTRY.

    Raises:
        CacheDamagedError: The bytes are not those that were committed.
        CacheError: A newer version of isoheads wrote it.
    """
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        version, checksum, count = header["version"], header["crc32c"], header["sequences"]
        entries, is_newer = np.frombuffer(bytearray(body), ENTRY), version > FORMAT_VERSION
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheDamagedError(
            f"{path} is damaged ({error}). Run `embedcache verify --repair`, then build again."
        ) from error
    if is_newer:
        raise CacheError(f"{path} has version {version}, this isoheads reads up to {FORMAT_VERSION}. Update isoheads.")
    if count != len(entries) or crc32c(entries) != checksum:
        raise CacheDamagedError(
            f"{path} is damaged: its checksum does not match. Run `embedcache verify --repair`, then build again."
        )
    return entries


def load_entries(root: Path) -> tuple[Array, list[str], bool]:
    """Entries of all commits sorted by key, the names of their tasks, and whether ``index.npy`` was up to date."""
    tasks = committed_tasks(root)
    entries, merged = _read_index(root / "index.npy")
    if merged == set(tasks):
        return entries, tasks, True
    if not merged <= set(tasks):  # a record was withdrawn: start over
        entries, merged = np.zeros(0, ENTRY), set()
    fresh = [read_record(root / "commits" / task) for task in tasks if task not in merged]
    entries = np.concatenate([entries, *fresh])
    entries = entries[np.lexsort((entries["shard"], entries["low"], entries["high"]))]
    first = np.ones(len(entries), bool)  # two tasks may hold one key, then the lower shard counts
    first[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
    return entries[first], tasks, False


def _read_index(path: Path) -> tuple[Array, set[str]]:
    """What ``write_index`` saved; nothing if there is no file or it is not ours, for the records know all."""
    try:
        with path.open("rb") as file:
            entries, tasks, checksum = np.load(file), np.load(file), np.load(file)
    except (FileNotFoundError, ValueError, EOFError, SyntaxError):
        return np.zeros(0, ENTRY), set()
    except OSError as error:
        raise CacheDamagedError(f"{path} cannot be read: {error.strerror}. Delete it; it is made again.") from error
    if entries.dtype != ENTRY or crc32c(entries) != checksum:
        return np.zeros(0, ENTRY), set()
    return entries, set(tasks.tolist())


def write_index(root: Path) -> None:
    """Save the next reader the merge, and tell other readers of Zarr how many rows there are.

    Raises:
        CacheError: The disk is full or cannot be written; the records have everything all the same.
    """
    if load_entries(root)[2]:
        return  # so that a whole store on a read-only disk can be built again
    try:
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # or an older merge could replace a newer one
            _merge(root)
    except OSError as error:
        raise CacheError(
            f"{root}: the index cannot be written: {error.strerror or error}. What was embedded is committed, nothing "
            "is lost. Free space or mend the disk, then run the same command again."
        ) from error


def _merge(root: Path) -> None:
    entries, tasks, up_to_date = load_entries(root)
    if up_to_date:
        return
    n_shards = int(entries["shard"].max(initial=0)) + 1 if len(entries) else 0
    replace_file(root / "tokens" / "zarr.json", [read_layout(root).array_metadata(n_shards)])
    file = io.BytesIO()
    np.save(file, entries)
    np.save(file, np.array(tasks, np.str_))
    np.save(file, np.uint32(crc32c(entries)))
    replace_file(root / "index.npy", [file.getbuffer()])
