"""Pooled modalities side by side under a hidden layer: what every other aggregator must beat."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import ModelConfig
from heads.pooling import Pool, Pooled, build_pool, summary_of_pool

__all__ = ["ConcatAggregator"]


class ConcatAggregator(nn.Module):
    """Pool of each modality, by default the mean, a linear map of each, concatenation, a hidden layer."""

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities = config.modalities
        pools: dict[Modality, Pool] = {m: build_pool(config, widths[m], config.bins) for m in self.modalities}
        self.pool = nn.ModuleDict(cast(dict[str, nn.Module], pools))
        self.project = nn.ModuleDict({m: nn.Linear(pools[m].features, config.hidden) for m in self.modalities})
        self.mix = nn.Sequential(
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden * len(self.modalities), config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )
        self.features = config.hidden

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """Only pooled vectors matter."""
        return summary_of_pool(config, config.bins)

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m), or summaries, to (B, hidden); a modality that a sample lacks contributes zeros."""
        parts = []
        for m in self.modalities:
            pooled: Pooled = self.pool[m](tokens[m])
            parts.append(self.project[m](pooled.values) * pooled.present[:, None])  # (B, hidden)
        mixed: Tensor = self.mix(torch.cat(parts, dim=-1))
        return mixed
