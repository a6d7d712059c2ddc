"""What lies in a cache: one row a store, without torch."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.place import Place, check_cache, parse_place
from embedcache.sequences import Modality
from embedcache.store.find import stores_or_none
from embedcache.store.garbage import orphans_among
from embedcache.store.holders import find_holders, guess_clock
from embedcache.store.index import read_all_records
from embedcache.store.layout import ENTRY
from embedcache.store.quarantine import read_quarantine
from embedcache.store.read import EmbeddingStore
from embedcache.store.rounding import join_rounding
from embedcache.units import format_bytes

if TYPE_CHECKING:  # pandas is slow to import, and only a dataset needs it
    from embedcache.dataset import Dataset

__all__ = ["DatasetUse", "StoreInfo", "describe_cache", "format_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetUse:
    """What a store has of a dataset."""

    transcripts: int
    """Transcripts with this modality."""
    sequences: int
    """Distinct sequences of them."""
    absent: int
    """Distinct sequences that the store lacks."""
    size_bytes: int
    """Bytes of rows of the distinct sequences that it has."""
    saved_bytes: int
    """Bytes that it would have on top of that, were each transcript embedded by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """One store: what is committed in it, what it takes on disk, and who works on it."""

    path: str
    modality: Modality
    encoder: str
    is_random: bool
    """The weights were drawn, not trained."""
    is_small: bool
    """A small encoder of the package: its results are no measure of the published ones."""
    is_imported: bool
    """Another tool computed the embeddings."""
    width: int
    dtype: str
    source_dtype: str
    """Number format that had rounded the rows of a converted store before; else empty."""
    layer: int
    special_tokens: str
    """``dropped``; else it holds rows of them too, for fine-tuning."""
    """-1 is the last."""
    pooling: str
    sequences: int
    tokens: int
    tokens_per_sequence: float
    """Mean; of pooled stores, rows."""
    size_bytes: int
    """All shard files, orphans of killed builds included."""
    rounding: dict[str, float] | None
    """``relative_l2``, ``cosine`` and number of ``tokens`` compared at writing; None for float32, or unknown."""
    shards: int
    commits: int
    last_commit: str
    """Local time, ISO 8601; empty if nothing is committed."""
    index_is_current: bool
    quarantined: dict[str, str]
    """Sequences that the encoder cannot embed: the reason by ID."""
    orphans: int
    """Shards that no commit names: of killed builds, or about to be committed by one that runs."""
    orphan_bytes: int
    temporary_files: int
    """Left by killed builds, or of one that runs."""
    workers: int
    """Processes that work on the store now."""
    dataset: DatasetUse | None
    """None if no dataset was given."""
    spec: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def describe_cache(cache: str | Place, *, dataset: Path | None = None) -> list[StoreInfo]:
    """All stores of a cache.

    Args:
        cache: Root of the cache.
        dataset: Also tell what each store has of it.

    Raises:
        CacheError: There is no such directory, or a store is damaged.
    """
    cache = parse_place(cache)
    check_cache(cache, "Run `embedcache build`, or give the right --cache.")
    found = None
    if dataset is not None:
        from embedcache.dataset import read_dataset

        found = read_dataset(dataset)
    return [_describe(path, found) for path in stores_or_none(cache)]


def _describe(path: Place, dataset: "Dataset | None") -> StoreInfo:
    store = EmbeddingStore(path)
    store.check_shards()
    files, spec = store.files, store.spec
    shards = files.statuses("tokens/c")
    commits = [status.modified for status in files.statuses("commits").values()]
    records = read_all_records(files)  # after the shards were listed: what came in between is then no orphan
    entries = np.concatenate([np.zeros(0, ENTRY), *(entries for entries, _ in records)])
    orphans = orphans_among(shards, entries)
    return StoreInfo(
        path=str(path),
        modality=spec.modality,
        encoder=spec.name,
        is_random=spec.is_random,
        is_small=spec.is_small,
        is_imported=spec.is_imported,
        width=spec.width,
        dtype=spec.store_dtype,
        source_dtype=spec.source_dtype,
        layer=spec.layer,
        special_tokens=spec.special_tokens,
        pooling=spec.pooling,
        sequences=len(store),
        tokens=store.n_tokens,
        tokens_per_sequence=store.n_tokens / len(store) if len(store) else 0.0,
        size_bytes=sum(shard.size for shard in shards.values()),
        rounding=join_rounding(header for _, header in records),
        shards=len(shards),
        commits=len(commits),
        last_commit=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(max(commits))) if commits else "",
        index_is_current=store.index_is_current,
        quarantined={one.id: one.reason for one in read_quarantine(files).values()},
        orphans=len(orphans),
        orphan_bytes=sum(status.size for status in orphans.values()),
        temporary_files=len(files.temporaries()),
        workers=_count_workers(store),
        dataset=_use(store, dataset) if dataset is not None else None,
        spec=spec.to_json(),
    )


