"""Settings of fine-tuning: frozen, and checked when they are made. Imports nothing slow."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from embedcache.errors import InvalidSettingError
from embedcache.sequences import Modality
from heads.checks import LARGEST, in_order, known_fields, within

__all__ = ["FinetuneConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Which encoders are trained with the head, and how; all other modalities are read from the cache."""

    modalities: tuple[Modality, ...]
    """Whose encoders are trained."""
    method: str = "full"
    """``full``: all weights; ``lora``: low-rank additions to queries and values (Hu et al., arXiv 2106.09685);
    ``last:K``: the last K blocks and the normalisation behind them."""
    learning_rate: float = 3e-5
    """Adam's step for the encoders, at the top of the schedule of the head; the paper's."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the encoders."""
    lora_rank: int = 8
    lora_alpha: float = 16.0
    """Additions are scaled by alpha over rank."""
    lora_dropout: float = 0.0
    ema: float = 0.0
    """Share of the moving average of all weights that a step leaves; scores and the best model are those of the
    average. 0 for none."""
    checkpointing: bool = False
    """Run blocks again in the backward pass instead of keeping what is inside them: less memory, a third slower."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", in_order(self.modalities, "finetune names"))
        if not re.fullmatch(r"full|lora|last:[1-9]\d{0,3}", self.method):
            raise InvalidSettingError(f"method is {self.method!r}. Give full, lora, or last:K, such as last:4.")
        within(1, LARGEST, "lora_rank", self.lora_rank)
        if not 0 < self.learning_rate <= 1:
            raise InvalidSettingError(
                f"encoder_learning_rate is {self.learning_rate}. Give a number above 0, at most 1, such as 3e-5."
            )
        for name, most in (("weight_decay", 1e6), ("lora_alpha", 1e6)):
            if not 0 <= getattr(self, name) <= most:
                raise InvalidSettingError(f"{name} is {getattr(self, name)}. Give a number from 0 to {most:g}.")
        for name in ("lora_dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} is {getattr(self, name)}. Give a number from 0 on, below 1.")

    @property
    def last(self) -> int | None:
        """Blocks that ``last:K`` trains; None for other methods."""
        return int(self.method.removeprefix("last:")) if self.method.startswith("last:") else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "modalities": list(self.modalities)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, in this version or an older one."""
        values = known_fields(cls, found)
        return cls(**{**values, "modalities": tuple(values["modalities"])})
