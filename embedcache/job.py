"""One build as a value: everything that any worker of it needs to know, ready to be sent to another process."""

import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcache.dataset import read_dataset
from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.hub import portable_name
from embedcache.encoders.registry import (
    EncoderOptions,
    Loader,
    card,
    encoder_spec,
    layer_specs,
    load_layers,
    register_encoder,
    registered_loader,
)
from embedcache.errors import InvalidSettingError
from embedcache.modality import choose_encoder, dataset_records, resolve_device
from embedcache.place import Place, check_cache, parse_place
from embedcache.sequences import Modality
from embedcache.store.files import open_files
from embedcache.store.find import list_stores, store_path

if TYPE_CHECKING:
    from embedcache.build import BuildReport

__all__ = ["BuildJob", "prepare_job", "run_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """What to embed, with which encoder, into which cache."""

    dataset: Path
    """Directory of the dataset."""
    cache: str | Place
    """Root of the cache, a directory or ``s3://bucket/path``; the place of a store in it follows from its spec."""
    modality: Modality
    encoder: str | None = None
    """Name or place of an encoder; else the dataset's default, else the paper's."""
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
    card: EncoderCard | None = None
    """Of the encoder, so that workers elsewhere know one that was registered here."""
    loader: Loader | None = None
    """As it was registered with the card, if it was."""

    def perform(self) -> "BuildReport":
        """What a worker does; see ``run_job``."""
        return run_job(self)

    def again(self) -> "BuildJob":
        """The job of a further worker: one lets sequences be tried again, and only once."""
        return replace(self, retry=False)

    def on_cpu(self) -> "BuildJob":
        """The job for a worker that is given no GPU."""
        return replace(self, device="cpu")

    def progress(self) -> dict[Place, int]:
        """Commits and verdicts in the stores of the modality."""
        counts = {}
        for place in list_stores(self.cache, self.modality):
            files = open_files(place)
            counts[place] = len(files.statuses("commits")) + len(files.statuses("claims/quarantine"))
        return counts


def run_job(job: BuildJob) -> "BuildReport":
    """Take part in a build, in this process, until it is done.

    Raises:
        EmbedCacheError: See ``read_dataset``, ``load_layers`` and ``build_products``.
    """
    from embedcache.budget import find_budget
    from embedcache.build import build_products
    from embedcache.products import Product

    if job.card is not None:
        register_encoder(job.card, job.loader)
    check_cache(parse_place(job.cache))
    found = read_dataset(job.dataset)
    name = choose_encoder(found, job.modality, job.encoder)
    place = resolve_device(job.device)
    encoder = load_layers(name, job.modality, job.layers, device=place, **job.options)
    specs = [
        replace(spec, pooling=pooling)
        for spec in layer_specs(name, encoder.spec, job.layers)
        for pooling in dict.fromkeys(job.poolings)
    ]
    report = build_products(
        dataset_records(found, job.modality),
        encoder,
        [Product(spec, store_path(job.cache, spec)) for spec in specs],
        tokens_per_batch=job.tokens_per_batch or find_budget(encoder, place),
        workers=job.workers,
        retry=job.retry,
        self_test=True,
    )
    # a dataset hands out each distinct sequence once: only its rows tell how many share one
    return replace(report, repeated=sum(key is not None for key in found.keys(job.modality)) - report.distinct)


def prepare_job(job: BuildJob) -> BuildJob:
    """The job as processes of other directories and other machines understand it: whole paths, the encoder's card.

    Raises:
        EmbedCacheError: No worker could do this job, so none need be started: no such encoder, a dataset that cannot
            be read, a setting that the encoder does not allow, a loader that other processes cannot import.
    """
    check_cache(parse_place(job.cache))
    name = choose_encoder(read_dataset(job.dataset), job.modality, job.encoder)
    found, options = card(name), job.options.copy()
    if not found.weights and options.get("random_init") is None:  # published weights are big, and may lie elsewhere
        options["weights"], options["random_init"] = None, 0
    layer_specs(name, encoder_spec(name, job.modality, **options), job.layers)
    loader = registered_loader(found.name)
    _check_loader(name, loader)
    cache, weights = parse_place(job.cache), job.options.get("weights")
    return replace(
        job,
        dataset=job.dataset.absolute(),
        encoder=portable_name(name) if job.encoder else None,
        cache=cache.absolute() if isinstance(cache, Path) else cache,
        options={**job.options, "weights": weights.absolute() if weights is not None else None},
        card=found,
        loader=loader,
    )


def _check_loader(name: str, loader: Loader | None) -> None:
    try:
        pickle.dumps(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidSettingError(
            f"encoder {name!r} was registered with {getattr(loader, '__qualname__', loader)!r}, which other processes "
            "cannot import. Define it at the top of a module, or name it on the card as module:function."
        ) from error
