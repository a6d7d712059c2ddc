"""Run an encoder once over every distinct sequence that its store lacks."""

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.batching import cut_by_tokens
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.errors import CacheError, EmbedCacheError
from embedcache.info import format_bytes
from embedcache.interrupt import stop_requests
from embedcache.place import Place, parse_place
from embedcache.plan import Plan, make_plan
from embedcache.progress import Progress
from embedcache.sequences import SequenceRecord
from embedcache.store.files import open_files
from embedcache.store.index import write_index
from embedcache.store.layout import SHARD_BYTES, Array, Layout, create_store
from embedcache.store.read import EmbeddingStore
from embedcache.store.write import commit_task

__all__ = ["BuildReport", "build_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build found and did."""

    store: Place
    distinct: int
    """Distinct sequences among the records."""
    repeated: int
    """Records that share their sequence with an earlier one."""
    computed: int
    """Sequences embedded now; the other distinct ones were in the store."""
    tokens: int
    """Tokens embedded now."""
    cropped: int
    """Sequences embedded now that the crop rule shortened."""
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.tokens / self.seconds:,.0f} tokens a second" if self.computed else ""
        return (
            f"{self.computed:,} of {self.distinct:,} distinct sequences embedded ({self.tokens:,} tokens) in "
            f"{self.seconds:.1f} s{rate}; {self.distinct - self.computed:,} were there, {self.repeated:,} records "
            f"repeat another's sequence, {self.cropped:,} were cropped.\n{self.store}"
        )


def build_cache(
    records: Iterable[SequenceRecord],
    encoder: Encoder,
    store: str | Place,
    *,
    tokens_per_batch: int = 2048,
    shard_bytes: int = SHARD_BYTES,
) -> BuildReport:
    """Embed what the store lacks; a second call with the same records computes nothing.

    A killed build loses the shard in flight. Ctrl-C and SIGTERM lose nothing: what was finished is
    committed before ``StoppedError`` is raised.

    Args:
        records: Normalised sequences of the encoder's modality, in any order, repeated or not.
        encoder: The network and its spec.
        store: Directory of the store, made if it is not there.
        tokens_per_batch: Tokens of one call of the encoder; more use more memory, and on a CPU no less time.
        shard_bytes: Size of a shard, used when the store is made.

    Raises:
        CacheMismatchError: The store was built with another spec.
        CacheError: The disk is too small, full or read-only.
        StoppedError: A signal asked to stop.
    """
    if tokens_per_batch < 1:
        raise CacheError(f"tokens per batch is {tokens_per_batch}, expected at least 1. Raise --tokens-per-batch.")
    started, store, spec = time.monotonic(), parse_place(store), encoder.spec
    present = EmbeddingStore(store) if open_files(store).exists("zarr.json") else None
    if present is not None:
        present.check_shards()
    with make_plan(records, spec, present) as plan:
        layout = create_store(store, spec, longest=max(plan.lengths, default=0), shard_bytes=shard_bytes)
        _check_room(plan, layout, store)
        _embed_all(plan, encoder, layout, store, tokens_per_batch)
    return BuildReport(
        store=store,
        distinct=plan.distinct,
        repeated=plan.repeated,
        computed=len(plan.keys),
        tokens=plan.total_tokens,
        cropped=plan.cropped,
        seconds=time.monotonic() - started,
    )


def _embed_all(plan: Plan, encoder: Encoder, layout: Layout, store: Place, tokens_per_batch: int) -> None:
    """Embed task after task, while a thread writes the task before."""
    title = f"{encoder.spec.modality} {encoder.spec.name}"
    with stop_requests() as stop, Progress(plan.total_tokens, "tok", title) as progress, _writer(store) as write:
        n_tokens = plan.n_tokens
        for task in plan.tasks(layout.shard_rows):
            done: list[tuple[bytes, Array]] = []
            for batch in cut_by_tokens(task, n_tokens, tokens_per_batch):
                if not stop:
                    done += _embed(plan, batch, encoder)
                    progress.update(sum(plan.lengths[i] for i in batch))
            if done:
                write(done)
    stop.check(
        f"Stopped after {progress.done:,} of {progress.total:,} tokens; what was finished is in {store}. "
        "Run the same command to go on."
    )


@contextmanager
def _writer(store: Place) -> Iterator[Any]:
    """A function that commits sequences in a thread, one task at a time; the index is merged at the end."""
    pending: list[Future[bool]] = []

    def write(sequences: list[tuple[bytes, Array]]) -> None:
        if pending:
            pending.pop().result()  # at most one task waits, and a full disk is told at once
        pending.append(pool.submit(commit_task, store, sequences))

    with ThreadPoolExecutor(1) as pool:
        yield write
        for future in pending:
            future.result()
    write_index(store)


def _embed(plan: Plan, batch: NDArray[np.int64], encoder: Encoder) -> Iterator[tuple[bytes, Array]]:
    """Key and rows in the stored dtype of each sequence of a batch."""
    arrays = encoder.encode([plan.sequence(int(i)) for i in batch])
    if len(arrays) != len(batch):
        raise EmbedCacheError(f"encoder {encoder.spec.name} returned {len(arrays)} arrays for {len(batch)} sequences.")
    for i, array in zip(batch.tolist(), arrays, strict=True):
        expected = (plan.lengths[i], encoder.spec.width)
        if array.shape != expected:
            raise EmbedCacheError(
                f"encoder {encoder.spec.name} returned rows {array.shape} for a sequence of {expected[0]} tokens, "
                f"expected {expected}: special tokens dropped, nothing cut. Mend the encoder."
            )
        yield plan.keys[i], to_stored(array, encoder.spec)


def to_stored(rows: NDArray[np.float32], spec: EncoderSpec) -> Array:
    """Rows in the numbers of the store, rounded to nearest; bfloat16 as its 16 bits.

    Raises:
        CacheError: A value is not finite, or too large for the stored type.
    """
    import torch

    values = torch.from_numpy(np.ascontiguousarray(rows)).to(getattr(torch, spec.store_dtype))
    # the sum, without a copy, is finite if all values are; only where it is not, each one is looked at
    if not math.isfinite(values.sum(dtype=torch.float32)) and not bool(torch.isfinite(values).all()):
        largest = float(np.abs(rows).max(initial=0, where=~np.isnan(rows)))
        raise CacheError(
            f"an embedding of {spec.name} is not finite as {spec.store_dtype} (largest value {largest:.4g}). "
            "Use --store-dtype bfloat16 or float32; if it is not finite there, the weights are damaged."
        )
    return (values.view(torch.uint16) if spec.store_dtype == "bfloat16" else values).numpy()


def _check_room(plan: Plan, layout: Layout, store: Place) -> None:
    """Refuse before any work what could not be written after it."""
    longest, size_bytes = max(plan.lengths, default=0), plan.total_tokens * layout.row_bytes
    if longest > layout.shard_rows:
        raise CacheError(
            f"a sequence of {longest} tokens does not fit the shards of {store}, which were fixed at "
            f"{layout.shard_rows} rows when it was made. Build into another --cache."
        )
    if not isinstance(store, Path):
        return  # an object store has no end
    free = shutil.disk_usage(store).free
    if size_bytes > free:
        raise CacheError(
            f"{store} needs {format_bytes(size_bytes)} more and its disk has {format_bytes(free)} free. "
            "Free space, or choose another --cache."
        )
