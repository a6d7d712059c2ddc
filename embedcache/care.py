"""Caring for all stores of a cache: what ``embedcache verify`` and ``embedcache gc`` do."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place, check_cache, parse_place
from embedcache.progress import Progress
from embedcache.store.care import StoreCheck, check_store, repair_store
from embedcache.store.files import Files, open_files
from embedcache.store.find import stores_or_none
from embedcache.store.garbage import Garbage, collect_garbage
from embedcache.store.index import committed_tasks, entry_keys, read_record
from embedcache.store.layout import read_layout
from embedcache.store.quarantine import read_quarantine

if TYPE_CHECKING:  # pandas is slow to import, and only a dataset needs it
    from embedcache.dataset import Dataset

__all__ = ["Absent", "CacheCheck", "collect_cache", "verify_cache"]

SHOWN = 5
"""Names that are printed; JSON has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """What a store lacks of a dataset."""

    sequences: int
    """Distinct sequences that it lacks."""
    quarantined: dict[str, str]
    """Those of them that no encoder pass survives: the reason by ID."""
    transcripts: tuple[str, ...]
    """Transcripts whose sequence it lacks, in the order of the dataset."""

    def __str__(self) -> str:
        named = f"lacks {self.sequences:,} sequences of the dataset: {_some(self.transcripts)}"
        reasons = "; ".join(f"{name} ({reason})" for name, reason in list(self.quarantined.items())[:5])
        return f"{named}. {len(self.quarantined):,} of them are in quarantine: {reasons}" if reasons else named


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCheck:
    """What a check of all stores found."""

    stores: tuple[StoreCheck, ...]
    absent: dict[str, Absent]
    """By store, what it lacks of the dataset. Empty if no dataset was given."""
    names: dict[str, tuple[str, ...]]
    """Transcripts of the dataset by the key of their damaged sequence. Empty if no dataset was given."""
    repaired: int
    """Damaged commits that were withdrawn."""
    is_repaired: bool
    """Damage was withdrawn, and damaged files that are made again were removed."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [str(store) for store in self.stores]
        if self.names:
            lines.append(f"damaged: {_some([name for names in self.names.values() for name in names])}")
        lines += [f"{store}: {absent}" for store, absent in self.absent.items() if absent.sequences]
        if self.repaired or (self.is_repaired and any(store.mean for store in self.stores)):
            lines.append(f"{self.repaired} damaged commits withdrawn. Run `embedcache build` again.")
        return "\n".join(lines)

    def raise_if_damaged(self) -> None:
        """Raise what the command ends with.

        Raises:
            CacheDamagedError: Bytes are wrong and were not withdrawn, or sequences of the dataset are absent.
        """
        damaged = [store.store for store in self.stores if store.is_damaged]
        if damaged and not self.is_repaired:
            raise CacheDamagedError(
                f"{len(damaged)} of {len(self.stores)} stores are damaged: {', '.join(damaged)}. "
                "Run `embedcache verify --repair`, then build again."
            )
        if lacking := [store for store, absent in self.absent.items() if absent.sequences]:
            raise CacheDamagedError(
                f"{len(lacking)} stores lack sequences of the dataset: {', '.join(lacking)}. Run `embedcache build`, "
                "with --retry for those in quarantine."
            )


def verify_cache(cache: str | Place, *, dataset: Path | None = None, repair: bool = False) -> CacheCheck:
    """Check every store of a cache.

    Args:
        cache: Root of the cache.
        dataset: Its sequences must all be in the stores of their modality; damaged ones are named by transcript.
        repair: Withdraw damaged commits.

    Raises:
        CacheError: There is no such cache, or nothing in it to check.
    """
    found, places = _read(dataset), _stores(cache)
    if not places:
        raise CacheError(f"{cache} holds no stores. Build one, or give another --cache.")
    sizes = [sum(one.size for one in open_files(path).statuses("tokens/c").values()) for path in places]
    with Progress(sum(sizes), "B", "verify") as progress:
        checks = tuple(check_store(path, progress.update) for path in places)
    repaired = sum(repair_store(check.store, check) for check in checks) if repair else 0
    return CacheCheck(
        stores=checks,
        absent={str(path): _absent(path, found) for path in places} if found is not None else {},
        names=_names(checks, found) if found is not None else {},
        repaired=repaired,
        is_repaired=repair,
    )


def collect_cache(cache: str | Place, older_than_hours: float, *, dry_run: bool = False) -> list[Garbage]:
    """Remove from every store what no commit names, see ``collect_garbage``."""
    return [collect_garbage(path, older_than_hours, dry_run=dry_run) for path in _stores(cache)]


def _stores(cache: str | Place) -> list[Place]:
    cache = parse_place(cache)
    check_cache(cache, "Give the right --cache.")
    return stores_or_none(cache)


def _read(dataset: Path | None) -> "Dataset | None":
    from embedcache.dataset import read_dataset

    return read_dataset(dataset) if dataset is not None else None


def _absent(path: Place, dataset: "Dataset") -> Absent:
    files = open_files(path)
    there = _readable_keys(files)
    transcripts: list[str] = dataset.samples["transcript_id"].tolist()
    wanted = zip(dataset.keys(read_layout(files).spec.modality), transcripts, strict=True)
    lacking = [(key, name) for key, name in wanted if key is not None and key not in there]
    keys, poisoned = {key for key, _ in lacking}, read_quarantine(files)
    return Absent(
        sequences=len(keys),
        quarantined={one.id: one.reason for key, one in poisoned.items() if key in keys},
        transcripts=tuple(name for _, name in lacking),
    )


def _readable_keys(files: Files) -> set[bytes]:
    """Keys in all records that can be read."""
    keys = set[bytes]()
    for task in committed_tasks(files):
        with suppress(CacheDamagedError):  # told by the check
            keys.update(entry_keys(read_record(files, task)[0]))
    return keys


def _names(checks: Sequence[StoreCheck], dataset: "Dataset") -> dict[str, tuple[str, ...]]:
    """Which transcripts have a damaged sequence."""
    damaged = {key for check in checks for one in check.damages for key in one.keys}
    names: dict[str, list[str]] = {}
    for modality in dataset.modalities if damaged else ():
        for key, name in zip(dataset.keys(modality), dataset.samples["transcript_id"].tolist(), strict=True):
            if key is not None and key.hex() in damaged:
                names.setdefault(key.hex(), []).append(name)
    return {key: tuple(some) for key, some in names.items()}
