"""Caring for all stores of a cache: what ``embedcache verify`` and ``embedcache gc`` do."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place, parse_place
from embedcache.store.care import Garbage, StoreCheck, check_store, collect_garbage, repair_store
from embedcache.store.find import list_stores
from embedcache.store.read import EmbeddingStore

__all__ = ["CacheCheck", "collect_cache", "verify_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCheck:
    """What a check of all stores found."""

    stores: tuple[StoreCheck, ...]
    absent: dict[str, int]
    """By store: sequences of the dataset that it lacks. Empty if no dataset was given."""
    repaired: int
    """Damaged commits that were withdrawn."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [str(store) for store in self.stores] or ["No stores."]
        lines += [f"{store}: lacks {n:,} sequences of the dataset" for store, n in self.absent.items() if n]
        if self.repaired:
            lines.append(f"{self.repaired} damaged commits withdrawn. Run `embedcache build` again.")
        return "\n".join(lines)

    def raise_if_damaged(self) -> None:
        """Raise what the command ends with.

        Raises:
            CacheDamagedError: Bytes are wrong and were not withdrawn, or sequences of the dataset are absent.
        """
        damaged = [store.store for store in self.stores if store.damages]
        if damaged and not self.repaired:
            raise CacheDamagedError(
                f"{len(damaged)} of {len(self.stores)} stores are damaged: {', '.join(damaged)}. "
                "Run `embedcache verify --repair`, then build again."
            )
        if lacking := [store for store, n in self.absent.items() if n]:
            raise CacheDamagedError(
                f"{len(lacking)} stores lack sequences of the dataset: {', '.join(lacking)}. Run `embedcache build`."
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
    repaired = sum(repair_store(check.store, check) for check in checks if check.damages) if repair else 0
    damaged = any(check.damages for check in checks)
    absent = _absent(cache, dataset) if dataset is not None and (repair or not damaged) else {}
    return CacheCheck(stores=checks, absent=absent, repaired=repaired)


def collect_cache(cache: str | Place, older_than_hours: float) -> list[Garbage]:
    """Remove from every store what no commit names, see ``collect_garbage``."""
    return [collect_garbage(path, older_than_hours) for path in _stores(cache)]


def _stores(cache: str | Place) -> Iterator[Place]:
    cache = parse_place(cache)
    if isinstance(cache, Path) and not cache.is_dir():
        raise CacheError(f"{cache} does not exist. Give the right --cache.")
    return list_stores(cache)


def _absent(cache: str | Place, dataset: Path) -> dict[str, int]:
    from embedcache.dataset import read_dataset

    found, absent = read_dataset(dataset), dict[str, int]()
    for path in _stores(cache):
        store = EmbeddingStore(path)
        keys = sorted({key for key in found.keys(store.spec.modality) if key is not None})
        absent[str(path)] = int((store.find(keys) < 0).sum()) if keys else 0
    return absent
