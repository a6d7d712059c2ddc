"""What a build will cost, before anything is spent: tokens and bytes by counting, time from a short trial."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedcache.dataset import read_dataset
from embedcache.encoders.registry import card, encoder_spec, layer_specs
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheError
from embedcache.estimate_size import Size, count_sizes
from embedcache.estimate_time import count_windows, drawn_options, try_out
from embedcache.job import BuildJob
from embedcache.modality import choose_encoder, dataset_records
from embedcache.place import Place, parse_place
from embedcache.plan import Plan, make_plan
from embedcache.products import Product
from embedcache.sequences import Modality
from embedcache.store.files import open_files
from embedcache.store.find import list_stores, store_path
from embedcache.store.layout import new_layout, read_layout
from embedcache.store.quarantine import quarantined_keys
from embedcache.store.read import EmbeddingStore
from embedcache.units import format_bytes

__all__ = ["Estimate", "StoreEstimate", "estimate_job"]

UNKNOWN = {"weights", "revision", "architecture"}
"""Fields of a spec that only the files of the weights know, which an estimate does not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEstimate:
    """What a build will add to one store."""

    layer: int
    pooling: str
    store_dtype: str
    path: str
    """Of the store that is there; empty if the build makes it."""
    present: int
    """Distinct sequences of the dataset that it holds."""
    rows: int
    size_bytes: int
    """Bytes of all files: rows, padding, records and index."""
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Cost of a build by one worker on the cache as it is now. The names are those of the JSON form and stay."""

    encoder: str
    modality: Modality
    sequences: int
    """Distinct sequences."""
    repeated: int
    """Transcripts that share their sequence with an earlier one."""
    present: int
    """Distinct sequences that need no pass: every store has them, or they were found to be impossible to embed."""
    cropped: int
    """Of the sequences to embed."""
    tokens: int
    """Of the sequences to embed."""
    computed_tokens: int
    """Tokens that pass through the network: what windows share counts in each."""
    longest_tokens: int
    size_bytes: int
    """Bytes that the build will add to all stores."""
    shards: int
    free_bytes: int | None
    """Free on the disk of the cache; None for an object store, which has no end."""
    seconds: float | None
    """On ``device``; None if no trial was asked for."""
    device: str
    trial_tokens: int
    """Tokens that the trial embedded."""
    stores: tuple[StoreEstimate, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        windows = f", {self.computed_tokens:,} with what windows share" if self.computed_tokens > self.tokens else ""
        time_line = "not tried"
        if self.seconds is not None:
            time_line = f"about {_duration(self.seconds)} on {self.device} (from {self.trial_tokens:,} tokens tried)"
        each = [
            f"           {format_bytes(one.size_bytes)} for layer {one.layer}, pooling {one.pooling}, {one.store_dtype}"
            for one in self.stores
        ]
        return "\n".join(
            [
                f"encoder    {self.encoder}",
                f"sequences  {self.sequences:,} distinct {self.modality} ({self.repeated:,} repeated, "
                f"{self.present:,} need no pass, {self.cropped:,} to be cropped, longest "
                f"{self.longest_tokens:,} tokens)",
                f"tokens     {self.tokens:,} to embed{windows}",
                f"disk       {format_bytes(self.size_bytes)} in {self.shards:,} shard{'s' * (self.shards != 1)}"
                f"{self._room()}",
                *(each if len(each) > 1 else []),
                f"time       {time_line}",
            ]
        )

    def _room(self) -> str:
        if self.free_bytes is None:
            return ""
        if self.size_bytes > self.free_bytes:
            return f", BUT ONLY {format_bytes(self.free_bytes)} ARE FREE: choose another --cache, or a smaller store"
        return f"; {format_bytes(self.free_bytes)} are free"


def estimate_job(job: BuildJob, *, trial_seconds: float = 5.0) -> Estimate:
    """Count what ``run_job`` would do now. Reads no published weights, writes nothing.

    Sequences count as present in a store of the same settings whatever the digest of its weights, unless
    ``job.options`` names the directory of the weights. The trial runs the real architecture with random weights, for
    they take the same time.

    Args:
        job: The build.
        trial_seconds: About how long the trial may compute; 0 leaves the time out.

    Raises:
        EmbedCacheError: As ``run_job``, before it embeds; or several stores could be meant.
    """
    found = read_dataset(job.dataset)
    name = choose_encoder(found, job.modality, job.encoder)
    spec = _spec(name, job)
    products = [
        _product(job.cache, replace(one, pooling=pooling))
        for one in layer_specs(name, spec, job.layers)
        for pooling in dict.fromkeys(job.poolings)
    ]
    present = [product.present for product in products]
    given_up = set() if job.retry or present[0] is None else quarantined_keys(products[0].files)
    with make_plan(dataset_records(found, job.modality), spec, present, given_up) as plan:
        for product in products:
            if product.layout is None:
                product.layout = new_layout(product.spec, longest=product.longest_rows(max(plan.lengths, default=0)))
        sizes = count_sizes(plan, products)
        windows = count_windows(plan.n_tokens, spec)
        trial = try_out(plan, job, name, trial_seconds) if trial_seconds > 0 else None
    stores = tuple(_store(product, size, plan) for product, size in zip(products, sizes, strict=True))
    return Estimate(
        encoder=name,
        modality=job.modality,
        sequences=plan.distinct,
        repeated=sum(key is not None for key in found.keys(job.modality)) - plan.distinct,
        present=plan.distinct - len(plan.keys),
        cropped=plan.cropped,
        tokens=plan.total_tokens,
        computed_tokens=int((windows.passes * windows.tokens).sum()),
        longest_tokens=max(plan.lengths, default=0),
        size_bytes=sum(store.size_bytes for store in stores),
        shards=sum(store.shards for store in stores),
        free_bytes=_free_bytes(parse_place(job.cache)),
        seconds=trial.seconds if trial else None,
        device=trial.device if trial else job.device,
        trial_tokens=trial.tokens if trial else 0,
        stores=stores,
    )


def _spec(name: str, job: BuildJob) -> EncoderSpec:
    """The spec of the encoder; without ``weights`` where files would have to be read for them."""
    if card(name).weights or job.options.get("weights") or job.options.get("random_init") is not None:
        return encoder_spec(name, job.modality, **job.options)
    drawn = encoder_spec(name, job.modality, **drawn_options(job.options))
    return replace(drawn, name=card(name).name, model_id=card(name).repository, weights="")


def _product(cache: str | Place, spec: EncoderSpec) -> Product:
    """A store of the build, opened if it is there."""
    if spec.weights:
        places = [store_path(cache, spec)]
        places = [place for place in places if open_files(place).exists("zarr.json")]
    else:
        places = [
            place
            for place in list_stores(cache, spec.modality)
            if place.name.rpartition("-")[0] == spec.name
            and set(read_layout(open_files(place)).spec.differing(spec)) <= UNKNOWN
        ]
    if len(places) > 1:
        raise CacheError(
            f"{cache} has {len(places)} stores of these settings, made with other weights: "
            f"{', '.join(place.name for place in places)}. Say which weights: give their directory with --weights."
        )
    if not places:
        return Product(spec, store_path(cache, spec))
    store = EmbeddingStore.open(places[0])
    return Product(store.spec, places[0], store.layout, store)


def _store(product: Product, size: Size, plan: Plan) -> StoreEstimate:
    spec, is_there = product.spec, product.present is not None
    return StoreEstimate(
        layer=spec.layer,
        pooling=spec.pooling,
        store_dtype=spec.store_dtype,
        path=str(product.root) if is_there else "",
        present=plan.distinct - len(plan.given_up) - size.sequences,
        rows=size.rows,
        size_bytes=size.size_bytes,
        shards=size.shards,
    )


def _free_bytes(cache: Place) -> int | None:
    if not isinstance(cache, Path):
        return None
    path = cache.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
