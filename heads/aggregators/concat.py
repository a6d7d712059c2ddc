"""Means side by side under a hidden layer: what every other aggregator must beat."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import ModelConfig
from heads.pooling import MeanPool, Pooled

__all__ = ["ConcatAggregator"]


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
    def reads(config: ModelConfig) -> str:
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
