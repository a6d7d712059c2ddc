"""Carrying committed sequences from one store to another, without an encoder and without a gap in the checksums.

What the target holds already is left out, so a transfer that was killed goes on where it stopped, and may be run by
several processes at once. Rows are compared with their checksum before they are committed: damage does not spread.
"""

import hashlib
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embedcache.errors import CacheError
from embedcache.place import Place
from embedcache.store.care import shard_bytes
from embedcache.store.files import Files, open_files
from embedcache.store.index import entry_keys, load_entries, read_all_records, search_keys
from embedcache.store.layout import Array, Layout, crc32c
from embedcache.store.leases import Attempt, Leases
from embedcache.store.write import commit_task

__all__ = ["Carrier", "Difference", "Form", "Load", "check_fits", "check_room", "plan_loads"]


@dataclass(frozen=True, slots=True)
class Load:
    """Sequences of one record of the source that the target lacks."""

    entries: Array
    header: Mapping[str, Any]
    """Of the record that they stand in."""

    @property
    def n_rows(self) -> int:
        """Rows of all of them."""
        return int(self.entries["length"].sum())


@dataclass(slots=True)
class Difference:
    """How the sequences of a source stand to those of the target."""

    loads: list[Load] = field(default_factory=list)
    """What the target lacks."""
    present: int = 0
    """Sequences that both have."""
    differing: Array | None = None
    """Those of them with other bytes, entries of the source; None if there are none."""

    @property
    def n_rows(self) -> int:
        """Rows that the target lacks."""
        return sum(load.n_rows for load in self.loads)

    @property
    def longest(self) -> int:
        """Rows of the longest sequence that the target lacks."""
        return max((int(load.entries["length"].max()) for load in self.loads), default=0)


def plan_loads(source: Files, target: Files, wanted: Collection[bytes] | None = None) -> Difference:
    """Compare two stores by their records; reads no rows.

    Args:
        source: Files of a store.
        target: Files of a store, or of the place of one that is not made yet.
        wanted: Keys that may be carried; None for all.

    Raises:
        CacheDamagedError: A record of either store is damaged.
    """
    there = load_entries(target)[0] if target.exists("zarr.json") else None
    high = np.ascontiguousarray(there["high"]) if there is not None else np.zeros(0, np.uint64)
    low = there["low"] if there is not None else high
    found, seen, differing = Difference(), set[bytes](), list[Array]()
    records = [record for record in read_all_records(source) if len(record[0])]
    # of a sequence that was committed twice the lower shard counts
    for entries, header in sorted(records, key=lambda record: int(record[0]["shard"].min())):
        keys = entry_keys(entries)
        asked = np.array([key not in seen and (wanted is None or key in wanted) for key in keys], bool)
        seen.update(keys)
        positions = search_keys(high, low, entries["high"], entries["low"])
        both = asked & (positions >= 0)
        found.present += int(both.sum())
        if there is not None and both.any():
            ours, theirs = entries[both], there[positions[both]]
            differing.append(ours[(ours["crc"] != theirs["crc"]) | (ours["length"] != theirs["length"])])
        if (absent := asked & (positions < 0)).any():
            found.loads.append(Load(entries[absent], header))
    if any(len(some) for some in differing):
        found.differing = np.concatenate(differing)
    return found


def check_room(place: Place, size_bytes: int) -> None:
    """Refuse before any work what could not be written after it; an object store has no end.

    Raises:
        CacheError: The disk has not so many bytes free.
    """
    if not isinstance(place, Path):
        return
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size_bytes > free:
        raise CacheError(
            f"{place} needs {size_bytes:,} bytes more and its disk has {free:,} free. Nothing was written. Free space, "
            "or choose a place on another disk."
        )


def check_fits(place: Place, layout: Layout, longest: int) -> None:
    """Refuse sequences that no shard of a store holds.

    Raises:
        CacheError: ``longest`` has more rows than a shard.
    """
    if longest > layout.shard_rows:
        raise CacheError(
            f"a sequence of {longest:,} tokens does not fit the shards of {place}, which were fixed at "
            f"{layout.shard_rows:,} rows when it was made. Choose another cache."
        )


class Form(Protocol):
    """What becomes of rows on their way."""

    def rows(self, rows: Array) -> Array:
        """Stored rows of the source, (tokens, columns), as the target stores them."""
        ...

    def extra(self, headers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """For the header of a record, after all of its rows went through ``rows``; ``headers`` are those of before."""
        ...


@dataclass(slots=True)
class Carrier:
    """Carries loads to a store, one record at a time, and counts."""

    source: Files
    layout: Layout
    """Of the source."""
    target: Place
    form: Form
    moved: Callable[[int], None]
    """Called with the tokens of each load that is done."""
    sequences: int = 0
    tokens: int = 0
    size_bytes: int = 0
    """Bytes of rows that were written."""
    damaged: list[bytes] = field(default_factory=list)
    """Keys of sequences whose bytes in the source are not those of their record; they were not carried."""

    def carry(self, groups: Sequence[Sequence[Load]], is_stopped: Callable[[], object]) -> None:
        """Commit each group of loads as one record; the next one is read while one is written.

        Args:
            groups: What to carry.
            is_stopped: Asked before each group; something true ends the work after those that were begun.
        """
        with self._lease() as leases, ThreadPoolExecutor(1) as pool:
            pending: Future[bool] | None = None
            for group in groups:
                if is_stopped():
                    break
                leases.moved()
                rows = [pair for load in group for pair in self._read(load)]
                extra = self.form.extra([load.header for load in group])
                if pending is not None:
                    pending.result()  # a full disk is told at once
                pending = pool.submit(self._commit, rows, extra) if rows else None
                self.moved(sum(load.n_rows for load in group))
            if pending is not None:
                pending.result()

    def _commit(self, rows: list[tuple[bytes, Array]], extra: dict[str, Any]) -> bool:
        # salted: a task of a build may have our name and lack a sequence that could not be embedded there
        name = hashlib.blake2b(b"".join(sorted(key for key, _ in rows)) + b"carried", digest_size=16).hexdigest()
        is_ours = commit_task(self.target, rows, task=name, extra=extra)
        if is_ours:
            self.sequences += len(rows)
            self.tokens += sum(len(array) for _, array in rows)
            self.size_bytes += sum(array.nbytes for _, array in rows)
        return is_ours

    @contextmanager
    def _lease(self) -> Iterator[Leases]:
        """Others shall see that somebody writes here: `gc` spares our shards, `remove` refuses."""
        with Leases(open_files(self.target)) as leases:
            leases.acquire(Attempt(f"carried.{secrets.token_hex(8)}", 0, 0, {}))
            yield leases

    def _read(self, load: Load) -> Iterator[tuple[bytes, Array]]:
        """Keys and rows of a load, in the form of the target, but those that are damaged."""
        keys, layout = entry_keys(load.entries), self.layout
        for shard in np.unique(load.entries["shard"]).tolist():
            data = shard_bytes(self.source, shard)
            for i in np.flatnonzero(load.entries["shard"] == shard).tolist():
                entry = load.entries[i]
                start, n_bytes = int(entry["start"]) * layout.row_bytes, int(entry["length"]) * layout.row_bytes
                found = data[start : start + n_bytes]
                if len(found) != n_bytes or crc32c(found) != entry["crc"]:
                    self.damaged.append(keys[i])
                    continue
                yield keys[i], self.form.rows(found.view(layout.stored).reshape(-1, layout.columns))
