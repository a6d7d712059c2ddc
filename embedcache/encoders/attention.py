"""Attention within each sequence of a pack, as one of the attention functions of transformers."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

__all__ = ["ATTENTION", "attend_by_runs", "packed_attention"]

ATTENTION = "isoheads_packed"
QUERIES = 1024
"""Most queries of one call with a bias."""
Runs = Sequence[tuple[int, int]]
"""(length, number of neighbouring sequences of this length), covering all tokens of a pack."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    runs: Runs = (),
    bounds: Tensor | None = None,
    longest: int = 0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence of a pack; the signature is that of transformers.

    Args:
        module: The attention layer, not used.
        query: (1, heads, N, d), as ``key`` and ``value``.
        key: As ``query``.
        value: As ``query``.
        attention_mask: None.
        scaling: Factor on the scores; ESM has scaled the query before and gives 1.
        runs: Lengths of the sequences.
        bounds: (B + 1,) int32 on the device: where sequences begin and end.
        longest: Most tokens of a sequence.
        position_bias: Added to the scores, see ``attend_by_runs``; not as large as transformers would have it.

    Returns:
        (1, N, heads, d), and None in place of attention maps.
    """
    assert attention_mask is None, "packed attention takes no mask"
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # (N, heads, d)
    is_varlen = query.is_cuda and query.dtype != torch.float32 and position_bias is None
    if is_varlen and (varlen := _varlen_attention()) is not None:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return varlen(q, k, v, bounds, bounds, longest, longest, scale=scaling)[None], None
    return attend_by_runs(q, k, v, runs, scaling, bias=position_bias)[None], None


def attend_by_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    runs: Runs,
    scaling: float | None = None,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """One call for each run of sequences of equal length: (N, heads, d) each, to (N, heads, d).

    Args:
        query: Of all tokens, as ``key`` and ``value``.
        key: As ``query``.
        value: As ``query``.
        runs: Lengths of the sequences.
        scaling: Factor on the scores, before the bias.
        bias: What is added to the score of a key so many places behind a query, (heads, 2 T - 1) for -T + 1 to T - 1
            places, T at least the longest sequence.
    """
    parts, start = [], 0
    for length, count in runs:
        stop = start + length * count
        q, k, v = (t[start:stop].view(count, length, *t.shape[1:]).transpose(1, 2) for t in (query, key, value))
        if bias is None:
            part = F.scaled_dot_product_attention(q, k, v, scale=scaling)  # (count, heads, length, d)
        else:
            part = _attend_with_bias(q, k, v, scaling, bias)
        parts.append(part.transpose(1, 2).flatten(0, 1))  # (count * length, heads, d)
        start = stop
    assert start == len(query), "runs must cover all tokens"
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend_with_bias(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, bias: Tensor) -> Tensor:
    """Attention of sequences of one length, (count, heads, length, d); the bias as in ``attend_by_runs``.

    Some queries at a time: the bias of all against all would not fit into memory where a protein has 30,000 residues.
    """
    length, longest = query.shape[2], (bias.shape[1] + 1) // 2
    # row s of a window: places s - longest + 1 and on, which are those of the keys from query longest - 1 - s
    windows = bias.to(query.dtype).unfold(1, length, 1)  # (heads, 2 T - length, length), a view
    parts = []
    for start in range(0, length, QUERIES):
        stop = min(start + QUERIES, length)
        mask = windows[:, longest - stop : longest - start].flip(1)  # (heads, queries, length), a copy
        parts.append(
            F.scaled_dot_product_attention(query[:, :, start:stop], key, value, attn_mask=mask[None], scale=scaling)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)


def _varlen_attention() -> Callable[..., Tensor] | None:
    """Attention over packs in one kernel: CUDA, half precision, newer torch.

    Other kernels than the default (FlashAttention 2) may split the keys of a sequence by what else is in the
    pack, which would round its rows in another way; one split forbids that. The default splits paged keys only,
    and some releases refuse the argument with it.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    active = getattr(torch.nn.attention, "current_flash_attention_impl", None)
    if _accepts_splits(varlen_attn) and active is not None and active() is not None:
        return cast(Callable[..., Tensor], partial(varlen_attn, num_splits=1))
    return cast(Callable[..., Tensor], varlen_attn)


@cache
def _accepts_splits(function: Callable[..., Any]) -> bool:
    return "num_splits" in inspect.signature(function).parameters
