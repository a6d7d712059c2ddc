"""Building the embeddings of one modality of a dataset: what the command does, as functions."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from embedcache.dataset import Dataset, read_dataset
from embedcache.encoders.cards import PAPER_ENCODERS
from embedcache.encoders.registry import EncoderOptions, load_encoder
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.place import Place
from embedcache.sequences import Modality, SequenceRecord
from embedcache.store.find import store_path

if TYPE_CHECKING:
    from embedcache.build import BuildReport

__all__ = ["build_modality", "choose_encoder", "dataset_records", "resolve_device"]

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32_768}
"""On a CPU more than 2,048 tokens a call cost 15 % in caches; a GPU wants to be filled."""


def build_modality(
    *,
    dataset: Path,
    cache: str | Place,
    modality: Modality,
    encoder: str | None = None,
    options: EncoderOptions | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
) -> "BuildReport":
    """Embed every distinct sequence of one modality of a dataset that the cache lacks.

    Args:
        dataset: Directory of the dataset.
        cache: Root of the cache; the store's place in it follows from its spec.
        modality: Which sequences.
        encoder: Name of a card; else the dataset's default, else the paper's.
        options: Settings of the encoder.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``auto``.
        tokens_per_batch: Tokens of one call of the encoder; None chooses by the device.

    Raises:
        EmbedCacheError: See ``read_dataset``, ``load_encoder`` and ``build_cache``.
    """
    found = read_dataset(dataset)
    name = choose_encoder(found, modality, encoder)
    place = resolve_device(device)
    loaded = load_encoder(name, modality, device=place, **(options or {}))
    from embedcache.build import build_cache

    return build_cache(
        dataset_records(found, modality),
        loaded,
        store_path(cache, loaded.spec),
        tokens_per_batch=tokens_per_batch or TOKENS_PER_BATCH[place.partition(":")[0]],
    )


def choose_encoder(dataset: Dataset, modality: Modality, encoder: str | None) -> str:
    """The encoder asked for, else the one named in the dataset, else the paper's.

    Raises:
        InvalidInputError: The dataset has no sequence of this modality.
    """
    if modality not in dataset.modalities:
        raise InvalidInputError(
            f"{dataset.path} has no {modality} sequences, only {', '.join(dataset.modalities) or 'none at all'}. "
            "Choose another --modality, or prepare the dataset with them."
        )
    return encoder or dataset.encoder(modality) or PAPER_ENCODERS[modality]


def dataset_records(dataset: Dataset, modality: Modality) -> Iterator[SequenceRecord]:
    """Distinct sequences that transcripts of a dataset have, each under the ID of the first one that has it."""
    ids: dict[bytes, str] = {}
    for key, transcript in zip(dataset.keys(modality), dataset.samples["transcript_id"], strict=True):
        if key is not None:
            ids.setdefault(key, transcript)
    for key, sequence in dataset.sequences(modality):
        if key in ids:
            yield SequenceRecord(ids[key], sequence, modality)


def resolve_device(device: str) -> str:
    """Name of the torch device that a user means.

    Raises:
        InvalidInputError: It is not on this machine, or not one that we run on.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in TOKENS_PER_BATCH or (number and not number.isdecimal()):
        raise InvalidSettingError(f"device {device!r} is not known. Choose cpu, cuda, cuda:<number> or auto.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {device!r} is not here: {torch.cuda.device_count()} CUDA devices were found. "
            "Use --device cpu, or a torch build for CUDA."
        )
    return device
