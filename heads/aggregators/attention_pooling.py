"""Each modality pooled by learned queries, side by side: what attention over tokens adds to means, and no more."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import ModelConfig
from heads.pooling import AttentionPool

__all__ = ["AttentionPoolingAggregator"]


class AttentionPoolingAggregator(nn.Module):
    """Weighted mean over the tokens of each modality, weights from ``heads`` learned queries; concatenation."""

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities = config.modalities
        pools = {m: AttentionPool(widths[m], config.heads) for m in self.modalities}
        self.pool = nn.ModuleDict(cast(dict[str, nn.Module], pools))
        self.features = sum(widths[m] for m in self.modalities)

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """Weights of tokens change as queries learn."""
        return "tokens"

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m) to (B, sum of widths); zeros for a modality that a sample lacks."""
        return torch.cat([self.pool[m](tokens[m]).values for m in self.modalities], dim=-1)
