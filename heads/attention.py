"""Cross-attention over packed tokens: the queries of a sample read the keys of the same sample, with no padding.

Shapes: B samples, N tokens that are updated, M tokens that are read, D width of the updated tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged

__all__ = ["CrossAttention", "attend"]


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


class CrossAttention(nn.Module):
    """IsoFormer's block: ``Wo softmax(Wq x (Wk c)^T / sqrt(d)) Wv c + x``.

    The maps to keys and values take the context from its own width to that of ``x``. There is no normalisation,
    no feed-forward layer, no dropout and no position.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise InvalidSettingError(
                f"Tokens are {width} numbers wide, not a multiple of {heads} heads. "
                "Choose --heads that divides it, or project the tokens first with --width."
            )
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Ragged, context: Ragged) -> Ragged:
        """Update ``x`` with information from ``context``.

        Args:
            x: Tokens to update, values of shape (N, D).
            context: Tokens to read, values of shape (M, context width). A sample without rows lacks the
                modality, and its tokens come back unchanged.
        """
        q, k, v = (
            linear(tokens.values).unflatten(-1, (self.heads, -1))  # (N or M, heads, D / heads)
            for linear, tokens in ((self.query, x), (self.key, context), (self.value, context))
        )
        read = attend(Ragged(q, x.offsets), Ragged(k, context.offsets), v)
        updated = x.values + self.out(read.flatten(-2))  # (N, D)
        present = context.lengths > 0  # (B,)
        if not bool(present.all()):
            # after the output map: its bias would change samples that have nothing to read
            rows = torch.repeat_interleave(present, x.lengths).to(updated.device)  # (N,)
            updated = torch.where(rows[:, None], updated, x.values)
        return Ragged(updated, x.offsets)
