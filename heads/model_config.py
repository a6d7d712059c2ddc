"""Settings of a model: frozen, and checked when they are made. Imports nothing slow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality
from heads.checks import LARGEST, in_order, known_fields, within

__all__ = ["AGGREGATORS", "Centres", "HeadName", "ModelConfig", "PoolingName"]

Centres = Literal["all", "dna", "rna", "protein"]
PoolingName = Literal["mean", "attention", "max-mean"]
HeadName = Literal["linear", "mlp", "low-rank"]

AGGREGATORS: dict[str, str] = {
    "cross-attention": "heads.aggregators.cross_attention:CrossAttentionAggregator",
    "perceiver": "heads.aggregators.perceiver:PerceiverAggregator",
    "c-abstractor": "heads.aggregators.c_abstractor:CAbstractorAggregator",
    "linear": "heads.aggregators.linear:LinearAggregator",
    "concat": "heads.aggregators.concat:ConcatAggregator",
    "attention-pooling": "heads.aggregators.attention_pooling:AttentionPoolingAggregator",
    "gated-sum": "heads.aggregators.gated_sum:GatedSumAggregator",
}
"""Aggregators by name, and where their class is; a plug-in adds a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What the model is. Together with the widths of the encoders it fixes every shape."""

    modalities: tuple[Modality, ...] = MODALITIES
    """What the model reads. Order does not matter; it is kept as dna, rna, protein."""
    aggregator: str = "cross-attention"
    """How the modalities are mixed: ``cross-attention`` (IsoFormer's), ``perceiver``, ``c-abstractor``, ``linear``,
    ``concat`` (means and an MLP), ``attention-pooling`` or ``gated-sum``."""
    centres: Centres = "all"
    """Modalities whose tokens are updated and pooled. The paper's tables: ``all``; its released model: ``dna``."""
    heads: int = 8
    """Attention heads of a block, and learned queries of attention pooling."""
    rounds: int = 1
    """How often every centre reads all the others."""
    width: int | None = None
    """Width that tokens of centres, and in cross-attention all tokens, are projected to first; None keeps the width of
    each encoder, as the paper does."""
    pre_norm: bool = False
    """LayerNorm on queries and context before each cross-attention; IsoFormer has none."""
    feed_forward: int = 0
    """Hidden width, in widths, of a feed-forward layer after each cross-attention block; 0 for none, as IsoFormer."""
    tokens: int = 64
    """Tokens that ``perceiver``, ``c-abstractor`` and ``linear`` compress a modality to."""
    depth: int | None = None
    """Layers of ``perceiver`` (2), residual blocks on either side of the pooling of ``c-abstractor`` (3)."""
    bins: int = 1
    """Equal parts of a sequence whose means ``concat`` and ``gated-sum`` read side by side."""
    pooling: PoolingName = "mean"
    """From the tokens of a modality to one vector: ``mean``, ``attention`` or ``max-mean``."""
    hidden: int = 1024
    """Width of the hidden layers of ``concat``, ``gated-sum`` and the ``mlp`` head."""
    dropout: float = 0.1
    """Dropout of ``concat``, ``gated-sum`` and the ``mlp`` head; IsoFormer's cross-attention has none."""
    head: HeadName = "linear"
    """From aggregated features to tissues: ``linear``, ``mlp`` or ``low-rank`` (tissues share ``rank`` directions)."""
    rank: int = 8
    """Directions of the ``low-rank`` head."""
    lengths: bool = False
    """Also give the head the log number of tokens of each modality, which means do not hold."""
    modality_dropout: float = 0.0
    """Chance, in training, that a sample loses a modality; it never loses its last one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", in_order(self.modalities, "Modalities are"))
        if self.aggregator not in AGGREGATORS:
            raise UnknownNameError("aggregator", self.aggregator, AGGREGATORS)
        for name, kind in (("pooling", PoolingName), ("head", HeadName), ("centres", Centres)):
            if getattr(self, name) not in get_args(kind):
                raise UnknownNameError(name, str(getattr(self, name)), get_args(kind))
        if self.centres != "all" and self.centres not in self.modalities:
            raise InvalidSettingError(
                f"The centre {self.centres!r} is not among the modalities {', '.join(self.modalities)}. "
                "Choose one of them, or all."
            )
        if self.pooling != "mean" and (self.aggregator in ("linear", "attention-pooling") or self.bins > 1):
            what = f"bins {self.bins}" if self.bins > 1 else f"aggregator {self.aggregator!r}"
            raise InvalidSettingError(
                f"pooling {self.pooling!r} does not go with {what}, which pools in its own way. Leave one of them out."
            )
        if self.bins > 1 and self.aggregator not in ("concat", "gated-sum"):
            raise InvalidSettingError(
                f"bins is {self.bins}, which aggregator {self.aggregator!r} does not read. Use concat or gated-sum."
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("heads", "rounds", "hidden", "tokens", "bins", "rank"):
            within(1, LARGEST, name, getattr(self, name))
        within(0, 64, "feed_forward", self.feed_forward)
        if self.depth is not None:
            within(1, LARGEST, "depth", self.depth)
        if self.width is not None:
            within(1, LARGEST, "width", self.width)
            if self.width % self.heads and self.aggregator in ("cross-attention", "perceiver"):
                raise InvalidSettingError(
                    f"width {self.width} is not a multiple of {self.heads} heads. Change one of them."
                )
        for name in ("dropout", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} is {getattr(self, name)}. Give a value from 0 on, below 1.")

    @property
    def centre_modalities(self) -> tuple[Modality, ...]:
        """The modalities that are centres."""
        return self.modalities if self.centres == "all" else (self.centres,)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "modalities": list(self.modalities)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, in this version or an older one."""
        return cls(**{**known_fields(cls, found), "modalities": tuple(found["modalities"])})
