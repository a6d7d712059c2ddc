"""One modality of a dataset: its encoder, its sequences, and where they are embedded."""

from collections.abc import Iterator

from embedcache.dataset import Dataset
from embedcache.encoders.cards import PAPER_ENCODERS
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.sequences import Modality, SequenceRecord

__all__ = ["choose_encoder", "dataset_records", "resolve_device"]


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


DEVICES = ("cpu", "cuda")


def resolve_device(device: str) -> str:
    """Name of the torch device that a user means.

    Raises:
        InvalidInputError: It is not on this machine, or not one that we run on.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise InvalidSettingError(f"device {device!r} is not known. Choose cpu, cuda, cuda:<number> or auto.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {device!r} is not here: {torch.cuda.device_count()} CUDA devices were found. "
            "Use --device cpu, or a torch build for CUDA."
        )
    return device
