"""A weighted mean of the modalities; the weights are chosen for each sample, among those that it has."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import ModelConfig
from heads.pooling import Pool, Pooled, build_pool, summary_of_pool

__all__ = ["GatedSumAggregator", "gate_weights"]


class GatedSumAggregator(nn.Module):
    """Pool of each modality, by default the mean, a hidden layer of each, and their weighted mean.

    The weights of a sample are a softmax over the modalities that it has, of a linear map of all their hidden
    layers. They start equal, and a sample with one modality has weight 1 for it.
    """

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities = config.modalities
        pools: dict[Modality, Pool] = {m: build_pool(config, widths[m], config.bins) for m in self.modalities}
        self.pool = nn.ModuleDict(cast(dict[str, nn.Module], pools))
        self.project = nn.ModuleDict({m: nn.Linear(pools[m].features, config.hidden) for m in self.modalities})
        self.mix = nn.Sequential(nn.GELU(), nn.Dropout(config.dropout))
        self.gate = nn.Linear(config.hidden * len(self.modalities), len(self.modalities))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.features = config.hidden

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """Only pooled vectors matter."""
        return summary_of_pool(config, config.bins)

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m), or summaries, to (B, hidden); zeros for a sample without any modality."""
        pooled: list[Pooled] = [self.pool[m](tokens[m]) for m in self.modalities]
        present = torch.stack([part.present for part in pooled], dim=-1)  # (B, modalities)
        hidden = torch.stack(
            [self.mix(self.project[m](part.values)) for m, part in zip(self.modalities, pooled, strict=True)], dim=1
        )
        hidden = hidden * present[..., None]  # (B, modalities, hidden)
        weights = gate_weights(self.gate(hidden.flatten(1)), present)
        mixed: Tensor = (weights[..., None] * hidden).sum(1)
        return mixed


def gate_weights(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the present modalities of each sample, (B, modalities); zeros for the others."""
    # the smallest number, not -inf: a sample without any modality would be NaN
    scores = scores.float().masked_fill(~present, torch.finfo(torch.float32).min)
    return scores.softmax(-1) * present
