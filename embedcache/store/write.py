"""Writing a store: claim a number, write and flush the shard, flush its directories, create the record.

Readers follow records only, so a killed writer leaves nothing that they can see, and of two writers of one
task the second leaves an orphan. Leases may save work; nothing here depends on them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from embedcache.errors import CacheError
from embedcache.store.files import create_file, sync_directory
from embedcache.store.index import encode_record
from embedcache.store.layout import EMPTY_CHUNK, ENTRY, INNER_ROWS, Array, Layout, crc32c, read_layout

__all__ = ["commit_task", "task_name"]


def task_name(keys: Iterable[bytes]) -> str:
    """Name of the task that embeds these sequences: a digest of their sorted keys."""
    return hashlib.blake2b(b"".join(sorted(keys)), digest_size=16).hexdigest()


def commit_task(root: Path, sequences: Sequence[tuple[bytes, Array]]) -> bool:
    """Write sequences to new shards and commit them, whole or not at all.

    Args:
        root: Directory of the store.
        sequences: 16-byte key and rows (tokens, width) in the stored dtype of each. They fill shards in
            this order; a sequence never spans two.

    Returns:
        False if another attempt had committed the task before; our shards are then orphans.

    Raises:
        CacheError: The disk is full or cannot be written; nothing was committed.
    """
    layout = read_layout(root)
    task = task_name(key for key, _ in sequences)
    if (root / "commits" / task).exists():
        return False
    entries = np.zeros(len(sequences), ENTRY)
    try:
        first = start = 0
        for i, (key, rows) in enumerate(sequences):
            _check_rows(layout, rows)
            if start + len(rows) > layout.shard_rows:
                entries["shard"][first:i] = _write_shard(root, layout, [rows for _, rows in sequences[first:i]])
                first, start = i, 0
            entries[i] = (*np.frombuffer(key, ">u8"), 0, start, len(rows), crc32c(rows))
            start += len(rows)
        entries["shard"][first:] = _write_shard(root, layout, [rows for _, rows in sequences[first:]])
        return create_file(root / "commits" / task, encode_record(task, entries))
    except OSError as error:
        raise CacheError(
            f"{root}: writing {len(sequences)} sequences failed: {error.strerror or error}. "
            "Nothing of them was committed. Free space or mend the disk, then run the same command again."
        ) from error


def _check_rows(layout: Layout, rows: Array) -> None:
    if rows.dtype != layout.stored or rows.ndim != 2 or rows.shape[1] != layout.width:
        raise ValueError(
            f"rows are {rows.dtype} {rows.shape}, expected {layout.stored} (tokens, {layout.width}). "
            "Use the encoder of this store."
        )
    if len(rows) > layout.shard_rows:
        raise CacheError(
            f"a sequence of {len(rows)} tokens does not fit a shard of {layout.shard_rows} rows, fixed when the store "
            "was made. Build the long sequences into another cache."
        )


def _write_shard(root: Path, layout: Layout, arrays: Sequence[Array]) -> int:
    """Write one shard under a number that nobody else has, flushed to disk; returns the number."""
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
    shards = root / "tokens" / "c"
    number = _claim_shard(shards)
    if not create_file(shards / str(number) / "0", [*data, *tail]):
        raise CacheError(f"shard {number} of {root} exists, although it was claimed for this attempt. Run it again.")
    sync_directory(shards)
    return number


def _claim_shard(shards: Path) -> int:
    """A mkdir succeeds once. Directories are never removed, so no number is given twice."""
    number = max((int(path.name) for path in shards.iterdir() if path.name.isdigit()), default=-1)
    while True:
        number += 1
        with suppress(FileExistsError):
            (shards / str(number)).mkdir()
            return number
