"""How much attention goes to each region, without ever holding the maps.

A block of queries at a time: its attention weights, as many numbers as ``_NUMBERS`` says, are multiplied with the
regions of the keys and let go. What comes out is, bit for bit on a CPU, what whole maps multiplied with the
regions give: 0.5 MB a layer of NT-v2-500M and 2,048 tokens in place of 268 MB.

Shapes: T queries, M keys, R regions (up to 4: wider products may round by block), d width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

__all__ = ["ATTENTION", "Collector", "attend_to_regions", "attending_to_regions"]

ATTENTION = "isoheads_regions"
_NUMBERS = 1 << 21
"""Attention weights of one block, about."""
_FEWEST = 16
"""Queries of a block at least: products of very few rows round in another way."""


@dataclass(slots=True)
class Collector:
    """Takes what the layers of one pass find, in their order."""

    regions: Tensor
    """Share of each token in each region, (T, R) float32."""
    threshold: float | None = None
    """Count weights above it in place of adding weights up."""
    totals: list[Tensor] = field(default_factory=list)
    """Of each layer the sum over queries, (heads, R) float64."""


def attend_to_regions(
    query: Tensor,
    key: Tensor,
    regions: Tensor,
    *,
    value: Tensor | None = None,
    scaling: float | None = None,
    threshold: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attention of each query that falls on each region, and with values what the attention reads.

    Args:
        query: (heads, T, d), float32.
        key: (heads, M, d).
        regions: Share of each key in each region, (M, R).
        value: (heads, M, d), or None.
        scaling: Factor on the scores, the root of 1 / d without one.
        threshold: Count weights above it in place of adding weights up.

    Returns:
        (heads, T, R), and (heads, T, d) or None.
    """
    heads, size, width = query.shape
    scaling = width**-0.5 if scaling is None else scaling
    rows = max(_FEWEST, _NUMBERS // (heads * max(key.shape[1], 1)))
    sums, output = [], []
    for block in query.tensor_split(max(1, -(-size // rows)), dim=1):  # of nearly equal size: none is tiny
        weights = (block @ key.transpose(-1, -2)).mul_(scaling).softmax(-1)  # (heads, rows, M)
        if value is not None:
            output.append(weights @ value)
        chosen = weights if threshold is None else (weights > threshold).to(weights.dtype)
        sums.append(chosen @ regions)
    return torch.cat(sums, dim=1), torch.cat(output, dim=1) if output else None


def regions_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    collector: Collector,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one sequence, with the signature of transformers; what it finds goes to the collector.

    In half precision the attention itself is computed in float32.
    """
    assert attention_mask is None and query.shape[0] == 1, "one sequence at a time, without padding"
    q, k, v = (one[0].float() for one in (query, key, value))  # (heads, T, d)
    sums, output = attend_to_regions(q, k, collector.regions, value=v, scaling=scaling, threshold=collector.threshold)
    assert output is not None
    collector.totals.append(sums.double().sum(1))
    return output.transpose(0, 1)[None].to(query.dtype), None  # (1, T, heads, d)


@contextmanager
def attending_to_regions(model: Any) -> Iterator[None]:
    """Let a model of transformers compute attention as above; its calls need ``collector``."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(ATTENTION, regions_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
