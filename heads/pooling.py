"""From tokens to one vector a sample: the mean over its tokens, and a fixed scale for what follows.

Shapes: B samples, N packed tokens, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged

__all__ = ["MeanPool", "Pooled", "fitting", "mean_tokens"]


class Pooled(NamedTuple):
    """One vector a sample. Rows of samples that lack the modality are zeros, and False in ``present``."""

    values: Tensor  # (B, D)
    present: Tensor  # (B,) bool


def mean_tokens(tokens: Ragged) -> Tensor:
    """Mean over the tokens of each sample in float32, (B, D); zeros for a sample without tokens."""
    values = tokens.values
    if len(values) == len(tokens.offsets) - 1 and bool((tokens.lengths == 1).all()):
        return values.float()
    return torch.stack(
        [
            part.mean(0, dtype=torch.float32) if len(part) else values.new_zeros(values.shape[1:], dtype=torch.float32)
            for part in tokens.to_list()
        ]
    )


class MeanPool(nn.Module):
    """Mean over tokens, shifted and scaled per channel to mean 0 and sd 1 over training samples.

    The shift and the scale are constants, measured once before training (see ``fitting``) and saved with the
    model. A linear layer that follows could hold them itself, so they change how fast it learns and not what it
    can express. Samples that lack the modality stay out of the measurement and come out as zeros.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.sums: tuple[int, Tensor, Tensor] | None = None
        """Count, sum and sum of squares while fitting, None otherwise."""

    def forward(self, tokens: Ragged) -> Pooled:
        """Pool tokens (N, D) to (B, D)."""
        values = mean_tokens(tokens)
        present = (tokens.lengths > 0).to(values.device)  # (B,)
        if self.sums is not None:
            seen = values.detach()[present].double()
            count, total, squares = self.sums
            self.sums = (count + len(seen), total + seen.sum(0), squares + seen.square().sum(0))
        return Pooled((values - self.mean) * self.scale * present[:, None], present)

    def begin(self) -> None:
        """Start measuring; outputs are plain means until ``finish``."""
        zeros = torch.zeros_like(self.mean, dtype=torch.float64)
        self.mean.zero_()
        self.scale.fill_(1)
        self.sums = (0, zeros, zeros)

    def finish(self) -> None:
        """Fix shift and scale. A channel that does not vary keeps scale 1; so do all if nothing was seen."""
        assert self.sums is not None, "finish() without begin()"
        count, total, squares = self.sums
        self.sums = None
        if count < 2:
            return
        mean = total / count
        sd = (squares / count - mean.square()).clamp(min=0).sqrt()
        varies = sd > 1e-6 * mean.abs().clamp(min=1e-6)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / sd.clamp(min=1e-12), 1.0))


@contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """While this is open, every ``MeanPool`` of the model measures what passes through; then it is fixed."""
    pools = [module for module in model.modules() if isinstance(module, MeanPool)]
    for pool in pools:
        pool.begin()
    yield
    for pool in pools:
        pool.finish()
