"""Caring for a store: find damaged bytes, withdraw what holds them, remove what nobody can see. Needs no torch."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import CacheDamagedError
from embedcache.store.files import sync_directory
from embedcache.store.index import committed_tasks, read_record
from embedcache.store.layout import EMPTY_CHUNK, Array, Layout, crc32c, read_layout

__all__ = ["COLLECT_AFTER_HOURS", "Damage", "Garbage", "StoreCheck", "check_store", "collect_garbage", "repair_store"]

COLLECT_AFTER_HOURS = 12.0
"""Files that no record names are spared this long: their writer may be about to commit them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A commit whose bytes are not those that were committed."""

    task: str
    shard: int | None
    """None if the record itself is damaged."""
    keys: tuple[str, ...]
    """Damaged sequences, 32 hexadecimal digits each; empty if the record cannot be read."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCheck:
    """What a check of every checksum found."""

    store: str
    sequences: int
    size_bytes: int
    """Bytes of rows that were read."""
    damages: tuple[Damage, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.damages:
            return f"{self.store}: {self.sequences:,} sequences, {self.size_bytes:,} bytes, all right"
        lines = [f"{self.store}: {self.sequences:,} sequences, {len(self.damages)} damaged commits"]
        for one in self.damages:
            lines.append(f"  commit {one.task}: {one.reason} ({len(one.keys) or 'all'} sequences)")
            lines += [f"    {key}" for key in one.keys[:10]]
        return "\n".join(lines)


def check_store(root: Path) -> StoreCheck:
    """Read every committed byte of a store and compare its checksum.

    Raises:
        CacheError: There is no store at ``root``.
    """
    layout = read_layout(root)
    damages, sequences, size_bytes = list[Damage](), 0, 0
    for task in committed_tasks(root):
        try:
            entries = read_record(root / "commits" / task)
        except CacheDamagedError:
            damages.append(Damage(task=task, shard=None, keys=(), reason="the record is damaged"))
            continue
        sequences += len(entries)
        size_bytes += int(entries["length"].sum()) * layout.row_bytes
        damages += _check_task(root, layout, task, entries)
    return StoreCheck(store=str(root), sequences=sequences, size_bytes=size_bytes, damages=tuple(damages))


def _check_task(root: Path, layout: Layout, task: str, entries: Array) -> Iterator[Damage]:
    for shard in np.unique(entries["shard"]).tolist():
        inside = entries[entries["shard"] == shard]
        path = root / "tokens" / "c" / str(shard) / "0"
        try:
            data = np.memmap(path, np.uint8, "r")
        except (FileNotFoundError, ValueError):  # ValueError: an empty file
            keys = tuple(_hex(entry) for entry in inside)
            yield Damage(task=task, shard=shard, keys=keys, reason=f"shard {shard} is missing or empty")
            continue
        keys = tuple(_hex(entry) for entry in inside if _sum(data, entry, layout) != entry["crc"])
        if keys:
            yield Damage(task=task, shard=shard, keys=keys, reason=f"shard {shard} has other bytes")
        elif not _index_is_right(data, layout):
            everything = tuple(_hex(entry) for entry in inside)
            yield Damage(task=task, shard=shard, keys=everything, reason=f"shard {shard} has a damaged index")


def _sum(data: Array, entry: Any, layout: Layout) -> int:
    start = int(entry["start"]) * layout.row_bytes
    return crc32c(data[start : start + int(entry["length"]) * layout.row_bytes])


def _index_is_right(data: Array, layout: Layout) -> bool:
    """The index that Zarr readers, and our own, look at before the rows."""
    size = layout.index_bytes
    if len(data) < size:
        return False
    index = np.frombuffer(data[-size:-4].tobytes(), "<u8").reshape(-1, 2)
    used = int((index[:, 0] != EMPTY_CHUNK).sum())
    sized = len(data) == used * layout.inner_bytes + size
    return sized and crc32c(index) == int.from_bytes(data[-4:].tobytes(), "little")


def _hex(entry: Any) -> str:
    return f"{int(entry['high']):016x}{int(entry['low']):016x}"


def repair_store(root: Path, check: StoreCheck) -> int:
    """Withdraw the commits that a check found damaged; the next build computes their sequences again.

    Only while nobody builds: of two processes that withdraw one commit, the second could withdraw its replacement.

    Returns:
        How many commits were withdrawn.
    """
    tasks = {damage.task for damage in check.damages}
    # a task that is computed again has its old name: an index that knew the old one would look up to date
    (root / "index.npy").unlink(missing_ok=True)
    for task in tasks:
        (root / "commits" / task).unlink(missing_ok=True)
    sync_directory(root / "commits")
    return len(tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Files that no commit names."""

    store: str
    shards: int
    temporary_files: int
    size_bytes: int
    spared: int
    """Files that are too young to be removed."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.store}: removed {self.shards} orphan shards and {self.temporary_files} temporary files, "
            f"{self.size_bytes:,} bytes; {self.spared} spared because they are young"
        )


def collect_garbage(root: Path, older_than_hours: float = COLLECT_AFTER_HOURS) -> Garbage:
    """Remove shards of lost attempts and temporary files of killed writers.

    The directory of a removed shard stays, for its number must never be given again. Readers see none of this.

    Raises:
        CacheDamagedError: A record cannot be read: which shards it names is not known. Repair first.
    """
    read_layout(root)
    shards = root / "tokens" / "c"
    before = {path: path.stat() for path in [*shards.glob("*/*"), *(root / "commits").glob(".*"), *root.glob(".*.*")]}
    # records are read after the files were listed: what was committed in between is then among them
    used: set[int] = set()
    for task in committed_tasks(root):
        used |= set(np.unique(read_record(root / "commits" / task)["shard"]).tolist())
    counts, freed, spared, now = {True: 0, False: 0}, 0, 0, time.time()
    for path, status in before.items():
        is_shard = path.name == "0"
        if is_shard and int(path.parent.name) in used:
            continue
        if now - status.st_mtime < older_than_hours * 3600:
            spared += 1
            continue
        path.unlink(missing_ok=True)
        counts[is_shard] += 1
        freed += status.st_size
    return Garbage(store=str(root), shards=counts[True], temporary_files=counts[False], size_bytes=freed, spared=spared)
