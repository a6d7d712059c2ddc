"""Removing from a store what nobody can see any more: the files of lost attempts, and what they said of each other."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedcache.place import Place
from embedcache.store.files import Files, open_files
from embedcache.store.holders import find_holders, guess_clock, place_clock
from embedcache.store.index import committed_tasks, read_records
from embedcache.store.layout import Array, read_layout
from embedcache.store.leases import FOLDER
from embedcache.store.status import FileStatus
from embedcache.store.tasks import read_plans

__all__ = ["COLLECT_AFTER_HOURS", "Garbage", "collect_garbage", "find_orphans", "orphans_among"]

COLLECT_AFTER_HOURS = 12.0
"""Files that no record names are spared this long: their writer may be about to commit them."""
SHARD = re.compile("tokens/c/([0-9]+)/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Files that no commit names."""

    store: str
    shards: int
    temporary_files: int
    claims: int
    """Leases of tasks that are over, or of workers that are."""
    plans: int
    """Plans whose tasks are all committed, and damaged ones."""
    size_bytes: int
    spared: int
    """Files that are too young to be removed."""
    workers: int
    """Workers that are alive. With any, shards and temporary files are spared for 12 hours at least."""
    dry_run: bool
    """Nothing was removed."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        done = "would remove" if self.dry_run else "removed"
        workers = f"; {self.workers} workers are alive" if self.workers else ""
        return (
            f"{self.store}: {done} {self.shards} orphan shards, {self.temporary_files} temporary files, "
            f"{self.claims} expired claims and {self.plans} plans that are done, {self.size_bytes:,} bytes; "
            f"{self.spared} spared because they are young{workers}"
        )


def collect_garbage(
    root: str | Place, older_than_hours: float = COLLECT_AFTER_HOURS, *, dry_run: bool = False
) -> Garbage:
    """Remove shards of lost attempts, temporary files of killed writers, leases and plans that are over.

    The number of a removed shard stays taken, for it must never be given again: neither its directory nor its claim
    is touched. Readers see none of this. Age is measured by the clock of the place; a writer that finds that a clock
    has jumped writes its shards again. A lease of a worker that is alive stays, however old.

    Args:
        root: Place of the store.
        older_than_hours: What is younger is spared, but leases of committed tasks, which nobody waits for.
        dry_run: Only tell what would be removed.

    Raises:
        CacheDamagedError: A record cannot be read: which shards it names is not known. Repair first.
        CacheError: There is no store at ``root``, or it cannot be written.
    """
    files = open_files(root)
    read_layout(files)
    now = guess_clock(files) if dry_run else place_clock(files)  # what is written from here on is younger than that
    orphans, temporary, plans = find_orphans(files), files.temporaries(), _finished_plans(files)
    leases, over, workers = _expired_leases(files, now, older_than_hours)
    # somebody who works may be about to commit what was asked to be removed so early
    hours = max(older_than_hours, COLLECT_AFTER_HOURS) if workers else older_than_hours
    groups = [
        *(_older(some, now, hours) for some in (orphans, temporary)),
        over,
        _older(plans, now, older_than_hours),
    ]
    removed = {name: status for group in groups for name, status in group.items()}
    if not dry_run:
        files.remove(removed)
    return Garbage(
        store=str(root),
        shards=len(groups[0]),
        temporary_files=len(groups[1]),
        claims=len(groups[2]),
        plans=len(groups[3]),
        size_bytes=sum(status.size for status in removed.values()),
        spared=len(orphans) + len(temporary) + leases + len(plans) - len(removed),
        workers=workers,
        dry_run=dry_run,
    )


def _older(found: dict[str, FileStatus], now: float, hours: float) -> dict[str, FileStatus]:
    return {name: status for name, status in found.items() if now - status.modified >= hours * 3600}


def _expired_leases(files: Files, now: float, hours: float) -> tuple[int, dict[str, FileStatus], int]:
    """How many leases have no living worker, those of them to remove, and how many workers live.

    A lease of a committed task is of no use. Others tell the next attempt that one died, until they are old.
    """
    statuses, committed = files.statuses(FOLDER), set(committed_tasks(files))
    holders = find_holders(files, now)
    dead = [one for one in holders if not one.is_alive]
    over = [one for one in dead if one.task in committed or one.age_seconds >= hours * 3600]
    living = {one.worker for one in holders if one.is_alive}
    return len(dead), {one.name: statuses[one.name] for one in over if one.name in statuses}, len(living)


def _finished_plans(files: Files) -> dict[str, FileStatus]:
    """Plans whose tasks are all committed, or that are damaged: the next build makes one of what is missing then."""
    statuses, committed = files.statuses("claims/plans"), set(committed_tasks(files))
    plans = read_plans(files)
    return {
        name: statuses[name]
        for name, tasks in plans.items()
        if name in statuses and all(task.name in committed for task in tasks)
    }


def find_orphans(files: Files) -> dict[str, FileStatus]:
    """Shards that no record names, by file name.

    Raises:
        CacheDamagedError: A record cannot be read.
    """
    shards = files.statuses("tokens/c")
    # records are read after the files were listed: what was committed in between is then among them
    return orphans_among(shards, read_records(files, committed_tasks(files)))


def orphans_among(shards: Mapping[str, FileStatus], entries: Array) -> dict[str, FileStatus]:
    """Those shards that no entry of any record is in."""
    used = set(np.unique(entries["shard"]).tolist())
    return {
        name: status
        for name, status in shards.items()
        if (match := SHARD.fullmatch(name)) and int(match[1]) not in used
    }
