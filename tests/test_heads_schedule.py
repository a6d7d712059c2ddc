"""What a step takes: its learning rate, its clipped gradient, its weight decay, and the rows of its batch."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from fake_study import FakeStudy, make_study
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.adam import Adam
from heads.config import ModelConfig, TrainConfig
from heads.data import CachedDataset, cut, epoch_order, epoch_steps
from heads.fit import fit
from heads.run import Run
from heads.schedule import rate_factor
from heads.setup import Study, open_study

MODEL = ModelConfig(modalities=("rna",), aggregator="concat", hidden=8, dropout=0.0)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study: FakeStudy = make_study(tmp_path_factory.mktemp("study"), n_genes=24)
    return open_study(study.dataset, study.cache, ModelConfig())


def run_of(opened: Study, **changes: object) -> Run:
    config = TrainConfig(**{"batch_size": 8, "epochs": 2, "device": "cpu", **changes})  # type: ignore[arg-type]
    return Run(MODEL, config, study=opened, device=torch.device("cpu"))


# --- rates ---


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1.0] * 10),
        ("constant", 0.3, [1 / 3, 2 / 3, *[1.0] * 8]),
        ("linear", 0.0, [1 - i / 10 for i in range(10)]),
        ("linear", 0.2, [0.5, 1.0, *(1 - i / 8 for i in range(8))]),
        ("cosine", 0.0, [0.5 + 0.5 * np.cos(np.pi * i / 10) for i in range(10)]),
        ("cosine", 0.2, [0.5, 1.0, *(0.5 + 0.5 * np.cos(np.pi * i / 8) for i in range(8))]),
        ("linear", 0.04, [1 - i / 10 for i in range(10)]),  # less than half a step is none
        ("linear", 0.99, [(i + 1) / 10 for i in range(10)]),
    ],
)
def test_rates_by_hand(schedule: str, warmup: float, expected: list[float]) -> None:
    config = TrainConfig(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    np.testing.assert_allclose([rate_factor(config, i, 10) for i in range(10)], expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["constant", "linear", "cosine"]), st.floats(0, 0.99, allow_subnormal=False), st.integers(1, 150)
)
def test_a_rate_rises_to_the_one_that_is_set_then_falls_and_no_step_is_wasted(
    schedule: str, warmup: float, n_steps: int
) -> None:
    config = TrainConfig(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    rates = np.array([rate_factor(config, step, n_steps) for step in range(n_steps)])
    top = int(rates.argmax())
    assert rates[top] == 1
    assert (rates > 0).all()
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) <= 0).all()
    falls = schedule != "constant" and round(warmup * n_steps) < n_steps
    assert rate_factor(config, n_steps, n_steps) == pytest.approx(0.0 if falls else 1.0, abs=1e-12)


def watch(monkeypatch: pytest.MonkeyPatch, look: Callable[[Adam, float], object]) -> list[object]:
    """What ``look`` sees of the optimiser before each of its steps."""
    seen: list[object] = []
    step = Adam.step

    def watched(self: Adam, learning_rate: float) -> None:
        seen.append(look(self, learning_rate))
        step(self, learning_rate)

    monkeypatch.setattr(Adam, "step", watched)
    return seen


def test_a_training_takes_the_rates_of_its_schedule_over_all_epochs(
    opened: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(opened, schedule="cosine", warmup=0.25, learning_rate=0.02, epochs=3)
    seen = watch(monkeypatch, lambda _, rate: rate)
    fit([run], opened, lambda _: None)
    n_steps = 3 * -(-len(opened.rows["train"]) // 8)
    assert len(seen) == n_steps
    np.testing.assert_allclose(seen, [0.02 * rate_factor(run.config, i, n_steps) for i in range(n_steps)])


# --- gradients ---


def norm_of(optimizer: Adam) -> float:
    squares = [one.grad.square().sum() for one in optimizer.parameters if one.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


def test_long_gradients_are_shortened_together_and_short_ones_are_left(
    opened: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for clip in (None, 0.01, 1e3):
        with monkeypatch.context() as patch:
            seen = watch(patch, lambda optimizer, _: [one.grad.clone() for one in optimizer.parameters])  # type: ignore[union-attr]
            fit([run_of(opened, epochs=1, clip=clip)], opened, lambda _: None)
        found[clip] = torch.cat([one.flatten() for one in seen[0]])  # type: ignore[attr-defined]
    assert float(found[None].norm()) > 0.05
    torch.testing.assert_close(found[0.01], found[None] * 0.01 / found[None].norm(), rtol=1e-4, atol=1e-9)
    assert torch.equal(found[1e3], found[None])


def test_no_step_is_longer_than_the_clip(opened: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, lambda optimizer, _: norm_of(optimizer))
    fit([run_of(opened, clip=0.02)], opened, lambda _: None)
    assert max(seen) <= 0.02 * (1 + 1e-4)  # type: ignore[type-var, operator]
    assert min(seen) > 0.019  # type: ignore[type-var, operator]


def test_weight_decay_takes_its_share_of_every_weight(opened: Study) -> None:
    """Decoupled: one step with decay is the step without, less rate x decay x weight."""
    rows, ends = opened.rows["train"][:8], []
    begin = [one.detach().clone() for one in run_of(opened).model.parameters()]
    for decay in (0.0, 5.0):
        run = run_of(opened, weight_decay=decay, learning_rate=0.01)
        (batch,) = opened.data.batches([rows], reads=run.reads)
        run.accumulate(batch, int(batch.measured.sum()))
        run.update()
        ends.append(list(run.model.parameters()))
    for first, plain, decayed in zip(begin, *ends, strict=True):
        torch.testing.assert_close(decayed, plain - 0.01 * 5.0 * first, rtol=1e-5, atol=1e-7)


def test_gradients_are_forgotten_after_a_step(opened: Study) -> None:
    run = run_of(opened, learning_rate=1e-30)
    (batch,) = opened.data.batches([opened.rows["train"][:8]], reads=run.reads)
    seen = []
    for _ in range(2):
        run.accumulate(batch, 7)
        seen.append(norm_of(run.groups[0][0]))
        run.update()
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)
    run.accumulate(batch, 14)
    assert norm_of(run.groups[0][0]) == pytest.approx(seen[0] / 2, rel=1e-5)


# --- rows of a step ---


LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.booleans(), st.integers(0, 3))
def test_an_epoch_has_each_row_once_in_steps_of_the_batch_size(
    lengths: list[int], size: int, bucketed: bool, epoch: int
) -> None:
    config = TrainConfig(batch_size=size, bucketed=bucketed, data_seed=5)
    rows = np.arange(len(lengths))[::-1].copy()
    steps = epoch_steps(rows, config, epoch, np.array(lengths))
    assert sorted(np.concatenate(steps)) == sorted(rows)
    sizes = sorted(map(len, steps), reverse=True)
    assert sizes == [size] * (len(rows) // size) + [len(rows) % size] * bool(len(rows) % size)
    if not bucketed:
        assert np.concatenate(steps).tolist() == epoch_order(rows, 5, epoch).tolist()


def test_rows_of_like_length_share_a_step_and_steps_come_in_any_order() -> None:
    lengths = np.random.default_rng(0).permutation(1000)[:200]
    config = TrainConfig(batch_size=10, bucketed=True)
    spans, firsts = [], []
    for epoch in range(2):
        steps = epoch_steps(np.arange(200), config, epoch, lengths)
        spans.append(sorted((int(lengths[step].min()), int(lengths[step].max())) for step in steps))
        firsts.append([int(lengths[step].min()) for step in steps])
    for span in spans:  # 200 rows are one window: no step reaches into the lengths of another
        assert all(before[1] < after[0] for before, after in pairwise(span))
    assert firsts[0] != sorted(firsts[0])
    assert firsts[0] != firsts[1]


def test_buckets_are_made_within_a_window_of_32_batches() -> None:
    lengths = np.arange(640)  # two windows of 32 batches of 10
    steps = epoch_steps(lengths, TrainConfig(batch_size=10, bucketed=True), 0, lengths)
    order = epoch_order(lengths, 0, 0)
    windows = [set(order[:320].tolist()), set(order[320:].tolist())]
    assert sorted(sum(set(step.tolist()) <= window for window in windows) for step in steps) == [1] * 64
    assert sum(set(step.tolist()) <= windows[0] for step in steps) == 32


def test_a_bucketed_training_ends_with_the_same_weights_again_and_others_than_a_plain_one(opened: Study) -> None:
    ends = []
    for bucketed in (True, True, False):
        run = run_of(opened, bucketed=bucketed, learning_rate=0.01)
        fit([run], opened, lambda _: None)
        ends.append(torch.cat([one.flatten() for one in run.model.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_a_part_of_a_batch_is_the_batch_of_its_rows(opened: Study) -> None:
    data: CachedDataset = opened.data
    rows = np.random.default_rng(1).permutation(len(data))[:9]
    (whole,) = data.batches([rows])
    assert whole.part(0, 9) is whole
    for start, end in ((0, 4), (4, 9), (3, 3)):
        part, (alone,) = whole.part(start, end), data.batches([rows[start:end]])
        for name in alone.tokens:
            assert torch.equal(part.tokens[name].values, alone.tokens[name].values)
            assert torch.equal(part.tokens[name].offsets, alone.tokens[name].offsets)
            assert torch.equal(part.lengths[name], alone.lengths[name])
        for field in ("targets", "measured", "rows"):
            assert torch.equal(getattr(part, field), getattr(alone, field))
    part = whole.part(4, 9)
    before = whole.versions()
    part.targets.mul_(1)  # a view: who writes to a part writes to the batch
    assert whole.versions() != before


def test_a_row_longer_than_the_limit_is_alone() -> None:
    lengths = np.array([5, 50, 5, 5, 0, 6])
    parts = cut(np.array([0, 1, 2, 3, 4, 5]), lengths, 10, 15)
    assert [part.tolist() for part in parts] == [[0], [1], [2, 3, 4], [5]]
    assert [part.tolist() for part in cut(np.array([2, 3, 4]), lengths, 10, 10)] == [[2, 3, 4]]
    assert cut(np.array([], dtype=np.int64), lengths, 10, 10) == []
