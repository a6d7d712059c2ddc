"""Perceiver Resampler: learned latents read another modality and stand for it (Flamingo, Alayrac et al. 2022).

Shapes: N packed tokens, K latents a sample, B samples that have the modality, D width of the centre.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators.segments import Compressing, with_absent, without_absent
from heads.attention import attend, check_heads, feed_forward
from heads.config import ModelConfig

__all__ = ["PerceiverAggregator", "Resampler"]

_LAYERS = 2


class PerceiverAggregator(Compressing):
    """Each other modality as ``tokens`` latents that read it in ``depth`` layers; see ``Segments``."""

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        depth = config.depth or _LAYERS
        resampler = partial(Resampler, tokens=config.tokens, depth=depth, heads=config.heads)
        super().__init__(config, widths, resampler)


class Resampler(nn.Module):
    """K latents of each sample, the same at first, read its tokens and each other.

    Args:
        other_width: Width of the tokens that are read.
        width: D.
        tokens: K.
        depth: Layers.
        heads: Attention heads; divide D.
    """

    def __init__(self, other_width: int, width: int, *, tokens: int, depth: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Linear(other_width, width)
        self.latents = nn.Parameter(torch.randn(tokens, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(depth))

    def forward(self, tokens: Ragged) -> Ragged:
        """Tokens (N, other width) to (B * K, D); a sample without tokens gets none."""
        context = without_absent(tokens)
        context = Ragged(self.project(context.values), context.offsets)
        k, n_samples = len(self.latents), len(context.offsets) - 1
        x = Ragged(self.latents.repeat(n_samples, 1), torch.arange(n_samples + 1) * k)
        if n_samples:
            for layer in self.layers:
                x = layer(x, context)
        return with_absent(x.values, tokens, k)


class ResamplerLayer(nn.Module):
    """``x += attention(LN x; [LN c ; LN x])``, then ``x += feed-forward(LN x)`` with four widths."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.feed_forward = feed_forward(width, 4)

    def forward(self, x: Ragged, context: Ragged) -> Ragged:
        """Update latents ``x`` (B * K, D) from themselves and ``context`` (N, D)."""
        own = Ragged(self.norm(x.values), x.offsets)
        other = Ragged(self.context_norm(context.values), context.offsets)
        pairs = zip(other.to_list(), own.to_list(), strict=True)
        both = torch.cat([part for pair in pairs for part in pair])  # (N + B * K, D), sample by sample
        q, k, v = (
            linear(values).unflatten(-1, (self.heads, -1))
            for linear, values in ((self.query, own.values), (self.key, both), (self.value, both))
        )
        read = attend(Ragged(q, x.offsets), Ragged(k, x.offsets + context.offsets), v)
        values = x.values + self.out(read.flatten(-2))
        return Ragged(values + self.feed_forward(values), x.offsets)
