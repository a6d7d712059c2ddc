"""Aggregators: from the tokens of the present modalities to vectors, one or more a sample.

A new one is a module with the attributes and the method of ``Aggregator``, and a line in ``AGGREGATORS``
(``config.py``). Shapes: B samples, D_m width of modality m.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.attention import CrossAttention
from heads.config import AGGREGATORS, ModelConfig
from heads.pooling import MeanPool, Pooled

__all__ = ["Aggregator", "ConcatAggregator", "CrossAttentionAggregator", "Reads", "build_aggregator", "what_it_reads"]

Reads = Literal["tokens", "means"]


class Aggregator(Protocol):
    """What the model asks of an aggregator, which is also a ``torch.nn.Module``."""

    features: int
    """Numbers a sample that come out."""

    @staticmethod
    def reads(config: ModelConfig) -> Reads:
        """``means`` if only the mean over a sample's tokens matters: such models never read tokens twice."""
        ...

    def __call__(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Mix tokens, values (N_m, D_m) of each modality, to (B, features)."""
        ...


def build_aggregator(config: ModelConfig, widths: Mapping[Modality, int]) -> Aggregator:
    """Make the aggregator that ``config`` names; weights are drawn from torch's generator."""
    return cast(Aggregator, _aggregator_class(config)(config, widths))


def what_it_reads(config: ModelConfig) -> Reads:
    """Whether the aggregator needs all tokens or their means only."""
    return cast(type[Aggregator], _aggregator_class(config)).reads(config)


def _aggregator_class(config: ModelConfig) -> type[nn.Module]:
    module, _, name = AGGREGATORS[config.aggregator].partition(":")
    return cast(type[nn.Module], getattr(import_module(module), name))


class CrossAttentionAggregator(nn.Module):
    """IsoFormer: each centre reads the other modalities in turn; mean over its tokens; concatenation.

    dna reads rna, then protein; rna reads dna, then protein; protein reads dna, then rna. One block an ordered
    pair and round. All centres of a round read the tokens as they were when the round began. A modality alone has
    nothing to read, and the model is a linear map of its mean.
    """

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities, self.centres = config.modalities, config.centre_modalities
        used = {m: config.width or widths[m] for m in self.modalities}
        self.project = nn.ModuleDict()
        if config.width is not None:
            self.project.update({m: nn.Linear(widths[m], config.width) for m in self.modalities})
        self.rounds = nn.ModuleList(
            nn.ModuleDict(
                {
                    f"{centre}_reads_{other}": CrossAttention(used[centre], used[other], config.heads)
                    for centre in self.centres
                    for other in self.modalities
                    if other != centre
                }
            )
            for _ in range(config.rounds)
        )
        self.pool = nn.ModuleDict({m: MeanPool(used[m]) for m in self.centres})
        self.features = sum(used[m] for m in self.centres)

    @staticmethod
    def reads(config: ModelConfig) -> Reads:
        """A modality alone is only averaged."""
        return "tokens" if len(config.modalities) > 1 else "means"

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m) to (B, sum of the centres' widths); zeros for a centre that a sample lacks."""
        now: dict[Modality, Ragged] = {m: tokens[m] for m in self.modalities}
        for m, project in self.project.items():
            modality = cast(Modality, m)
            now[modality] = Ragged(project(now[modality].values), now[modality].offsets)
        for blocks in self.rounds:
            before = dict(now)
            for centre in self.centres:
                for other in self.modalities:
                    if other != centre:
                        now[centre] = cast(nn.ModuleDict, blocks)[f"{centre}_reads_{other}"](now[centre], before[other])
        return torch.cat([self.pool[m](now[m]).values for m in self.centres], dim=-1)


class ConcatAggregator(nn.Module):
    """Mean of each modality, a linear map of each, concatenation, a hidden layer. Reads no token twice."""

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities = config.modalities
        self.pool = nn.ModuleDict({m: MeanPool(widths[m]) for m in self.modalities})
        self.project = nn.ModuleDict({m: nn.Linear(widths[m], config.hidden) for m in self.modalities})
        self.mix = nn.Sequential(
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden * len(self.modalities), config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )
        self.features = config.hidden

    @staticmethod
    def reads(config: ModelConfig) -> Reads:
        """Only means matter."""
        return "means"

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m) to (B, hidden); a modality that a sample lacks contributes zeros."""
        parts = []
        for m in self.modalities:
            pooled: Pooled = self.pool[m](tokens[m])
            parts.append(self.project[m](pooled.values) * pooled.present[:, None])  # (B, hidden)
        mixed: Tensor = self.mix(torch.cat(parts, dim=-1))
        return mixed
