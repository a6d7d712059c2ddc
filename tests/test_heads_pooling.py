"""Pools and summaries: against torch on one sample at a time, and a summary passes through as its tokens do."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from embedcache.ragged import Ragged
from heads.config import ModelConfig
from heads.pooling import (
    AttentionPool,
    BinPool,
    MaxMeanPool,
    MeanPool,
    Standardised,
    build_pool,
    fitting,
    mean_tokens,
    summarise,
    summary_of_pool,
)
from heads.summaries import summary_shape

WIDTH = 6
KINDS = ["means", "bins-1", "bins-4", "max-means", "mean-bins-4"]
LENGTHS = st.lists(st.integers(0, 11), min_size=1, max_size=5)


def tokens_of(lengths: list[int], seed: int = 0) -> Ragged:
    generator = torch.Generator().manual_seed(seed)
    return Ragged.from_list([torch.randn(n, WIDTH, generator=generator) * 3 + 1 for n in lengths])


def packed(summary: Tensor, lengths: list[int]) -> Ragged:
    """As the loop of training gives summaries back: R rows a sample, none where the modality is missing."""
    return Ragged.from_list([rows if n else rows[:0] for rows, n in zip(summary, lengths, strict=True)])


def bins_by_torch(part: Tensor, bins: int) -> Tensor:
    return F.adaptive_avg_pool1d(part.T[None], bins)[0].T


def one_by_hand(part: Tensor, reads: str) -> Tensor:
    if not len(part):
        shape = summary_shape(reads, WIDTH)
        assert shape is not None
        return torch.zeros(shape)
    if reads.startswith("bins"):
        return bins_by_torch(part, int(reads[5:]))
    other = part.amax(0) if reads == "max-means" else bins_by_torch(part, 4).mean(0)
    both = {"means": [part.mean(0)], "max-means": [other, part.mean(0)], "mean-bins-4": [part.mean(0), other]}[reads]
    return torch.cat(both)[None]


@pytest.mark.parametrize("reads", KINDS)
@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS)
def test_a_summary_is_that_of_each_sample_alone(reads: str, lengths: list[int]) -> None:
    tokens = tokens_of(lengths)
    found = summarise(tokens, reads)
    assert found.dtype == torch.float32
    assert found.shape == (len(lengths), *(summary_shape(reads, WIDTH) or ()))
    for i, part in enumerate(tokens.to_list()):
        torch.testing.assert_close(found[i], one_by_hand(part, reads), atol=1e-5, rtol=1e-5)
        assert torch.equal(found[i], summarise(Ragged.from_list([part]), reads)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reads", KINDS)
def test_sums_of_half_precision_tokens_are_float32(reads: str, dtype: torch.dtype) -> None:
    tokens = tokens_of([9, 0, 300])
    tokens = tokens._replace(values=tokens.values.to(dtype))
    expected = summarise(tokens._replace(values=tokens.values.float()), reads)
    torch.testing.assert_close(summarise(tokens, reads), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reads", ["means", "bins-4"])
@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS)
def test_a_summary_of_a_summary_is_itself(reads: str, lengths: list[int]) -> None:
    once = summarise(tokens_of(lengths), reads)
    assert torch.equal(summarise(packed(once, lengths), reads), once)


def test_all_tokens_have_no_shape_and_unknown_summaries_are_our_bug() -> None:
    assert summary_shape("tokens", WIDTH) is None
    for wrong in ("bins", "bins-0", "mean", "tokens-3"):
        with pytest.raises(AssertionError):
            summarise(tokens_of([2]), wrong)


POOLS = {
    "means": lambda: MeanPool(WIDTH),
    "bins-4": lambda: BinPool(WIDTH, 4),
    "max-means": lambda: MaxMeanPool(WIDTH),
}


@pytest.mark.parametrize("reads", POOLS)
@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS)
def test_a_pool_gives_the_same_for_a_summary_and_for_tokens(reads: str, lengths: list[int]) -> None:
    tokens, pools = tokens_of(lengths), [POOLS[reads]() for _ in range(2)]
    inputs = [tokens, packed(summarise(tokens, reads), lengths)]
    for pool, given_tokens in zip(pools, inputs, strict=True):
        with fitting(pool):
            pool(given_tokens)
    first, second = (pool(x) for pool, x in zip(pools, inputs, strict=True))
    torch.testing.assert_close(first.values, second.values)
    assert first.present.tolist() == second.present.tolist() == [n > 0 for n in lengths]
    assert not first.values[~first.present].any()


@pytest.mark.parametrize("make", [*POOLS.values(), lambda: AttentionPool(WIDTH, 2)], ids=[*POOLS, "attention"])
def test_pooled_vectors_are_standardised_on_present_samples_only(make: object) -> None:
    pool, tokens = make(), tokens_of([5, 0, 7, 4, 9, 0, 4])  # type: ignore[operator]
    with fitting(pool):
        first, rest = tokens.to_list()[:3], tokens.to_list()[3:]
        for part in (first, rest):  # measured over several batches
            pool(Ragged.from_list(part))
    found = pool(tokens)
    present = found.values[found.present]
    torch.testing.assert_close(present.mean(0), torch.zeros(pool.features), atol=1e-5, rtol=0)
    torch.testing.assert_close(present.std(0, correction=0), torch.ones(pool.features), atol=1e-4, rtol=0)
    assert not found.values[~found.present].any()


def test_attention_pooling_starts_as_the_mean() -> None:
    pool, tokens = AttentionPool(WIDTH, 3), tokens_of([4, 0, 1])
    torch.testing.assert_close(pool(tokens).values, mean_tokens(tokens))


@pytest.mark.parametrize("queries", [1, 2, 4, 6, 8])
def test_attention_pooling_is_a_softmax_of_each_query_over_its_channels(queries: int) -> None:
    pool, tokens = AttentionPool(WIDTH, queries), tokens_of([4, 0, 1, 300])
    torch.nn.init.normal_(pool.query, generator=torch.Generator().manual_seed(1))
    pool.token_scale.copy_(torch.linspace(0.5, 2, WIDTH))
    for part, found in zip(tokens.to_list(), pool(tokens).values, strict=True):
        for c in range(WIDTH if len(part) else 0):
            query = pool.query[c * queries // WIDTH] * pool.token_scale
            weights = (part @ query / WIDTH**0.5).softmax(0)
            torch.testing.assert_close(found[c], weights @ part[:, c], atol=1e-5, rtol=1e-5)


def test_attention_pooling_does_not_depend_on_the_scale_of_channels() -> None:
    """Outlier channels of pretrained encoders must not own the softmax."""
    tokens, stretch = tokens_of([5, 3, 8]), torch.tensor([1.0, 100.0, 0.01, 1.0, 5.0, 1.0])
    stretched = tokens._replace(values=tokens.values * stretch)
    found = []
    for given_tokens in (tokens, stretched):
        pool = AttentionPool(WIDTH, 2)
        with fitting(pool):
            pool(given_tokens)
        torch.nn.init.normal_(pool.query, generator=torch.Generator().manual_seed(1))
        found.append(pool(given_tokens).values)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


def test_gradients_reach_the_queries_from_the_start() -> None:
    pool = AttentionPool(WIDTH, 2)
    pool(tokens_of([4, 0, 5])).values.square().sum().backward()
    assert pool.query.grad is not None
    assert bool(torch.isfinite(pool.query.grad).all())
    assert bool((pool.query.grad != 0).any(1).all())


def test_what_a_pool_reads() -> None:
    assert summary_of_pool(ModelConfig()) == "means"
    assert summary_of_pool(ModelConfig(pooling="max-mean")) == "max-means"
    assert summary_of_pool(ModelConfig(pooling="attention")) == "tokens"
    assert summary_of_pool(ModelConfig(aggregator="concat", bins=4), 4) == "bins-4"
    assert isinstance(build_pool(ModelConfig(), 4, bins=3), BinPool)


def test_a_pool_keeps_what_it_measured(tmp_path: Path) -> None:
    pool, tokens = AttentionPool(WIDTH, 2), tokens_of([4, 5])
    with fitting(pool):
        pool(tokens)
    assert pool.token_scale.ne(1).all()
    again = AttentionPool(WIDTH, 2)
    torch.save(pool.state_dict(), tmp_path / "pool.pt")
    again.load_state_dict(torch.load(tmp_path / "pool.pt"))
    assert torch.equal(again(tokens).values, pool(tokens).values)


def test_nothing_seen_leaves_the_scale_alone() -> None:
    layer = Standardised(2)
    with fitting(layer):
        layer.standardise(torch.randn(1, 2), torch.tensor([False]))
    assert layer.mean.tolist() == [0, 0]
    assert layer.scale.tolist() == [1, 1]
