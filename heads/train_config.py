"""Settings of a training: frozen, and checked when they are made. Imports nothing slow."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from embedcache.errors import InvalidSettingError, UnknownNameError
from heads.checks import MANY, known_fields, within

__all__ = ["LossName", "Precision", "Resident", "Schedule", "TrainConfig"]

LossName = Literal["mse", "huber", "poisson", "negative-binomial"]
Precision = Literal["float32", "bfloat16"]
Schedule = Literal["constant", "linear", "cosine"]
Resident = Literal["auto", "always", "never"]


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
    schedule: Schedule = "constant"
    """How the learning rate falls from its value to 0 over all epochs."""
    warmup: float = 0.0
    """Share of all steps over which the learning rate first rises from 0."""
    clip: float | None = None
    """Largest norm of all gradients together; longer ones are shortened to it."""
    loss: LossName = "mse"
    """``mse`` and ``huber`` on the z-scale; ``poisson`` and ``negative-binomial`` on TPM."""
    tissue_weights: tuple[tuple[str, float], ...] = ()
    """Tissues whose errors count more or less than 1 in the loss. Scores never know of it."""
    precision: Precision = "float32"
    """Number format of the model's matrix products; weights and sums stay float32."""
    seed: int = 0
    """Initial weights and dropout."""
    data_seed: int = 0
    """Order of the training rows, together with the epoch."""
    bucketed: bool = False
    """Put rows of like length into one batch; which rows, and the order of batches, stay random."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one."""
    resident: Resident = "auto"
    """Keep stores in the memory of the device: ``auto`` on a GPU where they fit."""
    max_tokens_per_batch: int | None = 65_536
    """Tokens computed on at a time. A batch with more is taken in parts whose gradients add up, which saves memory
    and changes results by rounding only. None for no limit."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "patience"):
            within(1, MANY, name, getattr(self, name))
        for name in ("seed", "data_seed"):
            within(0, MANY, name, getattr(self, name))
        if self.max_tokens_per_batch is not None:
            within(1, MANY, "max_tokens_per_batch", self.max_tokens_per_batch)
        if not 0 < self.learning_rate <= 1e6:
            raise InvalidSettingError(f"learning_rate is {self.learning_rate}. Give a number above 0, at most 1e6.")
        if not 0 <= self.weight_decay <= 1e6:
            raise InvalidSettingError(f"weight_decay is {self.weight_decay}. Give a number from 0 to 1e6.")
        if not 0 <= self.warmup < 1:
            raise InvalidSettingError(f"warmup is {self.warmup}. Give a share of all steps, from 0 on, below 1.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InvalidSettingError(f"clip is {self.clip}. Give a number above 0, or leave it out.")
        choices = (("schedule", Schedule), ("loss", LossName), ("precision", Precision), ("resident", Resident))
        for name, choice in choices:
            if getattr(self, name) not in get_args(choice):
                raise UnknownNameError(name, str(getattr(self, name)), get_args(choice))
        kind, _, number = self.device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
            raise InvalidSettingError(f"device is {self.device!r}. Give auto, cpu, cuda or cuda:NUMBER.")
        self._check_weights()

    def _check_weights(self) -> None:
        object.__setattr__(self, "tissue_weights", tuple((name, float(x)) for name, x in self.tissue_weights))
        names = [name for name, _ in self.tissue_weights]
        for name, weight in self.tissue_weights:
            if not 0 <= weight < math.inf or names.count(name) > 1:
                raise InvalidSettingError(
                    f"tissue_weights has {name!r} = {weight}. Give each tissue once, with a weight from 0 on."
                )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "tissue_weights": [list(pair) for pair in self.tissue_weights]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, in this version or an older one."""
        values = known_fields(cls, found)
        return cls(**{**values, "tissue_weights": tuple(map(tuple, values.get("tissue_weights", ())))})
