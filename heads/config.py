"""Settings of a model and of its training: frozen, and checked when they are made. Imports nothing slow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality

__all__ = ["AGGREGATORS", "Centres", "ModelConfig", "TrainConfig"]

Centres = Literal["all", "dna", "rna", "protein"]

_LARGEST = 65_536  # of a width; such a layer has 16 GiB
_MANY = 2**63 - 1  # what torch takes as a seed

AGGREGATORS: dict[str, str] = {
    "cross-attention": "heads.aggregators:CrossAttentionAggregator",
    "concat": "heads.aggregators:ConcatAggregator",
}
"""Aggregators by name, and where their class is; a plug-in adds a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What the model is. Together with the widths of the encoders it fixes every shape."""

    modalities: tuple[Modality, ...] = MODALITIES
    """What the model reads. Order does not matter; it is kept as dna, rna, protein."""
    aggregator: str = "cross-attention"
    """How the modalities are mixed: ``cross-attention`` (IsoFormer's) or ``concat`` (means and an MLP)."""
    centres: Centres = "all"
    """Modalities whose tokens are updated and pooled. The paper's tables: ``all``; its released model: ``dna``."""
    heads: int = 8
    """Attention heads of a block."""
    rounds: int = 1
    """How often every centre reads all the others."""
    width: int | None = None
    """Width that tokens are projected to first; None keeps the width of each encoder, as the paper does."""
    hidden: int = 1024
    """Width of the hidden layers of ``concat``."""
    dropout: float = 0.1
    """Dropout of ``concat``; IsoFormer's cross-attention has none."""

    def __post_init__(self) -> None:
        chosen = tuple(self.modalities)
        if unknown := [name for name in chosen if name not in MODALITIES]:
            raise UnknownNameError("modality", unknown[0], MODALITIES)
        if not chosen or len(set(chosen)) < len(chosen):
            raise InvalidSettingError(f"Modalities are {list(chosen)}. Name at least one of them, each once.")
        object.__setattr__(self, "modalities", tuple(name for name in MODALITIES if name in chosen))
        if self.aggregator not in AGGREGATORS:
            raise UnknownNameError("aggregator", self.aggregator, AGGREGATORS)
        if self.centres != "all" and self.centres not in self.modalities:
            raise InvalidSettingError(
                f"The centre {self.centres!r} is not among the modalities {', '.join(self.modalities)}. "
                "Choose one of them, or all."
            )
        for name in ("heads", "rounds", "hidden"):
            _within(1, _LARGEST, name, getattr(self, name))
        if self.width is not None:
            _within(1, _LARGEST, "width", self.width)
            if self.width % self.heads and self.aggregator == "cross-attention":
                raise InvalidSettingError(
                    f"width {self.width} is not a multiple of {self.heads} heads. Change one of them."
                )
        if not 0 <= self.dropout < 1:
            raise InvalidSettingError(f"dropout is {self.dropout}. Give a value from 0 on, below 1.")

    @property
    def centre_modalities(self) -> tuple[Modality, ...]:
        """The modalities that are centres."""
        return self.modalities if self.centres == "all" else (self.centres,)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "modalities": list(self.modalities)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        _check_names(cls, found)
        return cls(**{**found, "modalities": tuple(found["modalities"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How the model is trained."""

    learning_rate: float = 1e-3
    """Adam's step. The paper's 3e-5 is for fine-tuned encoders; heads on a frozen cache take a larger one."""
    batch_size: int = 64
    """Transcripts a step."""
    epochs: int = 100
    """Most passes over the training rows."""
    patience: int = 10
    """Epochs without a better validation loss before training ends."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW); 0 is plain Adam."""
    seed: int = 0
    """Initial weights and dropout."""
    data_seed: int = 0
    """Order of the training rows, together with the epoch."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one."""
    max_tokens_per_batch: int | None = 65_536
    """Tokens computed on at a time. A batch with more is taken in parts whose gradients add up, which saves memory
    and changes results by rounding only. None for no limit."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "patience"):
            _within(1, _MANY, name, getattr(self, name))
        for name in ("seed", "data_seed"):
            _within(0, _MANY, name, getattr(self, name))
        if self.max_tokens_per_batch is not None:
            _within(1, _MANY, "max_tokens_per_batch", self.max_tokens_per_batch)
        if not 0 < self.learning_rate <= 1e6:
            raise InvalidSettingError(f"learning_rate is {self.learning_rate}. Give a number above 0, at most 1e6.")
        if not 0 <= self.weight_decay <= 1e6:
            raise InvalidSettingError(f"weight_decay is {self.weight_decay}. Give a number from 0 to 1e6.")
        kind, _, number = self.device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
            raise InvalidSettingError(f"device is {self.device!r}. Give auto, cpu, cuda or cuda:NUMBER.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        _check_names(cls, found)
        return cls(**found)


def _within(least: int, most: int, name: str, value: int) -> None:
    if not least <= value <= most:
        raise InvalidSettingError(f"{name} is {value}. Give a number from {least} to {most:,}.")


def _check_names(cls: type[Any], found: Mapping[str, Any]) -> None:
    if different := sorted({item.name for item in fields(cls)} ^ set(found)):
        raise InvalidInputError(
            f"{cls.__name__} of another version: settings {', '.join(different)} are missing or unknown. "
            "Use the release that wrote it."
        )
