"""What a mean over queries reads, without what every query reads: a shorter way to the same numbers.

Where only the mean over the T queries of a sample is asked for, a weighted sum of values becomes one, with the mean of
the weights: ``1/T sum_i sum_j a_ij Wv c_j = Wv sum_j (1/T sum_i a_ij) c_j``. So no value is ever made, tokens are added
up before they are mapped, and the output map sees one row a sample; only queries and keys are made for all tokens.

Shapes: B samples, N queries, M keys, H heads, d numbers of a head, C width of what is read.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedcache.ragged import Ragged

__all__ = ["mean_weights", "weighted_sums"]

_SCORES = 1 << 18
"""Scores made at a time: 1 MB, for as long as they are needed in a core's own cache; of some heads if keys are many."""
_QUERIES = 64
"""Fewest queries at a time, however many keys there are: all keys are read for each part."""


def mean_weights(query: Ragged, key: Ragged) -> Tensor:
    """Attention weight of each key of a sample, mean over the queries of the same sample.

    Memory does not grow with the product of lengths: scores are made in parts, and made again for the gradient.
    A sample's result is the same, bit for bit, alone and in any batch.

    Args:
        query: values (N, H, d), float32 or float64.
        key: values (M, H, d).

    Returns:
        (M, H), of each sample and head 1 in sum; zeros for the keys of a sample without queries.
    """
    assert len(query.offsets) == len(key.offsets), "query and key must hold the same samples"
    apply = cast(Any, _MeanWeights).apply
    return cast(Tensor, apply(query.values, key.values, query.offsets, key.offsets))


def weighted_sums(weights: Tensor, tokens: Ragged) -> Tensor:
    """Sums of the tokens of each sample under the weights of each head.

    Args:
        weights: (M, H).
        tokens: values (M, C).

    Returns:
        (B, H, C); zeros for a sample without tokens.
    """
    parts = zip(Ragged(weights, tokens.offsets).to_list(), tokens.to_list(), strict=True)
    return torch.stack([own.T @ values for own, values in parts])


class _MeanWeights(torch.autograd.Function):
    """``mean_weights`` and its gradient, one sample and a few queries at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, query_offsets: Tensor, key_offsets: Tensor) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.offsets = query_offsets, key_offsets
        weights, memory = key.new_zeros(key.shape[:2]), _memory(query, key, query_offsets, key_offsets)
        for q, k, part in _parts(query, key, query_offsets, key_offsets):
            weights[part.keys, part.heads] += _softmax(q, k, memory).sum(1).T / part.n_queries
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        query, key = ctx.saved_tensors
        of_query, of_key = torch.zeros_like(query), torch.zeros_like(key)
        memory = _memory(query, key, *ctx.offsets)
        for q, k, part in _parts(query, key, *ctx.offsets):
            weights = _softmax(q, k, memory)  # (h, t, keys)
            of_weights = gradient[part.keys, part.heads] / part.n_queries  # the same for every query
            of_scores = memory[0, : weights.numel()].view_as(weights)
            torch.mul(weights, of_weights.T.contiguous()[:, None], out=of_scores)
            of_scores.addcmul_(weights, of_scores.sum(-1, keepdim=True), value=-1)
            of_query[part.queries, part.heads] = torch.bmm(of_scores, k).mul_(_scale(query)).transpose(0, 1)
            of_key[part.keys, part.heads] += torch.bmm(of_scores.transpose(1, 2), q).transpose(0, 1)
        return of_query, of_key, None, None


class _Part(NamedTuple):
    """Some queries and heads of a sample, and all its keys, as rows and columns of packed values."""

    queries: slice
    keys: slice
    heads: slice
    n_queries: int
    """Of the whole sample."""


def _parts(
    query: Tensor, key: Tensor, query_offsets: Tensor, key_offsets: Tensor
) -> Iterator[tuple[Tensor, Tensor, _Part]]:
    """Scaled queries (h, t, d) and keys (h, keys, d) of one part after the other, and where they lie."""
    bounds = [*zip(query_offsets.tolist(), key_offsets.tolist(), strict=True)]
    for (start, first), (end, last) in pairwise(bounds):
        if end == start or last == first:
            continue
        h, t = _at_once(key.shape[1], last - first)
        for head in range(0, key.shape[1], h):
            heads, keys = slice(head, head + h), slice(first, last)
            k = key[keys, heads].transpose(0, 1)
            for i in range(start, end, t):
                queries = slice(i, min(i + t, end))
                q = query[queries, heads].transpose(0, 1) * _scale(query)
                yield q, k, _Part(queries, keys, heads, end - start)


def _at_once(heads: int, keys: int) -> tuple[int, int]:
    """Heads and queries of a part."""
    h = min(heads, max(1, _SCORES // (_QUERIES * keys)))
    return h, max(_QUERIES, _SCORES // (h * keys))


def _memory(query: Tensor, key: Tensor, query_offsets: Tensor, key_offsets: Tensor) -> Tensor:
    """Room for two sets of scores of the largest part, used again for every part: new memory would cost more."""
    lengths = zip(query_offsets.diff().tolist(), key_offsets.diff().tolist(), strict=True)
    at_once = [(*_at_once(key.shape[1], n), t, n) for t, n in lengths if n]
    return query.new_empty(2, max((h * n * min(t, most) for h, most, t, n in at_once), default=0))


def _softmax(query: Tensor, key: Tensor, memory: Tensor) -> Tensor:
    """Weights (h, t, keys) of a part, in the second half of the memory."""
    shape = (len(key), query.shape[1], key.shape[1])
    scores, weights = memory[:, : math.prod(shape)].view(2, *shape)
    torch.bmm(query, key.transpose(1, 2), out=scores)
    return torch.softmax(scores, -1, out=weights)


def _scale(query: Tensor) -> float:
    return float(query.shape[-1] ** -0.5)
