"""TensorBoard scalars: the format, once each after kills, nothing without the package, and no other file changed."""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_study import FakeStudy, make_study

from embedcache.errors import InvalidSettingError
from heads.checkpoint import CheckpointError
from heads.config import ModelConfig, TrainConfig
from heads.run import Run
from heads.tensorboard import FILE, SWITCH, write_scalars
from heads.train import train

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "train_loss": 0.5, "validation_loss": 0.75, "r2": -0.25, "spearman": None},
    {"epoch": 300, "train_loss": 0.25},
]
# Event messages and records that tensorboard 2.21 itself wrote for these numbers, at wall time 1.5
GOLDEN = (
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c4e00000000000000c4b905ad09000000"
    "000000f83f10012a410a110a0a6c6f73732f747261696e150000003f0a160a0f6c6f73732f76616c69646174696f6e150000403f0a140a0d"
    "76616c69646174696f6e2f723215000080be0de50fd62100000000000000017becf609000000000000f83f10ac022a130a110a0a6c6f7373"
    "2f747261696e150000803e6c5611a4"
)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of the name is found; nothing of it is used."""
    if importlib.util.find_spec("tensorboard") is None:
        folder = tmp_path / "packages" / "tensorboard"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise ImportError('it is never loaded')\n")
        monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(time, "time", lambda: 1.5)
    return


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=20)


def train_run(study: FakeStudy, run: Path) -> Path:
    config = TrainConfig(epochs=4, batch_size=8, device="cpu")
    model = ModelConfig(aggregator="concat", hidden=8)
    train(dataset=study.dataset, cache=study.cache, run=run, model=model, config=config)
    return run


def test_the_file_has_the_bytes_that_tensorboard_writes(tmp_path: Path) -> None:
    write_scalars(tmp_path, HISTORY)
    assert (tmp_path / FILE).read_bytes().hex() == GOLDEN


def test_epochs_are_added_once_and_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    path, whole = tmp_path / FILE, bytes.fromhex(GOLDEN)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        write_scalars(tmp_path, HISTORY)
        assert path.read_bytes() == whole, cut
    path.write_bytes(whole[:60] + b"\0" + whole[61:])  # damaged within
    write_scalars(tmp_path, HISTORY)
    assert path.read_bytes() == whole
    write_scalars(tmp_path, HISTORY[:1])  # a checkpoint of an older epoch: what follows comes again
    assert len(path.read_bytes()) < len(whole)
    write_scalars(tmp_path, HISTORY)
    assert path.read_bytes() == whole


def test_a_run_has_scalars_and_the_same_other_files(
    study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scalars = train_run(study, tmp_path / "with")
    monkeypatch.setenv(SWITCH, "0")
    without = train_run(study, tmp_path / "without")
    names = {path.name for path in without.iterdir()}
    assert {path.name for path in with_scalars.iterdir()} == names | {FILE} and FILE not in names
    for name in names:
        assert (with_scalars / name).read_bytes() == (without / name).read_bytes(), name


def test_a_run_that_goes_on_repeats_no_step(study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (train_run(study, tmp_path / "whole") / FILE).read_bytes()
    end_epoch = Run.end_epoch

    def stopped(self: Run, *arguments: Any) -> None:
        end_epoch(self, *arguments)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("heads.fit._SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("heads.fit._SAVE_SHARE", 1e9)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "end_epoch", stopped)
        train_run(study, tmp_path / "run")
    half = (tmp_path / "run" / FILE).read_bytes()
    assert 0 < len(half) < len(whole)
    assert (train_run(study, tmp_path / "run") / FILE).read_bytes() == whole
    assert (train_run(study, tmp_path / "run") / FILE).read_bytes() == whole  # a third call finds it finished


def test_nothing_is_written_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.tensorboard.find_spec", lambda name: None)
    monkeypatch.delenv(SWITCH)
    write_scalars(tmp_path, HISTORY)
    assert not (tmp_path / FILE).exists()


def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_scalars(tmp_path / "missing", HISTORY)
    monkeypatch.setenv(SWITCH, "yes")
    with pytest.raises(InvalidSettingError, match="HEADS_TENSORBOARD is 'yes'"):
        write_scalars(tmp_path, HISTORY)


def test_tensorboard_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv(SWITCH, "1")
    write_scalars(tmp_path, HISTORY)
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert found.Tags()["scalars"] == ["loss/train", "loss/validation", "validation/r2"]
    assert [(one.step, one.value) for one in found.Scalars("loss/train")] == [(1, 0.5), (300, 0.25)]
