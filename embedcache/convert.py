"""Making a store of another number format from one that is there, without the encoder."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.choices import StoreDtype
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheDamagedError, InvalidSettingError
from embedcache.interrupt import stop_requests
from embedcache.place import Place
from embedcache.progress import Progress
from embedcache.sequences import Modality
from embedcache.store.files import open_files
from embedcache.store.find import find_store, list_stores, store_path
from embedcache.store.index import read_all_records, write_index
from embedcache.store.layout import SHARD_BYTES, Array, Layout, create_store, read_layout
from embedcache.store.mean import settle_mean
from embedcache.store.numbers import RoundingError, encode_rows
from embedcache.store.read import EmbeddingStore
from embedcache.store.rounding import join_rounding
from embedcache.store.transfer import Carrier, Load, check_fits, check_room, plan_loads

__all__ = ["ConvertReport", "convert_store", "converted_spec"]

MEAN_SEQUENCES = 256
MEAN_TOKENS = 64
"""Of a sequence, for the channel mean of int8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What a conversion did."""

    source: str
    store: str
    """The new store."""
    dtype: str
    source_dtype: str
    """Number format of the source."""
    rounded_before: str
    """Format that had rounded the encoder's numbers before; empty if the source holds them as they came."""
    converted: int
    """Sequences converted now; the others were there."""
    tokens: int
    present: int
    """Sequences that the new store had already."""
    size_bytes: int
    """Bytes of rows written now."""
    rounding: dict[str, float] | None
    """``relative_l2``, ``cosine`` and number of ``tokens`` compared, of the whole new store with the rows of the
    source; None for float32, which keeps every bit."""
    source_rounding: dict[str, float] | None
    """The same, measured when the source was written; None if it keeps every bit, or nobody measured it."""
    damaged: tuple[str, ...]
    """Sequences that are damaged in the source and were left out, 32 hexadecimal digits each."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.source_dtype} to {self.dtype}: {self.converted:,} sequences ({self.tokens:,} tokens, "
            f"{self.size_bytes:,} bytes) written, {self.present:,} were there.",
            self.store,
        ]
        if self.rounding is not None:
            lines.append(f"Against the rows of the source: {_error(self.rounding)}.")
        if self.rounded_before:
            before = f" ({_error(self.source_rounding)})" if self.source_rounding else ""
            lines.append(
                f"Rounded before: the source was rounded to {self.rounded_before}{before}, and what that lost is lost "
                "here too."
            )
        return "\n".join(lines)

    def raise_if_damaged(self) -> None:
        """Raise what the command ends with.

        Raises:
            CacheDamagedError: Sequences of the source could not be converted.
        """
        if self.damaged:
            raise CacheDamagedError(
                f"{len(self.damaged):,} sequences of {self.source} are damaged and were left out, such as "
                f"{self.damaged[0]}. Run `embedcache verify --repair`, build them again, then run this command again."
            )


def _error(rounding: Mapping[str, float]) -> str:
    return f"relative error {rounding['relative_l2']:.2g}, cosine {rounding['cosine']:.6f}"


def converted_spec(spec: EncoderSpec, store_dtype: StoreDtype) -> EncoderSpec:
    """Spec of a store of other numbers; that of a build, if the numbers are those of a build.

    Raises:
        InvalidSettingError: It is that format already, or the rows would be rounded a third time.
    """
    came = spec.source_dtype if spec.store_dtype == "float32" else spec.store_dtype
    if store_dtype in (spec.store_dtype, came if came == "int8" else ""):
        raise InvalidSettingError(
            f"{spec.directory} holds {spec.store_dtype}{f' that was {came}' if spec.source_dtype else ''}: there "
            f"is nothing to gain as {store_dtype}. Give another --store-dtype."
        )
    if spec.source_dtype and spec.store_dtype != "float32":
        raise InvalidSettingError(
            f"{spec.directory} was rounded to {spec.source_dtype} and then to {spec.store_dtype}; a third time would "
            f"lose more than needed. Convert the store of {spec.source_dtype} instead, or build it again."
        )
    return replace(spec, store_dtype=store_dtype, source_dtype="" if came == store_dtype else came)


def convert_store(
    cache: str | Place,
    modality: Modality,
    store_dtype: StoreDtype,
    *,
    encoder: str | None = None,
    output: str | Place | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ConvertReport:
    """Write a store with other numbers beside one that is there, which stays as it is.

    What the new store has already is left out: after a kill the same call goes on where it stopped. From float32, the
    new store is the one that a build with this format makes, and a build may go on with it.

    Args:
        cache: Root of the cache, a directory or ``s3://bucket/path``.
        modality: Of the store.
        store_dtype: Number format of the new store.
        encoder: Which store, as in ``find_store``; the new store, begun earlier, is not meant.
        output: Root of the cache for the new store, by default the same.
        shard_bytes: Size of a shard, used when the new store is made.

    Returns:
        What was done, with the rounding error measured on a sample of the tokens of every sequence.

    Raises:
        CacheError: No such store, a damaged one, or a disk that is too small, full or read-only.
        InvalidSettingError: Nothing to convert, see ``converted_spec``.
        StoppedError: A signal asked to stop; what was finished is committed.
    """
    store = EmbeddingStore(_find_source(cache, modality, encoder, store_dtype))
    spec = converted_spec(store.spec, store_dtype)
    root = store_path(output if output is not None else cache, spec)
    plan = plan_loads(store.files, open_files(root))
    check_room(root, plan.n_rows * Layout(spec=spec, shard_rows=0).row_bytes)
    layout = create_store(root, spec, longest=max(plan.longest, spec.max_tokens), shard_bytes=shard_bytes)
    check_fits(root, layout, plan.longest)
    change = _Change(store, layout, _mean(store, root, layout))
    groups = list(_full_shards(plan.loads, layout.shard_rows))
    title = f"{modality} {store.dtype} to {store_dtype}"
    with stop_requests() as stop, Progress(plan.n_rows, "tok", title) as progress:
        carrier = Carrier(store.files, store.layout, root, change, progress.update)
        carrier.carry(groups, lambda: stop)
    write_index(root)
    stop.check(f"Stopped after {carrier.tokens:,} of {plan.n_rows:,} tokens. Run the same command to go on.")
    return _report(store, root, spec, carrier, plan.present)


def _report(source: EmbeddingStore, root: Place, spec: EncoderSpec, carrier: Carrier, present: int) -> ConvertReport:
    headers, before = (read_all_records(open_files(place)) for place in (root, source.root))
    return ConvertReport(
        source=str(source.root),
        store=str(root),
        dtype=spec.store_dtype,
        source_dtype=source.dtype,
        rounded_before=spec.source_dtype,
        converted=carrier.sequences,
        tokens=carrier.tokens,
        present=present,
        size_bytes=carrier.size_bytes,
        rounding=join_rounding(header for _, header in headers),
        source_rounding=join_rounding(header for _, header in before),
        damaged=tuple(key.hex() for key in carrier.damaged),
    )


def _find_source(cache: str | Place, modality: Modality, encoder: str | None, store_dtype: StoreDtype) -> Place:
    """The store that is meant: of several with one name the only one that can be converted, such as after a kill."""
    named = [path for path in list_stores(cache, modality) if encoder in (None, path.name.rpartition("-")[0])]
    fit = [path for path in named if _is_convertible(read_layout(open_files(path)).spec, store_dtype)]
    return fit[0] if len(fit) == 1 else find_store(cache, modality, encoder)


def _is_convertible(spec: EncoderSpec, store_dtype: StoreDtype) -> bool:
    try:
        converted_spec(spec, store_dtype)
    except InvalidSettingError:
        return False
    return True


def _full_shards(loads: Sequence[Load], shard_rows: int) -> Iterator[list[Load]]:
    """Loads together that fill a shard: rows of fewer bytes need fewer files."""
    group, rows = list[Load](), 0
    for load in loads:
        if group and rows + load.n_rows > shard_rows:
            yield group
            group, rows = [], 0
        group.append(load)
        rows += load.n_rows
    if group:
        yield group


def _mean(store: EmbeddingStore, root: Place, layout: Layout) -> NDArray[np.float32] | None:
    """Channel mean of an int8 store: of sequences evenly spaced among the keys, which are in random order."""
    positions = np.flatnonzero(store.lengths)
    if layout.spec.store_dtype != "int8" or not len(positions):
        return None
    chosen = positions[:: max(1, -(-len(positions) // MEAN_SEQUENCES))].tolist()
    rows = [store.decode(store.view(i)).float().numpy() for i in chosen]
    return settle_mean(open_files(root), layout, [one[:: max(1, -(-len(one) // MEAN_TOKENS))] for one in rows])


class _Change:
    """See ``Form``: from the numbers of one store to those of another."""

    def __init__(self, source: EmbeddingStore, target: Layout, mean: NDArray[np.float32] | None) -> None:
        self._source, self._dtype, self._mean = source, target.spec.store_dtype, mean
        self._rounding = RoundingError(self._dtype, mean)

    def rows(self, rows: Array) -> Array:
        import torch

        stored = torch.from_numpy(np.array(rows))  # a copy: torch warns of memory that it must not write
        if self._source.dtype == "bfloat16":
            stored = stored.view(torch.bfloat16)
        exact: NDArray[np.float32] = self._source.decode(stored).float().numpy()
        made = encode_rows(exact, self._dtype, self._mean, encoder=self._source.spec.name)
        if self._dtype != "float32":
            self._rounding.add(exact, made)
        return made

    def extra(self, headers: Collection[Mapping[str, Any]]) -> dict[str, Any]:
        found, self._rounding = self._rounding, RoundingError(self._dtype, self._mean)
        kept: dict[str, Any] = {} if self._dtype == "float32" else {"rounding": found.to_json()}
        before = join_rounding(headers)
        return {**kept, "converted_from": self._source.spec.directory, **({"rounded_before": before} if before else {})}
