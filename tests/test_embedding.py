"""Batches through an encoder that runs out of memory, chokes on a sequence, or loses rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from embedding_fakes import Choking, Limited, MakePlan, embedder, gather, make_plan, plan_of, run
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedcache.embedding import CONTROL
from embedcache.errors import EmbedCacheError, InvalidSettingError
from embedcache.store.quarantine import Poisoned

__all__ = ["make_plan"]
same_every_time = settings(derandomize=True, deadline=None, max_examples=60)


@same_every_time
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(10, 60), st.integers(1, 200))
def test_memory_that_runs_out_loses_no_sequence_that_fits_alone(lengths: list[int], most: int, tokens: int) -> None:
    encoder, given_up = Limited(most), dict[int, Poisoned]()
    with plan_of(*("MKVL"[i % 4] * length for i, length in enumerate(lengths))) as plan:
        found = embedder(encoder, tokens, give_up=gather(given_up))
        rows = run(found, plan)
        assert set(rows) == {i for i, length in enumerate(lengths) if length <= most}
        assert set(given_up) == set(range(len(lengths))) - set(rows)
        for i, (stored,) in rows.items():
            assert np.array_equal(stored, encoder.rows(plan.sequence(i)))
    assert all(tokens <= most for tokens in encoder.batches)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     RuntimeError("CUDA error: out of memory")],
    ids=["host", "torch on the host", "pinned"],
)  # fmt: skip
def test_after_memory_ran_out_batches_stay_smaller(error: Exception, make_plan: MakePlan) -> None:
    encoder = Limited(12, error)
    found = embedder(encoder, 40)
    assert len(run(found, make_plan(*["MKVLA"] * 16))) == 16
    assert found.tokens_per_batch == 10
    assert encoder.batches == [10] * 8  # 40 and 20 tokens are tried once each


def test_tensors_of_a_pass_that_failed_are_let_go_before_it_is_tried_again(make_plan: MakePlan) -> None:
    alive: list[int] = []

    class Tensor:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    class Holding(Limited):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            assert not alive, "the pass that failed still holds its memory"
            tensor = Tensor()
            rows = super().encode(sequences)
            del tensor
            return rows

    assert len(run(embedder(Holding(12), 40), make_plan(*["MKVLA"] * 8))) == 8


@pytest.mark.parametrize("error", [ValueError("no such letter"), EmbedCacheError("not finite"), KeyError("X")])
def test_a_sequence_that_fails_alone_is_given_up_and_no_other(error: Exception, make_plan: MakePlan) -> None:
    encoder, given_up = Choking("X", error), dict[int, Poisoned]()
    plan = make_plan("MKV", "MXV", "KKK", "LLL", "X", "AAA")
    rows = run(embedder(encoder, give_up=gather(given_up)), plan)
    assert set(rows) == {0, 2, 3, 5} and set(given_up) == {1, 4}
    assert all(np.array_equal(stored, encoder.rows(plan.sequence(i))) for i, (stored,) in rows.items())
    assert given_up[1].id == "P1" and str(error.args[0]) in given_up[1].reason
    assert encoder.embedded.count(CONTROL["protein"]) == 2  # before each of them is blamed


def test_an_encoder_that_fails_on_an_ordinary_sequence_too_blames_nobody(make_plan: MakePlan) -> None:
    class Broken(FakeEncoder):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            raise ValueError("mat1 and mat2 shapes cannot be multiplied")

    given_up: dict[int, Poisoned] = {}
    with pytest.raises(ValueError, match="mat1 and mat2"):
        run(embedder(Broken(), give_up=gather(given_up)), make_plan("MKV", "LLL"))
    assert given_up == {}


def test_an_encoder_that_breaks_after_it_worked_blames_nobody(make_plan: MakePlan) -> None:
    class Breaking(FakeEncoder):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            if len(self.batches) >= 2:
                raise ValueError("a file is gone")
            return super().encode(sequences)

    given_up: dict[int, Poisoned] = {}
    with pytest.raises(ValueError, match="a file is gone"):
        run(embedder(Breaking(), 4, give_up=gather(given_up)), make_plan("MKV", "LLL", "AAA"))
    assert given_up == {}


@pytest.mark.parametrize(
    ("cut", "message"),
    [(lambda rows: rows[:-1], "returned 1 arrays for 2 sequences"),
     (lambda rows: [one[1:] for one in rows], r"returned rows \(2, 12\) for a sequence of 3 tokens")],
    ids=["a sequence lost", "a token lost"],
)  # fmt: skip
def test_an_encoder_that_loses_rows_is_refused(cut: Any, message: str, make_plan: MakePlan) -> None:
    class Losing(FakeEncoder):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            found: list[NDArray[np.float32]] = cut(super().encode(sequences))
            return found

    with pytest.raises(EmbedCacheError, match="returned"):
        run(embedder(Losing()), make_plan("MKV", "LLL"))
    plan = make_plan("MKV", "LLL")
    found = embedder(Losing())
    with pytest.raises(EmbedCacheError, match=message):
        found._check({-1: Losing().encode(["MKV", "LLL"])}, plan.lengths)


def test_several_layers_need_an_encoder_that_gives_them() -> None:
    with pytest.raises(InvalidSettingError, match="Encoder fake gives one layer a pass"):
        embedder(FakeEncoder(), layers=(1, -1))
