"""What lies in a cache: one row a store, without torch."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.errors import CacheError
from embedcache.place import Place, parse_place
from embedcache.sequences import Modality
from embedcache.store.find import list_stores
from embedcache.store.read import EmbeddingStore

__all__ = ["StoreInfo", "describe_cache", "format_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """One store: what is committed in it, and what it takes on disk."""

    path: str
    modality: Modality
    encoder: str
    is_random: bool
    """The weights were drawn, not trained."""
    is_imported: bool
    """Another tool computed the embeddings."""
    width: int
    dtype: str
    sequences: int
    tokens: int
    size_bytes: int
    """All shard files, orphans of killed builds included."""
    shards: int
    commits: int
    last_commit: str
    """Local time, ISO 8601; empty if nothing is committed."""
    index_is_current: bool
    spec: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def describe_cache(cache: str | Place) -> list[StoreInfo]:
    """All stores of a cache.

    Raises:
        CacheError: There is no such directory, or a store is damaged.
    """
    cache = parse_place(cache)
    if isinstance(cache, Path) and cache.exists() and not cache.is_dir():
        raise CacheError(f"{cache} is not a directory. Give the root of a cache (--cache).")
    if isinstance(cache, Path) and not cache.is_dir():
        raise CacheError(f"{cache} does not exist. Run `embedcache build`, or give the right --cache.")
    return [_describe(path) for path in list_stores(cache)]


def _describe(path: Place) -> StoreInfo:
    store = EmbeddingStore(path)
    store.check_shards()
    shards = store.files.statuses("tokens/c")
    commits = [status.modified for status in store.files.statuses("commits").values()]
    spec = store.spec
    return StoreInfo(
        path=str(path),
        modality=spec.modality,
        encoder=spec.name,
        is_random=spec.is_random,
        is_imported=spec.is_imported,
        width=spec.width,
        dtype=spec.store_dtype,
        sequences=len(store),
        tokens=store.n_tokens,
        size_bytes=sum(shard.size for shard in shards.values()),
        shards=len(shards),
        commits=len(commits),
        last_commit=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(max(commits))) if commits else "",
        index_is_current=store.index_is_current,
        spec=spec.to_json(),
    )


def format_cache(stores: list[StoreInfo]) -> str:
    """A table for people."""
    if not stores:
        return "No stores. Run `embedcache build`, or give another --cache."
    rows = [("modality", "encoder", "weights", "width", "dtype", "sequences", "tokens", "size", "last commit", "store")]
    rows += [
        (
            store.modality,
            store.encoder,
            _weights(store),
            str(store.width),
            store.dtype,
            f"{store.sequences:,}",
            f"{store.tokens:,}",
            format_bytes(store.size_bytes),
            store.last_commit or "never",
            parse_place(store.path).name,
        )
        for store in stores
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def _weights(store: StoreInfo) -> str:
    """Where the numbers come from; what an imported store claims was never checked."""
    if store.is_imported:
        return "random, imported" if store.is_random else "imported"
    return "random" if store.is_random else "pretrained"


def format_bytes(n: float) -> str:
    """Bytes with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
