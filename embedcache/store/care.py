"""Caring for a store: find damaged bytes, withdraw what holds them, remove what nobody can see. Needs no torch."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import CacheDamagedError
from embedcache.place import Place
from embedcache.store.files import Files, open_files
from embedcache.store.index import committed_tasks, read_record, read_records
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


def check_store(root: str | Place) -> StoreCheck:
    """Read every committed byte of a store and compare its checksum.

    Raises:
        CacheError: There is no store at ``root``.
    """
    files = open_files(root)
    layout = read_layout(files)
    damages, sequences, size_bytes = list[Damage](), 0, 0
    for task in committed_tasks(files):
        try:
            entries, _ = read_record(files, task)
        except CacheDamagedError:
            damages.append(Damage(task=task, shard=None, keys=(), reason="the record is damaged"))
            continue
        sequences += len(entries)
        size_bytes += int(entries["length"].sum()) * layout.row_bytes
        damages += _check_task(files, layout, task, entries)
    return StoreCheck(store=str(root), sequences=sequences, size_bytes=size_bytes, damages=tuple(damages))


def _check_task(files: Files, layout: Layout, task: str, entries: Array) -> Iterator[Damage]:
    for shard in np.unique(entries["shard"]).tolist():
        inside = entries[entries["shard"] == shard]
        data = _shard_bytes(files, shard)
        if not len(data):
            keys = tuple(_hex(entry) for entry in inside)
            yield Damage(task=task, shard=shard, keys=keys, reason=f"shard {shard} is missing or empty")
            continue
        keys = tuple(_hex(entry) for entry in inside if _sum(data, entry, layout) != entry["crc"])
        if keys:
            yield Damage(task=task, shard=shard, keys=keys, reason=f"shard {shard} has other bytes")
        elif not _index_is_right(data, layout):
            everything = tuple(_hex(entry) for entry in inside)
            yield Damage(task=task, shard=shard, keys=everything, reason=f"shard {shard} has a damaged index")


def _shard_bytes(files: Files, shard: int) -> Array:
    """Bytes of a shard, mapped where that is possible; none if it is missing."""
    name = f"tokens/c/{shard}/0"
    try:
        if isinstance(files.place, Path):
            return np.memmap(files.place / name, np.uint8, "r")
        return np.frombuffer(files.read(name), np.uint8)
    except (FileNotFoundError, ValueError):  # ValueError: an empty file
        return np.zeros(0, np.uint8)


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


def repair_store(root: str | Place, check: StoreCheck) -> int:
    """Withdraw the commits that a check found damaged; the next build computes their sequences again.

    Only while nobody builds: of two processes that withdraw one commit, the second could withdraw its replacement.

    Returns:
        How many commits were withdrawn.
    """
    files, tasks = open_files(root), {damage.task for damage in check.damages}
    # a task that is computed again has its old name: an index that knew the old one would look up to date
    files.remove(["index.npy"])
    files.remove(f"commits/{task}" for task in tasks)
    return len(tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Files that no commit names."""

    store: str
    shards: int
    temporary_files: int
    claims: int
    """Leases of tasks that are over."""
    size_bytes: int
    spared: int
    """Files that are too young to be removed."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.store}: removed {self.shards} orphan shards, {self.temporary_files} temporary files and "
            f"{self.claims} expired claims, {self.size_bytes:,} bytes; {self.spared} spared because they are young"
        )


def collect_garbage(root: str | Place, older_than_hours: float = COLLECT_AFTER_HOURS) -> Garbage:
    """Remove shards of lost attempts, leases of tasks that are over, and temporary files of killed writers.

    The number of a removed shard stays taken, for it must never be given again. Readers see none of this. Age is
    measured by the clock of the place; a writer that finds that a clock has jumped writes its shards again.

    Raises:
        CacheDamagedError: A record cannot be read: which shards it names is not known. Repair first.
    """
    files = open_files(root)
    read_layout(files)
    shards, leases, temporary = files.statuses("tokens/c"), files.statuses("claims/tasks"), files.temporaries()
    # records are read after the files were listed: what was committed in between is then among them
    used = {f"tokens/c/{shard}/0" for shard in _used_shards(files)}
    orphans = {name: status for name, status in shards.items() if name not in used}
    age = _clock(files)
    old = {
        name: status
        for name, status in {**orphans, **leases, **temporary}.items()
        if age - status.modified >= older_than_hours * 3600
    }
    files.remove(old)
    return Garbage(
        store=str(root),
        shards=sum(name in orphans for name in old),
        temporary_files=sum(name in temporary for name in old),
        claims=sum(name in leases for name in old),
        size_bytes=sum(status.size for status in old.values()),
        spared=len(orphans) + len(leases) + len(temporary) - len(old),
    )


def _used_shards(files: Files) -> set[int]:
    return set(np.unique(read_records(files, committed_tasks(files))["shard"]).tolist())


def _clock(files: Files) -> float:
    """Now, by the clock that stamps the files of this place."""
    if isinstance(files.place, Path):
        return time.time()
    files.replace("claims/clock", [b""], lasting=False)
    return files.statuses("claims")["claims/clock"].modified
