"""Several cached layers of one encoder mixed into one, with learned weights.

Shapes: N packed tokens, L layers, D width of one layer.
"""

import torch
from torch import Tensor, nn

from embedcache.errors import InvalidInputError
from embedcache.ragged import Ragged

__all__ = ["LayerMix"]


class LayerMix(nn.Module):
    """ELMo's scalar mix (Peters et al. 2018): ``scale * sum over layers of softmax(weights)_l * h_l``.

    It starts as the mean over layers. It is linear, so that it may come after means over tokens as well as before.

    Args:
        layers: L.
        width: D.
    """

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weights = nn.Parameter(torch.zeros(layers))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Ragged) -> Ragged:
        """Mix layers that lie side by side, (N, L * D) to (N, D); two such vectors, (N, 2 * L * D) to (N, 2 * D).

        Raises:
            InvalidInputError: The tokens have another width.
        """
        layers, columns = len(self.weights), tokens.values.shape[-1]
        if columns not in (layers * self.width, 2 * layers * self.width):
            raise InvalidInputError(
                f"Tokens have {columns} columns, expected {layers} layers x {self.width}. "
                "Give the layers that the model was made for, side by side."
            )
        apart = tokens.values.reshape(-1, columns // (layers * self.width), layers, self.width)  # (N, 1 or 2, L, D)
        weights = self.weights.softmax(0) * self.scale
        mixed: Tensor = apart.transpose(-1, -2) @ weights.to(apart.dtype)  # (N, 1 or 2, D)
        return Ragged(mixed.flatten(1), tokens.offsets)
