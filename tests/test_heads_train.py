"""Training: the same numbers again, after any kill, in any company; and directories that cannot be confused."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_study import FakeStudy, make_study

from embedcache.interrupt import StoppedError
from heads import train as training
from heads.checkpoint import CheckpointError, read_tensors, write_tensors
from heads.config import ModelConfig, TrainConfig
from heads.data import Batch, epoch_order
from heads.directory import RunDirectory
from heads.inference import predict_rows
from heads.run import Run
from heads.setup import open_study
from heads.team import Alone
from heads.train import DivergedError, TrainResult, train

CPU = torch.device("cpu")
MODEL = ModelConfig(heads=2)
CONFIG = TrainConfig(epochs=3, batch_size=8, device="cpu", max_tokens_per_batch=400)
WITH_DROPOUT = ModelConfig(aggregator="concat", hidden=16, dropout=0.3)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=24)


def go(study: FakeStudy, run: Path, model: ModelConfig = MODEL, config: TrainConfig = CONFIG) -> TrainResult:
    return train(dataset=study.dataset, cache=study.cache, run=run, model=model, config=config)


def results(run: Path) -> tuple[bytes, ...]:
    """Every byte that training leaves, but for the lock."""
    names = ("config.json", "history.jsonl", "model.safetensors", "checkpoint.safetensors")
    return tuple((run / name).read_bytes() for name in names)


def weights(run: Run) -> list[torch.Tensor]:
    return [value.clone() for value in run.model.state_dict().values()]


@pytest.mark.parametrize("model", [MODEL, WITH_DROPOUT], ids=["cross-attention", "dropout"])
def test_same_seed_same_bytes(study: FakeStudy, tmp_path: Path, model: ModelConfig) -> None:
    torch.manual_seed(1)
    outer = torch.get_rng_state()
    go(study, tmp_path / "a", model)
    assert torch.equal(outer, torch.get_rng_state()), "training drew from the caller's random numbers"
    torch.manual_seed(2)
    go(study, tmp_path / "b", model)
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_another_seed_is_another_model(study: FakeStudy, tmp_path: Path) -> None:
    for name, config in (("a", CONFIG), ("b", replace(CONFIG, seed=1))):
        go(study, tmp_path / name, config=config)
    assert results(tmp_path / "a")[2] != results(tmp_path / "b")[2]


@pytest.mark.parametrize("model", [MODEL, WITH_DROPOUT], ids=["cross-attention", "dropout"])
@pytest.mark.parametrize("step", [0, 2, 4, 7])
def test_stopped_at_any_step_it_ends_with_the_same_bytes(
    study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ModelConfig, step: int
) -> None:
    go(study, tmp_path / "whole", model)
    steps = 0
    update = Run.update

    def interrupted(self: Run, team: Alone) -> None:
        nonlocal steps
        update(self, team)
        if steps == step:
            signal.raise_signal(signal.SIGTERM)
        steps += 1

    monkeypatch.setattr(Run, "update", interrupted)
    with pytest.raises(StoppedError, match="same command to go on"):
        go(study, tmp_path / "cut", model)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    monkeypatch.undo()
    result = go(study, tmp_path / "cut", model)
    assert result.resumed_epoch is not None
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_killed_it_ends_with_the_same_bytes(study: FakeStudy, tmp_path: Path) -> None:
    go(study, tmp_path / "whole")
    script = (
        "import sys; from pathlib import Path; from test_heads_train import go, FakeStudy;"
        "go(FakeStudy(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]))"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(study.dataset), str(study.cache), str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "cut" / "history.jsonl").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "model.safetensors").exists(), "too late to kill it: give it more epochs"
    assert go(study, tmp_path / "cut").resumed_epoch is not None
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_killed_before_the_last_file_the_next_call_writes_it(study: FakeStudy, tmp_path: Path) -> None:
    go(study, tmp_path / "run")
    expected = results(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / ".model.safetensors.0123").write_bytes(b"half")
    assert go(study, tmp_path / "run").computed
    assert results(tmp_path / "run") == expected
    assert not (tmp_path / "run" / ".model.safetensors.0123").exists()


def test_a_finished_run_is_left_alone(study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = go(study, tmp_path / "run")
    monkeypatch.setattr(training, "fit", None)
    again = go(study, tmp_path / "run")
    assert (first.computed, again.computed) == (True, False)
    assert again.validation == first.validation
    assert "nothing to do" in str(again)
    assert "simulated; random encoder: dna tiny-dna" in str(again)


def test_early_stopping_keeps_the_best_epoch(study: FakeStudy, tmp_path: Path) -> None:
    config = TrainConfig(epochs=60, patience=2, learning_rate=0.03, batch_size=8, device="cpu")
    result = go(study, tmp_path / "run", ModelConfig(modalities=("rna",)), config)
    assert result.epochs == result.best_epoch + 2 < 60
    _, values = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    losses = [record["validation_loss"] for record in values["history"]]
    assert min(losses) == losses[result.best_epoch - 1] == result.validation["validation_loss"]


def test_parts_of_a_batch_add_up(study: FakeStudy) -> None:
    """Token limits change rounding only: gradients of parts sum to those of the batch."""
    opened, runs = open_study(study.dataset, study.cache, MODEL), []
    for limit in (None, 100):
        config = TrainConfig(epochs=1, batch_size=16, device="cpu", max_tokens_per_batch=limit)
        run = Run(MODEL, config, study=opened, device=CPU)
        training.fit([run], opened, lambda _: None)
        runs.append(run)
    for a, b in zip(*map(weights, runs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_a_run_in_company_is_bitwise_the_run_alone(study: FakeStudy) -> None:
    opened = open_study(study.dataset, study.cache, WITH_DROPOUT)

    def make(seed: int, learning_rate: float) -> Run:
        config = TrainConfig(epochs=3, batch_size=8, seed=seed, learning_rate=learning_rate, device="cpu")
        return Run(WITH_DROPOUT, config, study=opened, device=CPU)

    alone = [make(0, 1e-3), make(1, 1e-2)]
    for run in alone:
        training.fit([run], opened, lambda _: None)
    together = [make(5, 1e-3), make(1, 1e-2), make(0, 1e-3)]
    training.fit(together, opened, lambda _: None)
    for one, other in zip(alone, (together[2], together[1]), strict=True):
        assert one.history == other.history
        assert all(map(torch.equal, weights(one), weights(other)))


def test_a_run_that_writes_to_the_shared_batch_is_caught(
    study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Run.accumulate

    def careless(self: Run, batch: object, n_cells: int) -> None:
        batch.targets.mul_(1)  # type: ignore[attr-defined]
        forward(self, batch, n_cells)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "accumulate", careless)
    with pytest.raises(AssertionError, match="wrote to the shared batch"):
        go(study, tmp_path / "run")


def test_other_settings_in_the_same_directory_are_refused(study: FakeStudy, tmp_path: Path) -> None:
    go(study, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"heads: 2, now 4; learning_rate: 0\.001, now 0\.1"):
        go(study, tmp_path / "run", ModelConfig(heads=4), replace(CONFIG, learning_rate=0.1))
    other = make_study(tmp_path / "other", n_genes=20, seed=7)
    with pytest.raises(CheckpointError, match=r"dataset: .*, now .*other"):
        go(other, tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"no config\.json and is not empty"):
        go(study, tmp_path / "full")


def test_two_processes_do_not_train_one_run(study: FakeStudy, tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path / "run").locked(),
        pytest.raises(CheckpointError, match="Another process trains"),
    ):
        go(study, tmp_path / "run")


def test_damaged_and_foreign_files_are_one_line(study: FakeStudy, tmp_path: Path) -> None:
    go(study, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        go(study, tmp_path / "run")
    write_tensors(checkpoint, {"model.x": torch.zeros(1)}, {"epoch": 1})
    with pytest.raises(CheckpointError, match="does not fit"):
        go(study, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text('{"format": "isoheads-run", "version": 99}')
    with pytest.raises(CheckpointError, match="format version 99"):
        go(study, tmp_path / "run")


def test_a_loss_without_end_is_told(study: FakeStudy, tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=8, learning_rate=1e6, device="cpu")
    with pytest.raises(DivergedError, match="learning-rate below 1e"):
        go(study, tmp_path / "run", config=config)


def test_the_recorded_loss_is_the_mean_over_measured_cells(study: FakeStudy) -> None:
    opened = open_study(study.dataset, study.cache, MODEL)
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1e-12, device="cpu", max_tokens_per_batch=200)
    run = Run(MODEL, config, study=opened, device=CPU)
    training.fit([run], opened, lambda _: None)
    rows = opened.rows["train"]
    errors = predict_rows(run.model, opened.data, rows, config) - opened.data.targets[rows]
    assert run.history[0]["train_loss"] == pytest.approx(float(np.nanmean(errors**2)), rel=1e-5)


def test_every_epoch_takes_each_training_row_once_in_its_own_order(
    study: FakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, seen = open_study(study.dataset, study.cache, MODEL), []
    accumulate = Run.accumulate

    def watched(self: Run, batch: Batch, n_cells: int) -> None:
        seen.extend(batch.rows.tolist())
        accumulate(self, batch, n_cells)

    monkeypatch.setattr(Run, "accumulate", watched)
    config = TrainConfig(epochs=2, batch_size=8, device="cpu", data_seed=4)
    training.fit([Run(MODEL, config, study=opened, device=CPU)], opened, lambda _: None)
    rows = opened.rows["train"]
    assert seen == [*epoch_order(rows, 4, 0), *epoch_order(rows, 4, 1)]
