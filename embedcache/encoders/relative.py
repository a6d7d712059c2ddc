"""Attention with a learned key for every offset between two bins, as in Enformer and Borzoi."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedcache.encoders.weights import draw_normal

__all__ = ["RelativeAttention", "draw_biases", "relative_shift"]


class Table(Protocol):
    """Features of the offsets between bins."""

    def __call__(self, bins: int, *, device: torch.device) -> Tensor:
        """(2 * bins - 1, features) for the offsets -(bins - 1) ... bins - 1, float32."""
        ...


class RelativeAttention(nn.Module):
    """Attention of one window to itself: (B, T, dim) to (B, T, dim). Its modules have the published names."""

    def __init__(self, dim: int, heads: int, *, key_dim: int, value_dim: int, features: int, table: Table) -> None:
        super().__init__()
        self.heads, self.key_dim, self.table = heads, key_dim, table
        self.to_q = nn.Linear(dim, heads * key_dim, bias=False)
        self.to_k = nn.Linear(dim, heads * key_dim, bias=False)
        self.to_v = nn.Linear(dim, heads * value_dim, bias=False)
        self.to_out = nn.Linear(heads * value_dim, dim)
        self.to_rel_k = nn.Linear(features, heads * key_dim, bias=False)
        self.rel_content_bias = nn.Parameter(torch.randn(1, heads, 1, key_dim))
        self.rel_pos_bias = nn.Parameter(torch.randn(1, heads, 1, key_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shape of ``x``."""
        query = self._split(self.to_q(x)) * self.key_dim**-0.5  # scaled before the biases are added
        key, value = self._split(self.to_k(x)), self._split(self.to_v(x))  # (B, heads, T, d)
        features = self.table(x.shape[1], device=x.device).to(x.dtype)
        offsets = self._split(self.to_rel_k(features))  # (heads, 2T - 1, d)
        bias = relative_shift((query + self.rel_pos_bias) @ offsets.transpose(-1, -2))  # (B, heads, T, T)
        out = F.scaled_dot_product_attention(query + self.rel_content_bias, key, value, attn_mask=bias, scale=1.0)
        mixed: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(-2, -3)


def relative_shift(scores: Tensor) -> Tensor:
    """(B, heads, T, 2T - 1) by offset to (B, heads, T, T): ``out[i, j] = scores[i, j - i + T - 1]``.

    A strided view: no copy; rows overlap, so it must not be written to.
    """
    scores = scores.contiguous()
    batch, heads, n, _ = scores.shape
    sb, sh, sq, so = scores.stride()
    return scores.as_strided((batch, heads, n, n), (sb, sh, sq - so, so), scores.storage_offset() + (n - 1) * so)


@torch.no_grad()
def draw_biases(model: nn.Module, seed: int, *, as_queries: bool = False) -> None:
    """Draw the biases of all relative attention: with deviation 1 as the originals begin, or that of scaled queries.

    The former makes attention of drawn weights so sharp that half precision is off by a tenth.
    """
    for prefix, module in model.named_modules():
        if isinstance(module, RelativeAttention):
            deviation = module.key_dim**-0.5 if as_queries else 1.0
            for name, bias in (("rel_content_bias", module.rel_content_bias), ("rel_pos_bias", module.rel_pos_bias)):
                bias.copy_(draw_normal(bias.shape, seed, f"{prefix}.{name}") * deviation)
