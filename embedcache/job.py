"""One build as a value: everything that any worker of it needs to know, ready to be sent to another process."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcache.dataset import read_dataset
from embedcache.encoders.registry import EncoderOptions, layer_specs, load_layers
from embedcache.modality import choose_encoder, dataset_records, resolve_device
from embedcache.place import Place
from embedcache.sequences import Modality
from embedcache.store.find import store_path

if TYPE_CHECKING:
    from embedcache.build import BuildReport

__all__ = ["BuildJob", "run_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """What to embed, with which encoder, into which cache."""

    dataset: Path
    """Directory of the dataset."""
    cache: str | Place
    """Root of the cache, a directory or ``s3://bucket/path``; the place of a store in it follows from its spec."""
    modality: Modality
    encoder: str | None = None
    """Name of a card; else the dataset's default, else the paper's."""
    options: EncoderOptions = field(default_factory=EncoderOptions)
    """Settings of the encoder; ``layer`` and ``pooling`` are those below."""
    layers: tuple[int, ...] = (-1,)
    """Each layer becomes a store, or one for each pooling of it."""
    poolings: tuple[str, ...] = ("none",)
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1`` or ``auto``."""
    tokens_per_batch: int | None = None
    """Tokens of one call of the encoder; None chooses by the device and its free memory."""
    workers: int = 1
    """How many workers are expected to share the work; more make smaller tasks."""
    retry: bool = False
    """Try sequences again that were given up before."""


def run_job(job: BuildJob) -> "BuildReport":
    """Take part in a build, in this process, until it is done.

    Raises:
        EmbedCacheError: See ``read_dataset``, ``load_layers`` and ``build_products``.
    """
    from embedcache.budget import find_budget
    from embedcache.build import build_products
    from embedcache.products import Product

    found = read_dataset(job.dataset)
    name = choose_encoder(found, job.modality, job.encoder)
    place = resolve_device(job.device)
    encoder = load_layers(name, job.modality, job.layers, device=place, **job.options)
    specs = [
        replace(spec, pooling=pooling)
        for spec in layer_specs(name, encoder.spec, job.layers)
        for pooling in dict.fromkeys(job.poolings)
    ]
    return build_products(
        dataset_records(found, job.modality),
        encoder,
        [Product(spec, store_path(job.cache, spec)) for spec in specs],
        tokens_per_batch=job.tokens_per_batch or find_budget(encoder, place),
        workers=job.workers,
        retry=job.retry,
    )
