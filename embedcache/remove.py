"""Removing a whole store from a cache."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place, parse_place
from embedcache.store.disk import disk_errors
from embedcache.store.files import Files, open_files
from embedcache.store.holders import living_holders
from embedcache.store.index import load_entries
from embedcache.units import format_bytes

__all__ = ["Removal", "describe_removal", "remove_store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A store that is to be removed, or was."""

    store: str
    sequences: int | None
    """None if its records are damaged."""
    files: int
    size_bytes: int
    removed: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        count = "unknown (damaged records)" if self.sequences is None else f"{self.sequences:,}"
        done = "removed" if self.removed else "to remove"
        return f"{self.store}: {done}, {count} sequences, {self.files:,} files, {format_bytes(self.size_bytes)}"


def describe_removal(store: str | Place) -> Removal:
    """What ``remove_store`` would remove; a damaged store can be removed as well.

    Args:
        store: Place of the store, see ``find_store``.

    Raises:
        CacheError: There is no store, or somebody builds it.
    """
    files = open_files(parse_place(store))
    if not files.exists("zarr.json"):
        raise CacheError(f"{store} holds no store: zarr.json is missing. See the stores with `embedcache info`.")
    _refuse_builders(files, "nothing was removed")
    statuses = {**files.statuses(""), **files.temporaries()}
    try:
        sequences: int | None = len(load_entries(files)[0])
    except CacheDamagedError:
        sequences = None
    return Removal(
        store=str(store),
        sequences=sequences,
        files=len(statuses),
        size_bytes=sum(status.size for status in statuses.values()),
        removed=False,
    )


def remove_store(store: str | Place) -> Removal:
    """Remove a store with all of its embeddings. Nothing can bring it back but another build.

    Records go first and the metadata last: what a kill leaves is a store that holds less, and the same call goes on.
    Processes that read the store end with an error, or go on with what they have open.

    Args:
        store: Place of the store, see ``find_store``.

    Raises:
        CacheError: There is no store, somebody builds it, or the place cannot be written.
    """
    found, place = describe_removal(store), parse_place(store)
    files = open_files(place)
    with disk_errors(place):
        # a task that is computed again has its old name: an index that knew the old one would look up to date
        files.remove(["index.npy"])
        files.remove(files.statuses("commits"))
        _refuse_builders(files, "its records are withdrawn, so that it builds all again, and the rest stays")
        files.remove(files.statuses("tokens/c"))  # before their claims: a number whose shard is there must stay taken
        files.remove(name for name in files.statuses("") if name != "zarr.json")
        files.remove(["zarr.json"])
        if isinstance(place, Path):  # folders, hidden files
            shutil.rmtree(place.resolve())
            if place.is_symlink():
                place.unlink()
    return Removal(**{**asdict(found), "removed": True})


def _refuse_builders(files: Files, state: str) -> None:
    if workers := living_holders(files):
        raise CacheError(
            f"{files.place} is in the hands of {len({one.worker for one in workers})} workers that build it or copy to "
            f"it, and {state}. Wait until they are done or stop them, then run the same command again."
        )
