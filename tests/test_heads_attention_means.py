"""The mean over queries without what each query reads: against the formula, and against the block that makes it all."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedcache.ragged import Ragged
from embedcache.sequences import MODALITIES, Modality
from heads import attention_means
from heads.attention import CrossAttention
from heads.attention_means import mean_weights, weighted_sums
from heads.config import ModelConfig
from heads.model import ExpressionModel

HEADS, EACH, OTHER = 2, 4, 5
LENGTHS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=5)
WIDTHS: dict[Modality, int] = {"dna": 8, "rna": 16, "protein": 12}


def packed(lengths: list[int], *shape: int, dtype: torch.dtype = torch.float64) -> Ragged:
    return Ragged.from_list([torch.randn(n, *shape, dtype=dtype) for n in lengths])


def pair(lengths: list[tuple[int, int]], dtype: torch.dtype = torch.float64) -> tuple[Ragged, Ragged]:
    q, k = (packed([both[i] for both in lengths], HEADS, EACH, dtype=dtype) for i in (0, 1))
    q.values.requires_grad_()
    k.values.requires_grad_()
    return q, k


def written_out(q: Tensor, k: Tensor) -> Tensor:
    """Weights (keys, H) of one sample."""
    if not len(q):
        return 0 * (k.sum(-1) + q.sum())  # zeros whose gradient is zero
    heads = [(q[:, h] @ k[:, h].T / EACH**0.5).softmax(-1).mean(0) for h in range(HEADS)]
    return torch.stack(heads, dim=-1)


@pytest.mark.parametrize(("scores", "queries"), [(1 << 18, 64), (1, 2), (30, 2)])  # all at once; one head; some of both
@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_weights_and_their_gradients_are_the_formula(scores: int, queries: int, lengths: list[tuple[int, int]]) -> None:
    q, k = pair(lengths)
    wanted = torch.randn(len(k.values), HEADS, dtype=torch.float64)
    with patch.multiple(attention_means, _SCORES=scores, _QUERIES=queries):
        found = mean_weights(q, k)
        gradients = torch.autograd.grad((found * wanted).sum(), [q.values, k.values])
    expected = torch.cat([written_out(*both) for both in zip(q.to_list(), k.to_list(), strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
    right = torch.autograd.grad((expected * wanted).sum(), [q.values, k.values], allow_unused=True)
    for a, b in zip(gradients, right, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, atol=1e-13, rtol=0)


@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_weights_of_a_sample_are_bitwise_the_same_alone_and_in_a_batch(lengths: list[tuple[int, int]]) -> None:
    q, k = pair(lengths, torch.float32)
    together = Ragged(mean_weights(q, k), k.offsets).to_list()
    for part, *own in zip(together, q.to_list(), k.to_list(), strict=True):
        assert torch.equal(part, mean_weights(*(Ragged.from_list([one]) for one in own)))


def test_sums_are_of_each_head_over_its_sample() -> None:
    weights, tokens = packed([3, 0, 2], HEADS), packed([3, 0, 2], OTHER)
    found = weighted_sums(weights.values, tokens)
    assert found.shape == (3, HEADS, OTHER) and not found[1].any()
    torch.testing.assert_close(found[2, 1], weights.values[3:, 1] @ tokens.values[3:])


@pytest.mark.parametrize("pre_norm", [False, True])
@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_a_block_asked_for_means_gives_those_of_its_tokens(pre_norm: bool, lengths: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    layer = CrossAttention(HEADS * EACH, OTHER, HEADS, pre_norm=pre_norm)
    widths = (HEADS * EACH, OTHER)
    x, context = (packed([both[i] for both in lengths], widths[i], dtype=torch.float32) for i in (0, 1))
    inputs = [x.values.requires_grad_(), context.values.requires_grad_(), *layer.parameters()]
    means, tokens = layer(x, context, means=True), layer(x, context)
    assert torch.equal(means.lengths, (x.lengths > 0).long())
    whole = [part.mean(0) for part in tokens.to_list() if len(part)]
    expected = torch.stack(whole) if whole else torch.zeros(0, HEADS * EACH)
    torch.testing.assert_close(means.values, expected, atol=2e-6, rtol=1e-5)
    factors = torch.randn_like(expected)
    found = torch.autograd.grad((means.values * factors).sum(), inputs, allow_unused=True)
    right = torch.autograd.grad((expected * factors).sum(), inputs, allow_unused=True) if whole else [None] * len(found)
    for a, b, one in zip(found, right, inputs, strict=True):
        zeros = torch.zeros_like(one)
        torch.testing.assert_close(zeros if a is None else a, zeros if b is None else b, atol=5e-6, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"rounds": 2}, {"pre_norm": True}, {"centres": "dna"}, {"width": 6}], ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_takes_the_short_way_to_the_same_features(options: dict[str, object], precision: str) -> None:
    torch.manual_seed(0)
    model = ExpressionModel(ModelConfig(heads=2, **options), WIDTHS, 3)  # type: ignore[arg-type]
    lengths = {"dna": [4, 7, 0, 3, 0], "rna": [5, 1, 3, 0, 0], "protein": [0, 9, 6, 0, 0]}
    tokens = {m: packed(lengths[m], WIDTHS[m], dtype=torch.float32) for m in MODALITIES}
    asked, found = [], []
    for block in model.aggregator.rounds[-1].values():  # type: ignore[index, union-attr]
        block.register_forward_pre_hook(lambda _, __, options: asked.append(options["means"]), with_kwargs=True)
    for is_short in (True, False):
        assert model.aggregator.only_means or not is_short
        model.aggregator.only_means = is_short  # type: ignore[assignment]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            found.append(model.aggregator(tokens).float())
    centres = 1 if "centres" in options else 3
    assert asked == [False, True] * centres + [False] * 2 * centres
    tolerance = 2e-6 if precision == "float32" else 3e-2
    torch.testing.assert_close(found[0], found[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("options", [{"feed_forward": 2}, {"pooling": "attention"}, {"pooling": "max-mean"}], ids=str)
def test_what_needs_every_token_gets_it(options: dict[str, object]) -> None:
    model = ExpressionModel(ModelConfig(heads=2, **options), WIDTHS, 3)  # type: ignore[arg-type]
    assert not model.aggregator.only_means
