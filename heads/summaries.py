"""Summaries of the tokens of a sequence: all that some models need of them, a fraction of their size.

A summary of a modality is R rows of C numbers a sample; a sample that lacks the modality has none. Given back as a
``Ragged``, a summary passes through the functions here unchanged: the mean of one row is that row, the means of K
equal parts of K rows are these rows, and two vectors side by side are known by their width.

Shapes: B samples, N packed tokens, T tokens of one sample, D width.
"""

import re

import torch
from torch import Tensor
from torch.nn import functional as F

from embedcache.ragged import Ragged

__all__ = ["bin_means", "max_tokens", "mean_tokens", "summarise", "summary_shape"]


def summary_shape(reads: str, width: int) -> tuple[int, int] | None:
    """Rows and columns (R, C) of a summary of tokens ``width`` wide; None for all ``tokens``."""
    kind, bins = _parse(reads)
    if kind == "tokens":
        return None
    return bins if kind == "bins" else 1, width if kind in ("means", "bins") else 2 * width


def summarise(tokens: Ragged, reads: str) -> Tensor:
    """A summary of each sample's tokens.

    Args:
        tokens: values (N, D).
        reads: ``means``: one row, the mean over tokens. ``bins-K``: K rows, the means of K equal parts, see
            ``bin_means``. ``max-means``: one row, the largest value of each channel and then the mean, 2D wide.
            ``mean-bins-K``: one row, the mean over tokens and then the mean of the rows of ``bins-K``, 2D wide; they
            differ where K does not divide T.

    Returns:
        (B, R, C) as ``summary_shape`` gives, float32; zeros for a sample without tokens.
    """
    kind, bins = _parse(reads)
    assert kind != "tokens", "tokens are not summarised"
    if kind == "bins":
        return bin_means(tokens, bins)
    means = mean_tokens(tokens)
    if kind == "means":
        return means[:, None]
    both = [max_tokens(tokens), means] if kind == "max-means" else [means, bin_means(tokens, bins).mean(1)]
    return torch.cat(both, dim=-1)[:, None]


def mean_tokens(tokens: Ragged) -> Tensor:
    """Mean over the tokens of each sample in float32, (B, D); zeros for a sample without tokens."""
    if bool((tokens.lengths <= 1).all()):
        return _rows(tokens, 1).squeeze(1)
    values = tokens.values
    return torch.stack(
        [
            part.mean(0, dtype=torch.float32) if len(part) else values.new_zeros(values.shape[1:], dtype=torch.float32)
            for part in tokens.to_list()
        ]
    )


def max_tokens(tokens: Ragged) -> Tensor:
    """Largest value of each channel among the tokens of each sample in float32, (B, D); zeros without tokens."""
    if bool((tokens.lengths <= 1).all()):
        return _rows(tokens, 1).squeeze(1)
    parts = tokens.to_list()
    return torch.stack([part.amax(0) if len(part) else part.new_zeros(part.shape[1:]) for part in parts]).float()


def bin_means(tokens: Ragged, bins: int) -> Tensor:
    """Means of equal parts of each sample's tokens, as adaptive average pooling of torch.

    Part i of K has the tokens from ``floor(i * T / K)`` up to ``ceil((i + 1) * T / K)``: neighbours share a token
    where K does not divide T, and every part has one.

    Returns:
        (B, bins, D), float32; zeros for a sample without tokens.
    """
    lengths = tokens.lengths
    if bool(((lengths == 0) | (lengths == bins)).all()):
        return _rows(tokens, bins)
    i = torch.arange(bins)
    first = i * lengths[:, None] // bins  # (B, bins)
    sizes = ((i + 1) * lengths[:, None] + bins - 1) // bins - first
    starts, sizes = (tokens.offsets[:-1, None] + first).flatten(), sizes.flatten()
    ends = sizes.cumsum(0)
    rows = torch.arange(int(ends[-1])) + (starts - (ends - sizes)).repeat_interleave(sizes)
    # one pass that adds up rows where they lie: a gather would copy all tokens first
    device = tokens.values.device
    means = F.embedding_bag(rows.to(device), tokens.values.float(), (ends - sizes).to(device), mode="mean")
    return means.view(len(lengths), bins, -1)


def _rows(tokens: Ragged, n: int) -> Tensor:
    """Values of samples that have ``n`` rows or none, (B, n, D) in float32; zeros for none."""
    present = tokens.lengths > 0
    values = tokens.values.float().reshape(int(present.sum()), n, tokens.values.shape[-1])
    if bool(present.all()):
        return values
    where = present.nonzero().squeeze(1).to(values.device)
    return values.new_zeros(len(present), *values.shape[1:]).index_copy(0, where, values)


def _parse(reads: str) -> tuple[str, int]:
    """The kind of a summary, and K (0 where there is none)."""
    found = re.fullmatch(r"(tokens|means|max-means)|(bins|mean-bins)-([1-9]\d*)", reads)
    assert found is not None, f"unknown summary {reads!r}"
    return found[1] or found[2], int(found[3] or 0)
