"""C-Abstractor in one dimension: convolutions, means of equal parts, convolutions (Honeybee, Cha et al. 2024).

Shapes: N packed tokens, K tokens a sample after the means, B samples that have the modality, D width of the centre.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators.segments import Compressing, with_absent, without_absent
from heads.config import ModelConfig
from heads.summaries import bin_means

__all__ = ["Abstractor", "CAbstractorAggregator", "Convolution"]

_BLOCKS = 3


class CAbstractorAggregator(Compressing):
    """Each other modality as ``tokens`` tokens, with ``depth`` blocks before and after the means; see ``Segments``."""

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        depth = config.depth or _BLOCKS
        super().__init__(config, widths, partial(Abstractor, tokens=config.tokens, depth=depth))


class Abstractor(nn.Module):
    """Residual blocks, means of K equal parts, residual blocks.

    Args:
        other_width: Width of the tokens that are compressed.
        width: D.
        tokens: K.
        depth: Blocks on either side of the means.
    """

    def __init__(self, other_width: int, width: int, *, tokens: int, depth: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.project = nn.Linear(other_width, width)
        self.before = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.after = nn.ModuleList(ResidualBlock(width) for _ in range(depth))

    def forward(self, tokens: Ragged) -> Ragged:
        """Tokens (N, other width) to (B * K, D); a sample without tokens gets none."""
        x = without_absent(tokens)
        x = Ragged(self.project(x.values), x.offsets)
        n_samples = len(x.offsets) - 1
        if n_samples:
            for block in self.before:
                x = block(x)
            x = Ragged(bin_means(x, self.tokens).flatten(0, 1), torch.arange(n_samples + 1) * self.tokens)
            for block in self.after:
                x = block(x)
        return with_absent(x.values, tokens, self.tokens)


class ResidualBlock(nn.Module):
    """``x + Conv1(SiLU(LN(Conv3(SiLU(LN x)))))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide = Convolution(width)
        self.narrow = nn.Linear(width, width)

    def forward(self, x: Ragged) -> Ragged:
        """Tokens (N, D) to (N, D), each sample on its own."""
        inner = self.wide(Ragged(F.silu(self.norm(x.values)), x.offsets))
        return Ragged(x.values + self.narrow(F.silu(self.inner_norm(inner.values))), x.offsets)


class Convolution(nn.Module):
    """Convolution over three neighbouring tokens of a sample, with zeros past its ends.

    One matrix product over packed tokens: each row is a token between its neighbours, (N, 3D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * width, width)  # drawn as torch draws a convolution of the same shape

    def forward(self, x: Ragged) -> Ragged:
        """Tokens (N, D) to (N, D)."""
        values = x.values
        inner = torch.ones(len(values) + 1, 1, dtype=values.dtype)
        inner[x.offsets] = 0  # of row i: whether i - 1 is a neighbour; of row i + 1: whether it is
        inner = inner.to(values.device)
        before = F.pad(values[:-1], (0, 0, 1, 0)) * inner[:-1]
        after = F.pad(values[1:], (0, 0, 0, 1)) * inner[1:]
        return Ragged(self.linear(torch.cat([before, values, after], dim=-1)), x.offsets)
