"""Batches that a device computes beside us: their order, sequences run alone, and a device that is lost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedding_fakes import Beside, Choking, MakePlan, embedder, gather, make_plan, run
from fakes import FakeEncoder
from numpy.typing import NDArray

from embedcache.embedding import CONTROL, DeviceLostError, Embedder
from embedcache.encoders.registry import load_encoder
from embedcache.products import Product
from embedcache.store.quarantine import Poisoned

__all__ = ["make_plan"]
ILLEGAL = "CUDA error: an illegal memory access was encountered"


def test_the_next_batch_begins_before_the_last_one_is_copied(make_plan: MakePlan) -> None:
    events: list[str] = []
    encoder = Beside(events)
    plan = make_plan("MKV", "LLL", "AAAA", "GG", "C")

    def before(batch: Sequence[int]) -> bool:
        events.append(f"before {batch}")
        return True

    found = embedder(encoder, 6, layers=(2, -1))
    rows = run(found, plan, before)
    assert events == [
        "before [0, 1]", "begin MKV,LLL",
        "before [2, 3]", "begin AAAA,GG", "end MKV,LLL",
        "before [4]", "begin C", "end AAAA,GG",
        "end C",
    ]  # fmt: skip
    for i in range(5):
        expected = encoder.rows(plan.sequence(i))
        assert np.array_equal(rows[i][0], expected + 3) and np.array_equal(rows[i][1], expected)


def test_alone_each_sequence_is_finished_before_the_next_is_begun(make_plan: MakePlan) -> None:
    events: list[str] = []

    def before(batch: Sequence[int]) -> bool:
        events.append(f"before {batch}")
        return True

    found = embedder(Beside(events), 100, alone=True)
    for one in found.embed(make_plan("MKV", "LLL"), [1, 0], before):
        events.append(f"got {one.index}")
    assert [event for event in events if not event.startswith("run")] == ["before [1]", "got 1", "before [0]", "got 0"]
    assert not any(event.startswith("begin") for event in events)


def test_a_stop_ends_after_what_was_begun(make_plan: MakePlan) -> None:
    events: list[str] = []
    rows = run(embedder(Beside(events), 3), make_plan("MKV", "LLL", "AAA"), lambda batch: batch != [2])
    assert set(rows) == {0, 1}
    assert events[-1] == "end LLL"


def test_a_batch_that_cannot_begin_beside_another_runs_after_it(make_plan: MakePlan) -> None:
    events: list[str] = []

    def begin(sequences: Sequence[str]) -> None:
        if sequences == ["LLL"]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    encoder = Beside(events, begin)
    found = embedder(encoder, 3)
    found_rows = run(found, make_plan("MKV", "LLL", "AAA"))
    assert set(found_rows) == {0, 1, 2}
    assert found.tokens_per_batch == 3
    assert events == ["begin MKV", "begin LLL", "end MKV", "begin AAA", "end AAA"]
    assert "LLL" in encoder.embedded


def test_what_fails_at_the_end_is_found_out_one_by_one(make_plan: MakePlan) -> None:
    events, given_up = list[str](), dict[int, Poisoned]()

    def end(sequences: Sequence[str]) -> None:
        raise ValueError("not finite")

    class Bad(Beside):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            if "X" in sequences:
                raise ValueError("not finite")
            return super().encode(sequences)

    rows = run(embedder(Bad(events, end=end), 4, give_up=gather(given_up)), make_plan("MKV", "X", "AAAA"))
    assert set(rows) == {0, 2} and set(given_up) == {1}


@pytest.mark.parametrize("where", ["begin", "end", "run", "control"])
def test_a_lost_device_ends_the_work_and_blames_nobody(where: str, make_plan: MakePlan) -> None:
    def fail(sequences: Sequence[str]) -> None:
        raise RuntimeError(ILLEGAL)

    encoder: Any
    if where in ("begin", "end"):
        encoder = Beside([], **{where: fail})
    elif where == "run":
        encoder = Choking("K", RuntimeError(ILLEGAL))
    else:

        class LostLater(FakeEncoder):
            def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
                raise RuntimeError(ILLEGAL) if CONTROL["protein"] in sequences else ValueError("first a bad letter")

        encoder = LostLater()
    given_up: dict[int, Poisoned] = {}
    with pytest.raises(DeviceLostError, match=r"illegal memory access.*Run the same command again") as caught:
        run(embedder(encoder, give_up=gather(given_up)), make_plan("MKV"))
    assert given_up == {}
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu_rows_are_those_of_single_sequences_and_memory_is_given_back(dtype: Any, make_plan: MakePlan) -> None:
    encoder = load_encoder("esm2-8m", "protein", random_init=0, dtype=dtype, store_dtype="float32", device="cuda")
    draw = np.random.default_rng(0)
    sequences = ["".join(draw.choice(list("LAGVSERT"), size=n)) for n in (900, 900, 400, 60, 9, 1) * 20]
    plan = make_plan(*sequences)
    rows = run(Embedder(encoder, [Product(encoder.spec, Path("unused"))], 4096), plan)
    assert set(rows) == set(range(len(sequences)))
    for i, (stored,) in rows.items():
        (alone,) = encoder.encode([sequences[i]])
        assert np.abs(stored - alone).max() <= {"float32": 1e-4}.get(dtype, 0.03) * np.abs(alone).max()
    assert torch.cuda.memory_allocated() < 1 << 30
