"""Caring for all stores of a cache: what ``embedcache verify`` and ``embedcache gc`` do."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place, parse_place
from embedcache.store.care import StoreCheck, check_store, repair_store
from embedcache.store.files import open_files
from embedcache.store.find import list_stores
from embedcache.store.garbage import Garbage, collect_garbage
from embedcache.store.quarantine import read_quarantine
from embedcache.store.read import EmbeddingStore

__all__ = ["Absent", "CacheCheck", "collect_cache", "verify_cache"]


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
        more = f" and {len(self.transcripts) - 5:,} more" if len(self.transcripts) > 5 else ""
        named = f"lacks {self.sequences:,} sequences of the dataset: {', '.join(self.transcripts[:5])}{more}"
        reasons = "; ".join(f"{name} ({reason})" for name, reason in list(self.quarantined.items())[:5])
        return f"{named}. {len(self.quarantined):,} of them are in quarantine: {reasons}" if reasons else named


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCheck:
    """What a check of all stores found."""

    stores: tuple[StoreCheck, ...]
    absent: dict[str, Absent]
    """By store, what it lacks of the dataset. Empty if no dataset was given."""
    repaired: int
    """Damaged commits that were withdrawn."""
    is_repaired: bool
    """Damage was withdrawn, and damaged files that are made again were removed."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [str(store) for store in self.stores] or ["No stores."]
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
        dataset: Its sequences must all be in the stores of their modality.
        repair: Withdraw damaged commits.

    Raises:
        CacheError: There is no such cache.
    """
    checks = tuple(check_store(path) for path in _stores(cache))
    repaired = sum(repair_store(check.store, check) for check in checks) if repair else 0
    damaged = any(check.is_damaged for check in checks)
    absent = _absent(cache, dataset) if dataset is not None and (repair or not damaged) else {}
    return CacheCheck(stores=checks, absent=absent, repaired=repaired, is_repaired=repair)


def collect_cache(cache: str | Place, older_than_hours: float, *, dry_run: bool = False) -> list[Garbage]:
    """Remove from every store what no commit names, see ``collect_garbage``."""
    return [collect_garbage(path, older_than_hours, dry_run=dry_run) for path in _stores(cache)]


def _stores(cache: str | Place) -> Iterator[Place]:
    cache = parse_place(cache)
    if isinstance(cache, Path) and not cache.is_dir():
        raise CacheError(f"{cache} does not exist. Give the right --cache.")
    return list_stores(cache)


def _absent(cache: str | Place, dataset: Path) -> dict[str, Absent]:
    from embedcache.dataset import read_dataset

    found, absent = read_dataset(dataset), dict[str, Absent]()
    transcripts: list[str] = found.samples["transcript_id"].tolist()
    for path in _stores(cache):
        store = EmbeddingStore(path)
        wanted = [
            (key, name)
            for key, name in zip(found.keys(store.spec.modality), transcripts, strict=True)
            if key is not None
        ]
        positions = store.find([key for key, _ in wanted])
        lacking = [pair for pair, position in zip(wanted, positions, strict=True) if position < 0]
        keys, poisoned = {key for key, _ in lacking}, read_quarantine(open_files(path))
        absent[str(path)] = Absent(
            sequences=len(keys),
            quarantined={one.id: one.reason for key, one in poisoned.items() if key in keys},
            transcripts=tuple(name for _, name in lacking),
        )
    return absent
