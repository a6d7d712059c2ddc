"""Making one cache of several that were built apart."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import CacheDamagedError, CacheError, CacheMismatchError, InvalidSettingError
from embedcache.interrupt import StopFlag, stop_requests
from embedcache.place import Place, check_cache, parse_place
from embedcache.progress import Progress
from embedcache.sequences import MODALITIES, Modality
from embedcache.store.files import open_files
from embedcache.store.find import list_stores, store_path
from embedcache.store.index import entry_keys, write_index
from embedcache.store.layout import Array, create_store, read_layout
from embedcache.store.mean import adopt_mean, read_mean
from embedcache.store.read import EmbeddingStore
from embedcache.store.transfer import Carrier, Difference, check_fits, check_room, plan_loads

__all__ = ["MergeReport", "MergedStore", "merge_caches"]

OF_EVERY_RECORD = {"version", "task", "sequences", "crc32c", "header_crc32c"}
COMPARED = 100
"""Sequences that two stores hold with other bytes and whose numbers are compared."""
OTHER_MEAN = (
    "its int8 rows are distances from another channel mean than those in the cache. Merge stores of a float type and "
    "run `embedcache convert` on the result, or build what is missing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedStore:
    """What became of one store of a source."""

    source: str
    store: str
    """Where its sequences are now."""
    copied: int = 0
    tokens: int = 0
    size_bytes: int = 0
    """Bytes of rows that were written."""
    present: int = 0
    """Sequences that the cache had already; it keeps its own."""
    differing: tuple[str, ...] = ()
    """Those of them with other bytes, 32 hexadecimal digits each: another machine rounds otherwise."""
    difference: float | None = None
    """Relative L2 distance of the differing ones (of the first hundred); None without any, or of other lengths."""
    damaged: tuple[str, ...] = ()
    """Sequences that are damaged in the source and were left out."""
    refused: str = ""
    """Why nothing of it was copied; empty otherwise."""

    def __str__(self) -> str:
        if self.refused:
            return f"{self.source}: not copied: {self.refused}"
        text = (
            f"{self.source}: {self.copied:,} sequences ({self.tokens:,} tokens, {self.size_bytes:,} bytes) copied, "
            f"{self.present:,} were there"
        )
        if self.differing:
            how = f" by {self.difference:.2g} (relative L2)" if self.difference is not None else " in their length"
            text += f", {len(self.differing):,} of them with numbers that differ{how}; those of the cache stay"
        return text + (f", {len(self.damaged):,} are damaged and were left out" if self.damaged else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """What a merge did."""

    cache: str
    stores: tuple[MergedStore, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(map(str, self.stores)) or "No stores."

    def raise_if_incomplete(self) -> None:
        """Raise what the command ends with.

        Raises:
            CacheDamagedError: Sequences are damaged in a source.
            CacheMismatchError: A store could not be copied.
        """
        if damaged := [store for store in self.stores if store.damaged]:
            raise CacheDamagedError(
                f"{sum(len(store.damaged) for store in damaged):,} sequences are damaged in {damaged[0].source} and "
                "were left out. Run `embedcache verify --repair` on that cache, or build them in this one."
            )
        if refused := [store for store in self.stores if store.refused]:
            raise CacheMismatchError(f"{refused[0].source} was not copied: {refused[0].refused}")


def merge_caches(sources: Sequence[str | Place], cache: str | Place, *, dataset: Path | None = None) -> MergeReport:
    """Copy into a cache what it lacks of others. Stores of equal settings become one; the sources stay as they are.

    Every checksum is compared on the way. What the cache has already stays, so that after a kill the same call goes on
    where it stopped. Sequences that an encoder could not embed are not noted in the cache: its builds try them.

    Args:
        sources: Roots of caches, directories or ``s3://bucket/path``.
        cache: Root of the cache that gets all, made if it is not there.
        dataset: Copy only sequences of this dataset.

    Raises:
        InvalidSettingError: The cache is one of the sources, or there is none.
        CacheError: A source does not exist or has a damaged record, or the disk is too small, full or read-only.
        StoppedError: A signal asked to stop; what was finished is committed.
    """
    cache = parse_place(cache)
    pairs = [pair for source in sources for pair in _pairs(parse_place(source), cache)]
    wanted = _wanted(dataset)
    total, size_bytes = _needed(pairs, wanted)
    check_room(cache, size_bytes)
    done = list[MergedStore]()
    with stop_requests() as stop, Progress(total, "tok", "merge") as progress:
        for source, target in pairs:
            if not stop:
                done.append(_merge(source, target, wanted, stop, progress))
    stop.check(f"Stopped after {progress.done:,} of {total:,} tokens. Run the same command to go on.")
    return MergeReport(cache=str(cache), stores=tuple(done))


def _pairs(source: Place, cache: Place) -> Iterator[tuple[Place, Place]]:
    """Each store of a source, and where its sequences go."""
    check_cache(source, "Give the root of a cache.")
    same = source.resolve() == cache.resolve() if isinstance(source, Path) and isinstance(cache, Path) else False
    if same or source == cache:
        raise InvalidSettingError(f"{source} cannot be merged into itself. Give another --cache.")
    stores = list(list_stores(source))
    if not stores:
        raise CacheError(f"{source} holds no stores. Give the root of a cache, the directory above dna, rna, protein.")
    yield from ((path, store_path(cache, read_layout(open_files(path)).spec)) for path in stores)


def _wanted(dataset: Path | None) -> dict[Modality, set[bytes]] | None:
    if dataset is None:
        return None
    from embedcache.dataset import read_dataset

    found = read_dataset(dataset)
    return {one: {key for key in found.keys(one) if key is not None} for one in MODALITIES if one in found.modalities}


def _plan(source: Place, target: Place, wanted: Mapping[Modality, Collection[bytes]] | None) -> Difference:
    files = open_files(source)
    chosen = None if wanted is None else wanted.get(read_layout(files).spec.modality, ())
    return plan_loads(files, open_files(target), chosen)


def _needed(
    pairs: Sequence[tuple[Place, Place]], wanted: Mapping[Modality, Collection[bytes]] | None
) -> tuple[int, int]:
    """Tokens to copy, and their bytes; a sequence that two sources have counts once."""
    tokens = size_bytes = 0
    seen: dict[str, set[bytes]] = {}
    for source, target in pairs:
        row_bytes, known = read_layout(open_files(source)).row_bytes, seen.setdefault(str(target), set())
        for load in _plan(source, target, wanted).loads:
            keys = entry_keys(load.entries)
            fresh = int(load.entries["length"][[key not in known for key in keys]].sum())
            known.update(keys)
            tokens, size_bytes = tokens + fresh, size_bytes + fresh * row_bytes
    return tokens, size_bytes


def _merge(
    source: Place,
    target: Place,
    wanted: Mapping[Modality, Collection[bytes]] | None,
    stop: StopFlag,
    progress: Progress,
) -> MergedStore:
    files, plan = open_files(source), _plan(source, target, wanted)
    nothing = MergedStore(source=str(source), store=str(target), present=plan.present)
    if not plan.loads and plan.differing is None:
        return nothing
    layout, keys = read_layout(files), entry_keys(plan.differing) if plan.differing is not None else []
    longest = max(plan.longest, layout.spec.max_tokens)
    made = create_store(target, layout.spec, longest=longest, shard_bytes=layout.shard_rows * layout.row_bytes)
    check_fits(target, made, plan.longest)
    is_int8 = layout.spec.store_dtype == "int8" and plan.n_rows > 0
    if is_int8 and not adopt_mean(open_files(target), made, read_mean(files, layout)):
        return replace(nothing, refused=OTHER_MEAN)
    carrier = Carrier(files, layout, target, _AsItIs(), progress.update)
    carrier.carry([[load] for load in plan.loads], lambda: stop)
    write_index(target)
    return replace(
        nothing,
        copied=carrier.sequences,
        tokens=carrier.tokens,
        size_bytes=carrier.size_bytes,
        differing=tuple(key.hex() for key in keys),
        difference=_difference(EmbeddingStore(source), EmbeddingStore(target), keys[:COMPARED]),
        damaged=tuple(key.hex() for key in carrier.damaged),
    )


def _difference(one: EmbeddingStore, other: EmbeddingStore, keys: Sequence[bytes]) -> float | None:
    """Relative L2 distance of the embeddings of some sequences in two stores; None where lengths differ, or of none."""
    lost = signal = 0.0
    for key in keys:
        theirs, ours = one[key].astype(np.float64), other[key].astype(np.float64)
        if theirs.shape != ours.shape:
            return None
        lost += float(np.square(theirs - ours).sum())
        signal += float(np.square(ours).sum())
    return float(np.sqrt(lost / signal)) if signal else None


class _AsItIs:
    """See ``Form``: the same bytes, and what the header of the record said of them."""

    def rows(self, rows: Array) -> Array:
        return rows

    def extra(self, headers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: value for header in headers for name, value in header.items() if name not in OF_EVERY_RECORD}
