"""Pooled rows against torch, against exact sums, and among other sequences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoders.pooling import count_pooled, pool_rows
from embedcache.errors import InvalidSettingError

same_every_time = settings(derandomize=True, deadline=None)


def drawn(tokens: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(tokens).standard_normal((tokens, width)).astype(np.float32)


@same_every_time
@given(st.integers(1, 300), st.integers(1, 320))
def test_adaptive_means_are_those_of_torch_and_short_sequences_stay(tokens: int, most: int) -> None:
    rows, rule = drawn(tokens), f"adaptive-{most}"
    got = pool_rows(rows, rule)
    assert got.dtype == np.float32 and len(got) == count_pooled(tokens, rule) == min(tokens, most)
    if tokens <= most:
        assert np.array_equal(got, rows)
    else:
        want = F.adaptive_avg_pool1d(torch.from_numpy(rows).double().T[None], most)[0].T.float().numpy()
        assert np.abs(got - want).max() <= 1e-7  # rounds once: within a unit in the last place


def test_a_mean_is_the_exact_sum_rounded_once() -> None:
    rows = drawn(2000, 16) + np.float32(1000)
    want = [np.float32(math.fsum(column) / len(rows)) for column in rows.T.astype(np.float64)]
    assert pool_rows(rows, "mean").tolist() == [want]
    assert pool_rows(rows, "adaptive-1").tolist() == [want]


def test_a_pooled_row_does_not_depend_on_where_its_rows_lie_in_memory() -> None:
    rows = drawn(400, 32)
    beside = np.concatenate([drawn(7, 32), rows, drawn(9, 32)])[7:-9]
    for rule in ("mean", "adaptive-30"):
        want = pool_rows(rows, rule)
        assert np.array_equal(pool_rows(beside, rule), want)
        assert np.array_equal(pool_rows(np.asfortranarray(rows), rule), want)


def test_nothing_is_pooled_without_a_rule_and_no_tokens_are_no_rows() -> None:
    rows = drawn(9)
    assert pool_rows(rows, "none") is rows
    for rule in ("none", "mean", "adaptive-4"):
        assert pool_rows(rows[:0], rule).shape == (0, 5)
        assert count_pooled(0, rule) == 0


@pytest.mark.parametrize("rule", ["", "max", "adaptive", "adaptive-0", "adaptive--1", "adaptive-1e3", "adaptive-07"])
def test_an_unknown_rule_says_which_there_are(rule: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"Pooling .* is not known\. Choose none, mean, or adaptive-"):
        count_pooled(3, rule)
