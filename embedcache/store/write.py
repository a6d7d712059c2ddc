"""Writing a store: claim a number, write the shard, flush it and its directories, create the record.

Readers follow records only, so a killed writer leaves nothing that they can see, and of two writers of one
task the second leaves an orphan. Leases save work; nothing here depends on them.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from embedcache.errors import CacheError
from embedcache.place import Place
from embedcache.store.files import Files, open_files
from embedcache.store.index import encode_record
from embedcache.store.layout import EMPTY_CHUNK, ENTRY, INNER_ROWS, Array, Layout, crc32c, read_layout

__all__ = ["COMMIT_WITHIN_HOURS", "commit_task", "cut_shards", "task_name"]

CLAIMS = 3
"""Shard numbers that one shard may use up; more than one only where an object store loses its answers."""
COMMIT_WITHIN_HOURS = 6.0
"""An attempt that wrote its first shard longer ago does not commit: ``gc`` may have taken the shard."""


def task_name(keys: Iterable[bytes]) -> str:
    """Name of the task that embeds these sequences: a digest of their sorted keys."""
    return hashlib.blake2b(b"".join(sorted(keys)), digest_size=16).hexdigest()


def commit_task(
    root: str | Place,
    sequences: Sequence[tuple[bytes, Array]],
    *,
    task: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bool:
    """Write sequences to new shards and commit them, whole or not at all.

    Args:
        root: Place of the store.
        sequences: 16-byte key and rows (tokens, columns) as stored of each. They fill shards in this order; a
            sequence never spans two.
        task: Name of the record; by default ``task_name`` of the keys.
        extra: Kept in the header of the record, JSON values.

    Returns:
        False if another attempt had committed the task before; our shards are then orphans.

    Raises:
        CacheError: The disk is full or cannot be written; nothing was committed.
    """
    files = open_files(root)
    layout = read_layout(files)
    task = task or task_name(key for key, _ in sequences)
    if files.exists(f"commits/{task}"):
        return False
    for _, rows in sequences:
        _check_rows(layout, rows)
    try:
        entries = _young_entries(files, layout, sequences)
        shards = [_shard_name(number) for number in np.unique(entries["shard"]).tolist()]
        return files.create(f"commits/{task}", encode_record(task, entries, extra), after=shards)
    except OSError as error:
        raise CacheError(
            f"{root}: writing {len(sequences)} sequences failed: {error.strerror or error}. "
            "Nothing of them was committed. Free space or mend the disk, then run the same command again."
        ) from error


def _young_entries(files: Files, layout: Layout, sequences: Sequence[tuple[bytes, Array]]) -> Array:
    """Write shards, again if ``gc`` may have taken them for those of a lost attempt; entries of the record."""
    while True:
        is_young = _young()
        entries = _write_shards(files, layout, sequences)
        if is_young():
            return entries


def _young() -> Callable[[], bool]:
    """Tells whether less than COMMIT_WITHIN_HOURS have gone since this call, by every clock: one may have jumped."""
    began = time.monotonic(), time.time()

    def is_young() -> bool:
        passed = max(time.monotonic() - began[0], abs(time.time() - began[1]))
        return passed < COMMIT_WITHIN_HOURS * 3600

    return is_young


def _write_shards(files: Files, layout: Layout, sequences: Sequence[tuple[bytes, Array]]) -> Array:
    """Entries of the record, after all their shards were written; they are flushed together with the record."""
    entries = np.zeros(len(sequences), ENTRY)
    entries["high"], entries["low"] = np.frombuffer(b"".join(key for key, _ in sequences), ">u8").reshape(-1, 2).T
    with ThreadPoolExecutor(1) as disk:
        for part in cut_shards([len(rows) for _, rows in sequences], layout.shard_rows):
            arrays, here = [rows for _, rows in sequences[part]], entries[part]
            number = disk.submit(_write_shard, files, layout, arrays)
            here["length"] = [len(rows) for rows in arrays]
            here["start"] = np.cumsum(here["length"]) - here["length"]
            here["crc"] = [crc32c(rows) for rows in arrays]  # meanwhile
            here["shard"] = number.result()
    return entries


def cut_shards(lengths: Sequence[int], shard_rows: int) -> Iterator[slice]:
    """Which sequences share a shard: as many as fit, in their order; none of no sequences."""
    first = rows = 0
    for i, length in enumerate(lengths):
        if rows + length > shard_rows:
            yield slice(first, i)
            first, rows = i, 0
        rows += length
    if lengths:
        yield slice(first, len(lengths))


def _check_rows(layout: Layout, rows: Array) -> None:
    if rows.dtype != layout.stored or rows.ndim != 2 or rows.shape[1] != layout.columns:
        raise ValueError(
            f"rows are {rows.dtype} {rows.shape}, expected {layout.stored} (tokens, {layout.columns}). "
            "Use the encoder of this store."
        )
    if len(rows) > layout.shard_rows:
        raise CacheError(
            f"a sequence of {len(rows)} tokens does not fit a shard of {layout.shard_rows} rows, fixed when the store "
            "was made. Build the long sequences into another cache."
        )


def _write_shard(files: Files, layout: Layout, arrays: Sequence[Array]) -> int:
    """Write one shard under a number that nobody else has; returns the number."""
    n_bytes = sum(array.nbytes for array in arrays)
    n_inner = -(-n_bytes // layout.inner_bytes)
    index = np.full((layout.shard_rows // INNER_ROWS, 2), EMPTY_CHUNK, "<u8")
    index[:n_inner, 0] = np.arange(n_inner) * layout.inner_bytes
    index[:n_inner, 1] = layout.inner_bytes
    data = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays if array.size]
    tail = [
        bytes(n_inner * layout.inner_bytes - n_bytes),
        index.tobytes(),
        crc32c(index).to_bytes(4, "little"),
    ]
    for _ in range(CLAIMS):
        number = files.claim_shard()
        # not flushed yet, and seen all the same: nobody follows it before there is a record
        if files.create(_shard_name(number), [*data, *tail], lasting=False):
            return number
        # an object store that lost its answer made this one: it stays behind as an orphan
    raise CacheError(f"shard {number} of {files.place} exists, although it was claimed for this attempt. Run it again.")


def _shard_name(number: int) -> str:
    return f"tokens/c/{number}/0"
