"""The model: an aggregator and one linear output a tissue.

Shapes: B samples, D_m width of modality m, K tissues.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators import build_aggregator
from heads.config import ModelConfig

__all__ = ["ExpressionModel"]


class ExpressionModel(nn.Module):
    """From token embeddings to expression, on the z-scale of the training rows.

    Args:
        config: What the model is.
        widths: Width of the token embeddings of each modality.
        n_tissues: Outputs.
    """

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int], n_tissues: int) -> None:
        super().__init__()
        self.config = config
        self.aggregator = build_aggregator(config, widths)
        self.head = nn.Linear(self.aggregator.features, n_tissues)
        # it starts near the mean of each tissue: with thousands of inputs the usual scale starts with noise
        nn.init.normal_(self.head.weight, std=0.1 / self.aggregator.features**0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Predict every tissue of every sample.

        Args:
            tokens: Packed tokens (N_m, D_m) of each modality, the same B samples in each. A sample without rows
                lacks the modality; gradients stay finite.

        Returns:
            (B, K).
        """
        output: Tensor = self.head(self.aggregator(tokens))
        return output
