"""Caring for a store: find damaged bytes and withdraw what holds them. Needs no torch."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place
from embedcache.store.files import Files, open_files
from embedcache.store.holders import living_holders
from embedcache.store.index import committed_tasks, read_index, read_record
from embedcache.store.layout import EMPTY_CHUNK, Array, Layout, crc32c, read_layout
from embedcache.store.mean import MEAN, read_mean
from embedcache.store.quarantine import Poisoned, damaged_entries, read_quarantine
from embedcache.store.tasks import read_plans

__all__ = ["Damage", "StoreCheck", "check_store", "repair_store", "shard_bytes"]

SHOWN = 10
"""Keys or IDs that are printed; JSON has all."""


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
    mean: str
    """What is wrong with the channel mean of an int8 store, without which none of its rows can be read; or empty."""
    harmless: dict[str, str]
    """By file name: damage to what is made again when it is needed."""
    quarantined: dict[str, Poisoned]
    """Sequences that were given up, by key of 32 hexadecimal digits."""

    @property
    def is_damaged(self) -> bool:
        """Whether embeddings cannot be read as they were written."""
        return bool(self.damages or self.mean)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        state = "all right" if not self.is_damaged else f"{len(self.damages)} damaged commits"
        lines = [f"{self.store}: {self.sequences:,} sequences, {self.size_bytes:,} bytes, {state}"]
        if self.mean:
            lines.append(f"  {self.mean}: no sequence can be read")
        for one in self.damages:
            lines.append(f"  commit {one.task}: {one.reason} ({len(one.keys) or 'all'} sequences)")
            lines += _some([f"  {key}" for key in one.keys])
        lines += [f"  {name}: {reason}; harmless" for name, reason in self.harmless.items()]
        if self.quarantined:
            lines.append(f"  {len(self.quarantined):,} sequences in quarantine, which the encoder cannot embed")
            lines += _some([f"  {one.id}: {one.reason}" for one in self.quarantined.values()])
        return "\n".join(lines)


def _some(lines: list[str]) -> list[str]:
    more = [f"  and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in (*lines[:SHOWN], *more)]


def check_store(root: str | Place, moved: Callable[[int], None] | None = None) -> StoreCheck:
    """Read every committed byte of a store and compare its checksum.

    Args:
        root: Place of the store.
        moved: Called with the bytes of each shard that was read.

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
        damages += _check_task(files, layout, task, entries, moved)
    return StoreCheck(
        store=str(root),
        sequences=sequences,
        size_bytes=size_bytes,
        damages=tuple(damages),
        mean=_check_mean(files, layout, sequences),
        harmless=_harmless(files),
        quarantined={key.hex(): one for key, one in read_quarantine(files).items()},
    )


def _check_mean(files: Files, layout: Layout, sequences: int) -> str:
    """What is wrong with the channel mean; a store without rows may not have one yet."""
    if layout.spec.store_dtype != "int8" or not (sequences or files.exists(MEAN)):
        return ""
    try:
        read_mean(files, layout)
    except CacheDamagedError:
        return f"{MEAN} is {'damaged' if files.exists(MEAN) else 'missing'}"
    return ""


def _harmless(files: Files) -> dict[str, str]:
    """Damaged files that say nothing that is not made again."""
    found = {name: "a damaged plan" for name, tasks in read_plans(files).items() if not tasks}
    found |= dict.fromkeys(damaged_entries(files), "a damaged entry of the quarantine")
    if files.exists("index.npy") and committed_tasks(files) and not read_index(files)[1]:
        found["index.npy"] = "a damaged index"
    return found


def _check_task(
    files: Files, layout: Layout, task: str, entries: Array, moved: Callable[[int], None] | None
) -> Iterator[Damage]:
    for shard in np.unique(entries["shard"]).tolist():
        inside = entries[entries["shard"] == shard]
        data = shard_bytes(files, shard)
        if moved is not None:
            moved(len(data))
        if not len(data):
            keys = tuple(_hex(entry) for entry in inside)
            yield Damage(task=task, shard=shard, keys=keys, reason=f"shard {shard} is missing, empty or no file")
            continue
        keys = tuple(_hex(entry) for entry in inside if _sum(data, entry, layout) != entry["crc"])
        if keys:
            yield Damage(task=task, shard=shard, keys=keys, reason=f"shard {shard} has other bytes")
        elif not _index_is_right(data, layout):
            everything = tuple(_hex(entry) for entry in inside)
            yield Damage(task=task, shard=shard, keys=everything, reason=f"shard {shard} has a damaged index")


def shard_bytes(files: Files, shard: int) -> Array:
    """Bytes of a shard, mapped where that is possible; none if it is missing."""
    name = f"tokens/c/{shard}/0"
    try:
        if isinstance(files.place, Path):
            return np.memmap(files.place / name, np.uint8, "r")
        return np.frombuffer(files.read(name), np.uint8)
    except (OSError, ValueError):  # ValueError: an empty file
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

    Without its channel mean an int8 store can say nothing of any sequence, and all commits are withdrawn. Damaged
    files that are made again are removed. Only while nobody builds: of two processes that withdraw one commit, the
    second could withdraw its replacement.

    Returns:
        How many commits were withdrawn.

    Raises:
        CacheError: Somebody builds.
    """
    files, tasks = open_files(root), {damage.task for damage in check.damages}
    if not (check.is_damaged or check.harmless):
        return 0
    if workers := living_holders(files):
        raise CacheError(
            f"{root} is in the hands of {len({one.worker for one in workers})} workers that build it, and nothing was "
            "withdrawn. Wait until they are done or stop them, then run the same command again."
        )
    if check.mean:
        tasks |= set(committed_tasks(files))
    # a task that is computed again has its old name: an index that knew the old one would look up to date
    files.remove(["index.npy", *check.harmless])
    files.remove(f"commits/{task}" for task in tasks)
    if check.mean:
        files.remove([MEAN])  # last: of rows that are committed nobody may ever make another mean
    return len(tasks)