def _count_workers(store: EmbeddingStore) -> int:
    if not store.files.statuses("claims/tasks"):
        return 0  # nothing is written where nobody works
    return len({one.worker for one in find_holders(store.files, guess_clock(store.files)) if one.is_alive})


def _use(store: EmbeddingStore, dataset: "Dataset") -> DatasetUse:
    keys = [key for key in dataset.keys(store.spec.modality) if key is not None]
    distinct = list(dict.fromkeys(keys))
    n_rows = [_rows(store, some) for some in (keys, distinct)]
    return DatasetUse(
        transcripts=len(keys),
        sequences=len(distinct),
        absent=int((store.find(distinct) < 0).sum()),
        size_bytes=n_rows[1] * store.layout.row_bytes,
        saved_bytes=(n_rows[0] - n_rows[1]) * store.layout.row_bytes,
    )


def _rows(store: EmbeddingStore, keys: Sequence[bytes]) -> int:
    """Rows of those sequences that the store has, repeated ones counted each time."""
    positions = store.find(keys)
    return int(store.lengths[positions[positions >= 0]].sum())


def format_cache(stores: list[StoreInfo]) -> str:
    """A table for people, and below it what else is worth a line."""
    if not stores:
        return "No stores. Run `embedcache build`, or give another --cache."
    head = "modality,encoder,weights,holds,width,sequences,tokens,a sequence,size,rounding,last commit,store"
    rows = [tuple(head.split(","))]
    rows += [
        (
            store.modality,
            store.encoder,
            _weights(store),
            _holds(store),
            str(store.width),
            f"{store.sequences:,}",
            f"{store.tokens:,}",
            f"{store.tokens_per_sequence:,.1f}",
            format_bytes(store.size_bytes),
            f"{store.rounding['relative_l2']:.1e}" if store.rounding else "none" if store.dtype == "float32" else "-",
            store.last_commit or "never",
            parse_place(store.path).name,
        )
        for store in stores
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [*table, *(f"{parse_place(store.path).name}: {note}" for store in stores for note in _notes(store))]
    )


def _weights(store: StoreInfo) -> str:
    """Where the numbers come from; what an imported store claims was never checked."""
    if store.is_imported:
        return "random, imported" if store.is_random else "imported"
    if store.is_random:
        return "random"
    return "pretrained, small" if store.is_small else "pretrained"


def _holds(store: StoreInfo) -> str:
    """``float16 tokens``, ``int8 (from float16) mean, layer 12``."""
    before = f" (from {store.source_dtype})" if store.source_dtype else ""
    layer = "" if store.layer == -1 else f", layer {store.layer}"
    special = "" if store.special_tokens == "dropped" else " with special ones"
    return f"{store.dtype}{before} {'tokens' if store.pooling == 'none' else store.pooling}{layer}{special}"


def _notes(store: StoreInfo) -> list[str]:
    notes = []
    if store.workers:
        notes.append(f"{store.workers:,} workers at work")
    if (store.orphans or store.temporary_files) and not store.workers:
        notes.append(
            f"killed builds left {store.orphans:,} shards ({format_bytes(store.orphan_bytes)}) and "
            f"{store.temporary_files:,} temporary files; `embedcache gc` removes them when they are old"
        )
    if store.quarantined:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(store.quarantined.items())[:5])
        more = f" and {len(store.quarantined) - 5:,} more" if len(store.quarantined) > 5 else ""
        notes.append(f"{len(store.quarantined):,} sequences cannot be embedded: {named}{more}")
    if (use := store.dataset) is not None:
        lacks = f"lacks {use.absent:,} of them" if use.absent else "has all of them"
        notes.append(
            f"{use.transcripts:,} transcripts of the dataset share {use.sequences:,} sequences, {lacks}; "
            f"{format_bytes(use.size_bytes)}, {format_bytes(use.saved_bytes)} saved because none is embedded twice"
        )
    return notes
