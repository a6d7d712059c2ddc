"""From the features of a sample to one value a tissue. Shapes: B samples, F features, K tissues."""

from typing import Protocol

from torch import Tensor, nn

from heads.config import ModelConfig

__all__ = ["Head", "LowRankHead", "MlpHead", "build_head"]


class Head(Protocol):
    """What the model asks of a head, which is also a ``torch.nn.Module``."""

    out_features: int
    """Tissues."""

    def __call__(self, features: Tensor) -> Tensor:
        """(B, F) to (B, K)."""
        ...


def build_head(config: ModelConfig, features: int, n_tissues: int) -> Head:
    """Make the head that ``config.head`` names."""
    if config.head == "mlp":
        return MlpHead(features, config.hidden, n_tissues, config.dropout)
    if config.head == "low-rank":
        return LowRankHead(features, config.rank, n_tissues)
    return _near_zero(nn.Linear(features, n_tissues))


class MlpHead(nn.Module):
    """One hidden layer."""

    def __init__(self, features: int, hidden: int, n_tissues: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.act = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.out = _near_zero(nn.Linear(hidden, n_tissues))
        self.out_features = n_tissues

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to (B, K)."""
        output: Tensor = self.out(self.dropout(self.act(self.hidden(features))))
        return output


class LowRankHead(nn.Module):
    """Linear with a weight matrix of low rank: tissues share a few directions of the features."""

    def __init__(self, features: int, rank: int, n_tissues: int) -> None:
        super().__init__()
        self.down = nn.Linear(features, rank, bias=False)
        nn.init.normal_(self.down.weight, std=features**-0.5)
        self.up = _near_zero(nn.Linear(rank, n_tissues))
        self.out_features = n_tissues

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to (B, K)."""
        output: Tensor = self.up(self.down(features))
        return output


def _near_zero(layer: nn.Linear) -> nn.Linear:
    """Outputs start near the mean of each tissue: with thousands of inputs the usual scale starts with noise."""
    nn.init.normal_(layer.weight, std=0.1 / layer.in_features**0.5)
    nn.init.zeros_(layer.bias)
    return layer
