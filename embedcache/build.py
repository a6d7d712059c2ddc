"""Run an encoder once over every distinct sequence that its stores lack."""

import hashlib
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.embedding import Embedder
from embedcache.encoders.selftest import check_encoder
from embedcache.encoders.spec import Encoder
from embedcache.errors import CacheDamagedError, CacheError, InvalidSettingError, SkippedError
from embedcache.interrupt import stop_requests
from embedcache.place import Place, parse_place
from embedcache.plan import Plan, make_plan
from embedcache.products import Product, task_tokens
from embedcache.progress import Progress
from embedcache.sequences import SequenceRecord, normalised
from embedcache.store.files import open_files
from embedcache.store.find import list_stores
from embedcache.store.index import write_index
from embedcache.store.layout import SHARD_BYTES, create_store
from embedcache.store.leases import TTL_SECONDS, Leases
from embedcache.store.quarantine import Poisoned, read_quarantine, release
from embedcache.store.read import EmbeddingStore
from embedcache.store.tasks import Task, settle_tasks
from embedcache.units import format_bytes
from embedcache.work import Worker, committed_everywhere

__all__ = ["BuildReport", "build_cache", "build_products"]

ROUNDS_IN_VAIN = 3
"""Rounds of a build after which nothing more is in the stores than before: then it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build found and did."""

    stores: tuple[Place, ...]
    distinct: int
    """Distinct sequences among the records."""
    repeated: int
    """Records that share their sequence with an earlier one."""
    computed: int
    """Sequences embedded now by this process; the others were in the stores, or other workers embedded them."""
    tokens: int
    """Tokens embedded now by this process."""
    cropped: int
    """Sequences missing before that the crop rule shortened."""
    skipped: tuple[Poisoned, ...]
    """Sequences that cannot be embedded, found now or before."""
    seconds: float

    def raise_if_skipped(self) -> None:
        """Raise what the command ends with.

        Raises:
            SkippedError: Sequences could not be embedded; names them.
        """
        if self.skipped:
            named = "; ".join(f"{one.id} ({one.reason})" for one in self.skipped[:5])
            more = f" and {len(self.skipped) - 5:,} more" if len(self.skipped) > 5 else ""
            raise SkippedError(
                f"{len(self.skipped):,} sequences cannot be embedded and were skipped: {named}{more}. All others are "
                f"in the cache; reasons are in {self.store}/claims/quarantine. Try them again with --retry."
            )

    @property
    def store(self) -> Place:
        """The first store."""
        return self.stores[0]

    def __str__(self) -> str:
        rate = f", {self.tokens / self.seconds:,.0f} tokens a second" if self.computed else ""
        there = self.distinct - self.computed - len(self.skipped)
        skipped = f", {len(self.skipped):,} cannot be embedded" if self.skipped else ""
        return (
            f"{self.computed:,} of {self.distinct:,} distinct sequences embedded ({self.tokens:,} tokens) in "
            f"{self.seconds:.1f} s{rate}; {there:,} were there{skipped}, {self.repeated:,} records "
            f"repeat another's sequence, {self.cropped:,} were cropped.\n" + "\n".join(map(str, self.stores))
        )


def build_cache(
    records: Iterable[SequenceRecord],
    encoder: Encoder,
    store: str | Place,
    *,
    tokens_per_batch: int = 2048,
    shard_bytes: int = SHARD_BYTES,
) -> BuildReport:
    """Embed what a store lacks; a second call with the same records computes nothing.

    A killed build loses the tasks in flight. Ctrl-C and SIGTERM lose nothing: what was finished is
    committed before ``StoppedError`` is raised. Several processes may build one store at once: they share the work.

    Args:
        records: Sequences of the encoder's modality, in any spelling and order, repeated or not.
        encoder: The network and its spec.
        store: Place of the store, a directory or ``s3://bucket/path``, made if it is not there.
        tokens_per_batch: Tokens of one call of the encoder; more use more memory, and on a CPU no less time.
        shard_bytes: Size of a shard, used when the store is made.

    Returns:
        What was done. ``skipped`` names sequences that the encoder cannot embed.

    Raises:
        EmbedCacheError: The encoder is not fit to fill a store, see ``check_encoder``; nothing was written.
        InvalidSequenceError: A record has a letter that is not allowed, or none.
        CacheMismatchError: The store was built with another spec.
        CacheError: The disk is too small, full or read-only; the place is that of a whole cache.
        StoppedError: A signal asked to stop.
    """
    if isinstance(encoder, str):
        raise InvalidSettingError(f"encoder is the name {encoder!r}. Give load_encoder({encoder!r}, modality).")
    if next(list_stores(store), None) is not None:
        raise CacheError(f"{store} is a whole cache. Give the place of a store in it: store_path(cache, encoder.spec).")
    return build_products(
        map(normalised, records),
        encoder,
        [Product(encoder.spec, parse_place(store))],
        tokens_per_batch=tokens_per_batch,
        shard_bytes=shard_bytes,
        self_test=True,
    )


