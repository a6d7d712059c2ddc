"""Cross-attention over packed tokens: the queries of a sample read the keys of the same sample, with no padding.

Shapes: B samples, N tokens that are updated, M tokens that are read, D width of the updated tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from heads.attention_means import mean_weights, weighted_sums
from heads.summaries import mean_tokens

__all__ = ["CrossAttention", "attend", "check_heads", "feed_forward"]


def attend(query: Ragged, key: Ragged, value: Tensor) -> Tensor:
    """Scaled dot-product attention within each sample.

    Linear layers run on packed tokens and only this step goes sample by sample, so a sample's result is the
    same, bit for bit, alone and in any batch.

    Args:
        query: values (N, heads, d).
        key: values (M, heads, d); a sample may have no rows.
        value: (M, heads, d), rows as in ``key``.

    Returns:
        (N, heads, d), rows as in ``query``; zeros for a sample without keys.
    """
    assert len(query.offsets) == len(key.offsets), "query and key must hold the same samples"
    out = []
    for q, k, v in zip(query.to_list(), key.to_list(), Ragged(value, key.offsets).to_list(), strict=True):
        if len(k) == 0 or len(q) == 0:  # a softmax over nothing is NaN
            out.append(torch.zeros_like(q))
            continue
        # four axes, (1, heads, tokens, d): with three, the CPU kernel that never holds all weights is not chosen
        query_heads, key_heads, value_heads = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        read = F.scaled_dot_product_attention(query_heads, key_heads, value_heads)
        out.append(read.squeeze(0).transpose(0, 1))
    return torch.cat(out)


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that heads cannot share.

    Raises:
        InvalidSettingError: Names both.
    """
    if width % heads:
        raise InvalidSettingError(
            f"Tokens are {width} numbers wide, not a multiple of {heads} heads. "
            "Choose --heads that divides it, or project the tokens first with --width."
        )


def feed_forward(width: int, widths: int) -> nn.Sequential:
    """LayerNorm, a hidden layer ``widths * width`` wide, and back: what is added to the tokens."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, widths * width), nn.GELU(), nn.Linear(widths * width, width)
    )


class CrossAttention(nn.Module):
    """IsoFormer's block: ``Wo softmax(Wq x (Wk c)^T / sqrt(d)) Wv c + x``.

    The maps to keys and values take the context from its own width to that of ``x``. There is no dropout and no
    position; normalisation and a feed-forward layer are options that IsoFormer does not have.

    Args:
        width: D.
        context_width: Width of what is read.
        heads: Attention heads; divide D.
        pre_norm: LayerNorm on ``x`` before the queries, and on the context.
        feed_forward: Hidden width, in D, of a feed-forward layer with a LayerNorm of its own, added after; 0: none.
    """

    def __init__(
        self, width: int, context_width: int, heads: int, *, pre_norm: bool = False, feed_forward: int = 0
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.head_width = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width) if pre_norm else None
        self.context_norm = nn.LayerNorm(context_width) if pre_norm else None
        self.feed_forward = _feed_forward(width, feed_forward) if feed_forward else None

    def forward(self, x: Ragged, context: Ragged, *, means: bool = False) -> Ragged:
        """Update ``x`` with information from ``context``.

        Args:
            x: Tokens to update, values of shape (N, D).
            context: Tokens to read, values of shape (M, context width). A sample without rows lacks the
                modality, and its tokens come back unchanged.
            means: Whether the mean over the updated tokens of a sample is enough; not with a feed-forward layer.

        Returns:
            Updated tokens (N, D); or their means, a row for each sample that has any, in half the arithmetic.
        """
        own = x.values if self.norm is None else self.norm(x.values)
        other = context.values if self.context_norm is None else self.context_norm(context.values)
        if means:
            return self._means(x, Ragged(own, x.offsets), Ragged(other, context.offsets))
        q, k, v = (
            linear(values).unflatten(-1, (self.heads, -1))  # (N or M, heads, D / heads)
            for linear, values in ((self.query, own), (self.key, other), (self.value, other))
        )
        read = attend(Ragged(q, x.offsets), Ragged(k, context.offsets), v)
        updated = x.values + self.out(read.flatten(-2))  # (N, D)
        if self.feed_forward is not None:
            updated = updated + self.feed_forward(updated)
        present = context.lengths > 0  # (B,)
        if not bool(present.all()):
            # after the output map: its bias would change samples that have nothing to read
            rows = torch.repeat_interleave(present, x.lengths).to(updated.device)  # (N,)
            updated = torch.where(rows[:, None], updated, x.values)
        return Ragged(updated, x.offsets)

    def _means(self, x: Ragged, own: Ragged, other: Ragged) -> Ragged:
        """Means over the updated tokens; the maps to values and back see one row a sample, in full precision."""
        assert self.feed_forward is None, "a feed-forward layer needs every token"
        q, k = (
            Ragged(_full(linear(part.values)).view(len(part.values), self.heads, self.head_width), part.offsets)
            for linear, part in ((self.query, own), (self.key, other))
        )
        with torch.autocast(x.values.device.type, enabled=False):
            read = weighted_sums(mean_weights(q, k), Ragged(_full(other.values), other.offsets))  # (B, heads, C)
            to_values = self.value.weight.view(self.heads, self.head_width, -1)  # (heads, D / heads, C)
            values = torch.einsum("bhc,hdc->bhd", read, to_values).flatten(1) + self.value.bias  # (B, D)
            means = mean_tokens(x)
            present = ((x.lengths > 0) & (other.lengths > 0)).to(means.device)  # (B,)
            # where nothing is read, biases would change the mean
            means = torch.where(present[:, None], means + self.out(values), means)
        rows = (x.lengths > 0).long()
        kept = means if bool(rows.all()) else means[rows.bool().to(means.device)]
        return Ragged(kept, torch.cat([rows.new_zeros(1), rows.cumsum(0)]))


def _full(values: Tensor) -> Tensor:
    """Numbers of 32 bits at least."""
    return values if values.dtype == torch.float64 else values.float()


_feed_forward = feed_forward  # inside the class, the name means the setting
