"""Which sequences are committed: the records, merged and sorted by key.

``index.npy`` holds the merge and, behind it in the same file, the names of the merged tasks and a checksum, so
that "behind" is a comparison of names and never of times. It may be missing, old or deleted: the records decide.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place
from embedcache.store.files import Files, open_files
from embedcache.store.layout import ENTRY, FORMAT_VERSION, REPAIR, Array, crc32c, read_layout

__all__ = [
    "Record",
    "committed_tasks",
    "encode_record",
    "entry_keys",
    "load_entries",
    "read_all_records",
    "read_index",
    "read_record",
    "read_records",
    "search_keys",
    "write_index",
]

Record = tuple[Array, Mapping[str, Any]]
"""Entries of a commit, dtype ENTRY, and its header."""
HEADER_SUM = b', "header_crc32c": '
FIRST_FIELDS = {"version", "task", "sequences", "crc32c"}
NPY_HEAD = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': (?:%s|'<U(?P<text>\d{1,4})'), 'fortran_order': False, "
    rb"'shape': \((?P<count>\d{1,12}),\), \} *\n" % re.escape(str(ENTRY.descr).encode()),
    re.DOTALL,
)
"""Of an array of entries, or of names."""


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
    text = json.dumps(header).encode().removesuffix(b"}")
    return [text, HEADER_SUM, b"%d}\n" % crc32c(text), entries.tobytes()]


def read_record(files: Files, task: str) -> Record:
    """One commit record.

    Raises:
        CacheDamagedError: The bytes are not those that were committed.
        CacheError: A newer version of isoheads wrote it.
    """
    try:
        data = files.read(f"commits/{task}")
    except OSError as error:
        raise _damaged(files.place, task, str(error)) from error
    body, header = _parse_record(files.place, task, data)
    return np.frombuffer(bytearray(body), ENTRY), header


def read_records(files: Files, tasks: list[str]) -> Array:
    """Entries of several commits, one after the other; errors as in ``read_record``."""
    # joined as bytes: numpy would take longer to compare the types of so many pieces than to read them
    return np.frombuffer(b"".join(body for body, _ in _parse_records(files, tasks)), ENTRY)


def read_all_records(files: Files) -> list[Record]:
    """All commits of a store, in the order of their names; errors as in ``read_record``."""
    return [(np.frombuffer(body, ENTRY), header) for body, header in _parse_records(files, committed_tasks(files))]


def _parse_records(files: Files, tasks: list[str]) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    done = 0
    try:
        for task, data in zip(tasks, files.read_many(f"commits/{task}" for task in tasks), strict=True):
            yield _parse_record(files.place, task, data)
            done += 1
    except OSError as error:
        raise _damaged(files.place, tasks[done], str(error)) from error


def _parse_record(root: Place, task: str, data: bytes) -> tuple[bytes, Mapping[str, Any]]:
    """Bytes of the entries, and the header."""
    head, _, body = data.partition(b"\n")
    try:
        header = json.loads(head)
        version, is_newer = header["version"], header["version"] > FORMAT_VERSION
        right = header["task"], header["sequences"] * ENTRY.itemsize, header["crc32c"]
        text, _, header_sum = head.rpartition(HEADER_SUM)
        # the first records had four fields and no sum over them
        is_whole = header.keys() == FIRST_FIELDS or header_sum == b"%d}" % crc32c(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(root, task, str(error)) from error
    if not is_whole:
        raise _damaged(root, task, "its checksum does not match")
    if is_newer:
        raise CacheError(
            f"{root / 'commits' / task} has version {version}, this isoheads reads up to {FORMAT_VERSION}. "
            "Update isoheads."
        )
    if right != (task, len(body), crc32c(body)):
        raise _damaged(root, task, "its checksum does not match")
    return body, header


def _damaged(root: Place, task: str, reason: str) -> CacheDamagedError:
    return CacheDamagedError(f"{root / 'commits' / task} is damaged: {reason}. {REPAIR}")


def load_entries(files: Files) -> tuple[Array, list[str], bool]:
    """Entries of all commits sorted by key, the names of their tasks, and whether ``index.npy`` was up to date."""
    tasks = committed_tasks(files)
    entries, merged = read_index(files)
    if merged == tasks:
        return entries, tasks, True
    known = set(merged)
    if not known <= set(tasks):  # a record was withdrawn: start over
        entries, known = np.zeros(0, ENTRY), set()
    fresh = read_records(files, [task for task in tasks if task not in known])
    return _sorted_by_key(np.concatenate([entries, fresh])), tasks, False


def _sorted_by_key(entries: Array) -> Array:
    """Entries in the order of their keys; of several with one key, the one in the lowest shard."""
    entries = entries[np.argsort(entries["high"])]
    if not (entries["high"][1:] == entries["high"][:-1]).any():
        return entries
    # two tasks hold one key, or half of two keys is equal; sorting by all columns takes much longer
    entries = entries[np.lexsort((entries["shard"], entries["low"], entries["high"]))]
    first = np.ones(len(entries), bool)
    first[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
    return entries[first]


def entry_keys(entries: Array) -> list[bytes]:
    """Sequence keys of entries, 16 bytes each."""
    data = np.stack([entries["high"], entries["low"]], axis=1).astype(">u8").tobytes()
    return [data[i : i + 16] for i in range(0, len(data), 16)]


def search_keys(high: Array, low: Array, wanted_high: Array, wanted_low: Array) -> NDArray[np.int64]:
    """Where keys stand among sorted keys, -1 for one that is absent; all are given as halves."""
    position = np.searchsorted(high, wanted_high)
    while len(high):  # a second round only where 64 bits of two keys are equal
        here = np.minimum(position, len(high) - 1)
        same = (position < len(high)) & (high[here] == wanted_high)
        other = same & (low[here] != wanted_low)
        if not other.any():
            return np.where(same, here, -1).astype(np.int64)
        position = position + other
    return np.full(len(wanted_high), -1, np.int64)


def read_index(files: Files) -> tuple[Array, list[str]]:
    """What ``write_index`` saved; nothing if it cannot be read or is not ours, for the records know all."""
    nothing: tuple[Array, list[str]] = np.zeros(0, ENTRY), []
    try:
        data = files.read_array("index.npy")
        entries, end = _array_at(data, 0)
        names, _ = _array_at(data, end)
        tasks: list[str] = names.tolist()
    except (OSError, ValueError) as error:
        if isinstance(error.__cause__, IsADirectoryError):  # no index could ever take its place
            raise CacheDamagedError(
                f"{files.place / 'index.npy'} is a directory. Remove it; it is made again."
            ) from error
        return nothing
    is_ours = entries.dtype == ENTRY and names.dtype.kind == "U"
    return (entries, tasks) if is_ours and data[-4:].tobytes() == np.uint32(crc32c(entries)).tobytes() else nothing


def _array_at(data: Array, start: int) -> tuple[Array, int]:
    """The array that ``numpy.save`` wrote at ``start``, and its end.

    ``numpy.load`` would copy it twice, and has no one error for a header that is damaged.

    Raises:
        ValueError: There is no array of entries or of names.
    """
    head = NPY_HEAD.match(data[start : start + 1024].tobytes())
    if head is None:
        raise ValueError("no header as numpy.save writes it")
    dtype = ENTRY if head["text"] is None else np.dtype(f"<U{head['text'].decode()}")
    array = np.frombuffer(data, dtype, int(head["count"]), start + head.end())
    return array, start + head.end() + array.nbytes


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