def build_products(
    records: Iterable[SequenceRecord],
    encoder: Encoder,
    products: Sequence[Product],
    *,
    tokens_per_batch: int = 2048,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 1,
    retry: bool = False,
    ttl: float = TTL_SECONDS,
    self_test: bool = False,
) -> BuildReport:
    """Embed what several stores lack, in one pass for all of them; see ``build_cache``.

    Args:
        records: As in ``build_cache``.
        encoder: Gives every layer that a product wants.
        products: At least one store. Their specs differ in layer, pooling and stored precision only. The first also
            holds what workers agree on.
        tokens_per_batch: As in ``build_cache``.
        shard_bytes: As in ``build_cache``.
        workers: How many processes are expected to share this work; more make smaller tasks.
        retry: Try sequences again that were given up before.
        ttl: Seconds after which a worker without heartbeat counts as dead.
        self_test: Try the encoder before anything is written, if there is anything to embed.
    """
    if tokens_per_batch < 1:
        raise CacheError(f"tokens per batch is {tokens_per_batch}, expected at least 1. Raise --tokens-per-batch.")
    started, files = time.monotonic(), products[0].files
    _open_present(products)
    given_up = read_quarantine(files)
    if retry:
        release(files, given_up)
        given_up = {}
    with make_plan(records, encoder.spec, [product.present for product in products], given_up) as plan:
        if self_test and plan.keys:
            check_encoder(encoder, sorted({product.spec.layer for product in products}))
        for product in products:
            longest = product.longest_rows(max(plan.lengths, default=0))
            product.layout = create_store(product.root, product.spec, longest=longest, shard_bytes=shard_bytes)
            _check_room(plan, product)
        done = _work_to_the_end(plan, Embedder(encoder, products, tokens_per_batch), workers, ttl)
        skipped = _skipped(plan, products)
    return BuildReport(
        stores=tuple(product.root for product in products),
        distinct=plan.distinct,
        repeated=plan.repeated,
        computed=sum(worker.computed for worker in done),
        tokens=sum(worker.tokens for worker in done),
        cropped=plan.cropped,
        skipped=skipped,
        seconds=time.monotonic() - started,
    )


def _open_present(products: Sequence[Product]) -> None:
    """Look what is committed."""
    for product in products:
        if open_files(product.root).exists("zarr.json"):
            product.present = EmbeddingStore(product.root)
            product.present.check_shards()


def _absent(keys: Sequence[bytes], products: Sequence[Product]) -> list[bytes]:
    """Those keys that a store lacked when it was looked at."""
    absent = np.zeros(len(keys), bool)
    for product in products:
        absent |= product.present.find(keys) < 0 if product.present is not None else True
    return [keys[i] for i in np.flatnonzero(absent).tolist()]


def _work_to_the_end(plan: Plan, embedder: Embedder, workers: int, ttl: float) -> list[Worker]:
    """Take part in the work until nothing is missing but what cannot be embedded.

    One round is enough, but where another worker committed a task without a sequence that it had been told to leave
    out and that we are to try again, or where a commit was withdrawn meanwhile.

    Raises:
        CacheDamagedError: What is embedded and committed is not found again, however often it is tried.
    """
    products, done, left = embedder.products, list[Worker](), list(plan.keys)
    fewest, in_vain = len(left) + 1, 0
    while left:
        in_vain = 0 if len(left) < fewest else in_vain + 1
        fewest = min(fewest, len(left))
        if in_vain == ROUNDS_IN_VAIN:
            raise CacheDamagedError(
                f"{products[0].root}: {len(left):,} sequences are missing after {ROUNDS_IN_VAIN} rounds that embedded "
                "them. Something takes away what is committed: run `embedcache verify`, and look who else writes there."
            )
        done.append(_work(plan, _settle(plan, set(left), products, workers), embedder, ttl))
        _write_indices(products)
        _open_present(products)
        left = [key for key in _absent(left, products) if key not in plan.given_up]
        given_up = read_quarantine(products[0].files) if left else {}
        left = [key for key in left if key not in given_up]
    if not done:
        _write_indices(products)
    return done


def _write_indices(products: Sequence[Product]) -> None:
    for product in products:
        write_index(product.root)


def _skipped(plan: Plan, products: Sequence[Product]) -> tuple[Poisoned, ...]:
    """Sequences of these records that nobody could embed, found now or before, by this worker or another."""
    given_up = read_quarantine(products[0].files)
    asked_for = [key for key in (*plan.given_up, *plan.keys) if key in given_up]
    return tuple(given_up[key] for key in _absent(list(dict.fromkeys(asked_for)), products))


def _settle(plan: Plan, missing: set[bytes], products: Sequence[Product], workers: int) -> list[Task]:
    """The open tasks of this work, as all its workers know them."""
    names = plan.work + "".join(sorted(product.spec.digest for product in products))
    work = hashlib.blake2b(names.encode(), digest_size=16).hexdigest()
    budget = task_tokens(products, plan.total_tokens, workers)
    known = set.intersection(*(set(product.present.tasks if product.present else ()) for product in products))
    return settle_tasks(
        products[0].files,
        work,
        missing,
        lambda keys: plan.tasks(keys, budget),
        known=known,
        committed=lambda: committed_everywhere(products),
    )


def _work(plan: Plan, tasks: Sequence[Task], embedder: Embedder, ttl: float) -> Worker:
    """Take part in the work until it is done."""
    products, spec = embedder.products, embedder.encoder.spec
    with (
        stop_requests() as stop,
        Progress(plan.total_tokens, "tok", f"{spec.modality} {spec.name}") as progress,
        Leases(products[0].files, ttl) as leases,
    ):
        worker = Worker(plan, products, tasks, leases, stop, progress, poll_seconds=min(1.0, ttl / 4))
        worker.run(embedder)
    if stop:
        _write_indices(products)
    stop.check(
        f"Stopped after {progress.done:,} of {progress.total:,} tokens; what was finished is in "
        f"{products[0].root}. Run the same command to go on."
    )
    return worker


def _check_room(plan: Plan, product: Product) -> None:
    """Refuse before any work what could not be written after it."""
    layout, store = product.layout, product.root
    assert layout is not None
    rows = [product.n_rows(length) for length in plan.lengths]
    longest, size_bytes = max(rows, default=0), sum(rows) * layout.row_bytes
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
