"""Cross-attention on packed tokens: against a padded oracle, alone and in a batch, with nothing to read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from heads.attention import CrossAttention, attend

HEADS, WIDTH, OTHER = 2, 8, 5
LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=5)


def tokens(lengths: list[int], width: int, dtype: torch.dtype = torch.float32) -> Ragged:
    return Ragged.from_list([torch.randn(n, width, dtype=dtype) for n in lengths])


def block(dtype: torch.dtype = torch.float32) -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(WIDTH, OTHER, HEADS).to(dtype)


def padded_oracle(layer: CrossAttention, x: Ragged, context: Ragged) -> Tensor:
    """The same block on padded tensors with a mask; a sample without keys keeps its tokens."""
    out = []
    longest = max(int(context.lengths.max()), 1)
    for own, other in zip(x.to_list(), context.to_list(), strict=True):
        pad = F.pad(other, (0, 0, 0, longest - len(other)), value=7.0)
        mask = torch.arange(longest) < len(other)
        q, k, v = (
            linear(t).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for linear, t in ((layer.query, own), (layer.key, pad), (layer.value, pad))
        )
        scores = (q @ k.transpose(1, 2) / (WIDTH // HEADS) ** 0.5).masked_fill(~mask, float("-inf"))
        read = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        out.append(own + layer.out(read) if len(other) else own)
    return torch.cat(out)


@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_packed_equals_padded(lengths: list[tuple[int, int]]) -> None:
    layer = block(torch.float64)
    x = tokens([a for a, _ in lengths], WIDTH, torch.float64)
    context = tokens([b for _, b in lengths], OTHER, torch.float64)
    torch.testing.assert_close(layer(x, context).values, padded_oracle(layer, x, context), atol=1e-12, rtol=0)


def test_gradients_equal_padded() -> None:
    layer = block(torch.float64)
    x, context = tokens([3, 1, 4], WIDTH, torch.float64), tokens([5, 0, 2], OTHER, torch.float64)
    x.values.requires_grad_()
    inputs = [x.values, *layer.parameters()]
    found = torch.autograd.grad(layer(x, context).values.square().sum(), inputs)
    expected = torch.autograd.grad(padded_oracle(layer, x, context).square().sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_attention_of_a_sample_is_bitwise_the_same_alone_and_in_a_batch(lengths: list[tuple[int, int]]) -> None:
    q, k, v = (tokens([pair[i] for pair in lengths], WIDTH) for i in (0, 1, 1))
    q, k, v = (Ragged(x.values.unflatten(-1, (HEADS, -1)), x.offsets) for x in (q, k, v))
    together = Ragged(attend(q, k, v.values), q.offsets).to_list()
    for i, part in enumerate(together):
        own, keys, values = (Ragged.from_list([x.to_list()[i]]) for x in (q, k, v))
        assert torch.equal(part, attend(own, keys, values.values))


@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_a_block_on_a_sample_is_the_same_alone_within_rounding(lengths: list[tuple[int, int]]) -> None:
    # the linear maps are one matrix product over all tokens, and its kernel depends on their number
    layer = block()
    x, context = tokens([a for a, _ in lengths], WIDTH), tokens([b for _, b in lengths], OTHER)
    together = layer(x, context).to_list()
    for part, own, other in zip(together, x.to_list(), context.to_list(), strict=True):
        alone = layer(Ragged.from_list([own]), Ragged.from_list([other]))
        torch.testing.assert_close(part, alone.values, atol=2e-6, rtol=1e-5)


def test_a_sample_without_context_comes_back_bitwise_unchanged_with_finite_gradients() -> None:
    layer = block()
    torch.nn.init.constant_(layer.out.bias, 3.0)  # would leak if it were not masked after the output map
    x, context = tokens([2, 3, 1], WIDTH), tokens([4, 0, 2], OTHER)
    x.values[2, 0] = -0.0
    x.values.requires_grad_()
    before, after = x.to_list()[1].detach(), layer(x, context)
    assert torch.equal(after.to_list()[1].view(torch.int32), before.view(torch.int32))
    assert not torch.equal(after.to_list()[0], x.to_list()[0])
    after.values.square().sum().backward()
    gradients = [x.values.grad, *(parameter.grad for parameter in layer.parameters())]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)


def test_nobody_has_context() -> None:
    layer = block()
    x, context = tokens([2, 3], WIDTH), tokens([0, 0], OTHER)
    after = layer(x, context)
    assert torch.equal(after.values, x.values)
    after.values.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in layer.parameters())


def test_width_must_divide() -> None:
    with pytest.raises(InvalidSettingError, match="33 numbers wide, not a multiple of 8 heads"):
        CrossAttention(33, 8, 8)
