"""Files of a finished or unfinished sweep that are lost, damaged, or find no room."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_study import FakeStudy, files_of, make_study

from embedcache.dataset import read_dataset
from embedcache.errors import InvalidInputError
from heads.checkpoint import CheckpointError
from heads.config import SplitConfig
from heads.evaluate import evaluate
from heads.predictions import read_predictions
from heads.report.collect import collect
from heads.report.write import write_report
from heads.splits import rows_by_split
from heads.sweep.grid import read_grid
from heads.sweep.sweep import SweepJob, sweep

GRID = """
seeds = 2
[base]
aggregator = "concat"
epochs = 2
batch_size = 16
hidden = 8
[grid]
modalities = ["rna", "dna,rna"]
"""


def job_of(study: FakeStudy, folder: Path, text: str = GRID) -> SweepJob:
    (folder / "grid.toml").write_text(text)
    return SweepJob(grid=read_grid(folder / "grid.toml"), dataset=study.dataset, cache=study.cache,
                    output=folder / "sweep", device="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=24)


@pytest.fixture(scope="module")
def whole(study: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that has ended."""
    folder = tmp_path_factory.mktemp("whole")
    sweep(job_of(study, folder), resamples=100)
    return folder / "sweep"


@pytest.fixture
def job(study: FakeStudy, whole: Path, tmp_path: Path) -> SweepJob:
    """A copy of it, and the call that it came from."""
    shutil.copytree(whole, tmp_path / "sweep")
    return job_of(study, tmp_path)


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    """One bit in the middle of the last values."""
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)


def a_run(job: SweepJob) -> Path:
    return sorted((job.output / "runs").iterdir())[1]


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize(
    ("name", "damage"),
    [("config.json", lose), ("config.json", cut), ("checkpoint.safetensors", lose), ("checkpoint.safetensors", flip)],
)
def test_a_run_that_cannot_be_used_is_told_with_what_to_do(
    job: SweepJob, name: str, damage: Callable[[Path], None], finished: bool
) -> None:
    run, before = a_run(job), files_of(job.output)
    if not finished:
        (run / "model.safetensors").unlink()
    damage(run / name)
    if not finished and (name, damage) == ("checkpoint.safetensors", lose):
        sweep(job, resamples=100)  # it begins anew
    else:
        words = f"{name}.*It is a run of a sweep: remove {run}, and the same `heads sweep` trains it again"
        with pytest.raises(CheckpointError, match=words) as caught:
            sweep(job, resamples=100)
        assert "`heads train`" not in str(caught.value) and "\n" not in str(caught.value)
        shutil.rmtree(run)
        sweep(job, resamples=100)
    assert files_of(job.output) == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [("config.json", lose), ("config.json", cut), ("model.safetensors", cut), ("model.safetensors", flip)],
)
def test_commands_for_one_run_tell_of_its_sweep(job: SweepJob, name: str, damage: Callable[[Path], None]) -> None:
    run = a_run(job)
    damage(run / name)
    told = f"{name}.*It is a run of a sweep: remove {run}, and the same `heads sweep` trains it again"
    with pytest.raises(CheckpointError, match=told) as caught:
        evaluate(run)
    assert "`heads train`" not in str(caught.value)
    if damage is lose:
        with pytest.raises(InvalidInputError, match=told):
            collect(job.output)


def test_a_sweep_is_no_run_and_no_file_is_either(job: SweepJob) -> None:
    with pytest.raises(CheckpointError, match=r"is a sweep\. Give one of its runs, in .*runs; `heads report"):
        evaluate(job.output)
    with pytest.raises(InvalidInputError, match=r"sweep\.json is a file\. Give the directory"):
        write_report(job.output / "sweep.json")


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_model_is_written_again_from_its_checkpoint(
    job: SweepJob, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before, model = files_of(job.output), a_run(job) / "model.safetensors"
    damage(model)
    sweep(job, resamples=100)
    assert files_of(job.output) == before
    assert [f"{model} is damaged" in one.message for one in caplog.records] == [True]


def test_a_damaged_model_without_a_checkpoint_is_told(job: SweepJob) -> None:
    cut(a_run(job) / "model.safetensors")
    lose(a_run(job) / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match=r"has lost its checkpoint\.safetensors"):
        sweep(job, resamples=100)


def test_damaged_predictions_are_told_or_say_what_they_said(study: FakeStudy, job: SweepJob) -> None:
    path, dataset = a_run(job) / "test_predictions.parquet", read_dataset(study.dataset)
    rows, content = rows_by_split(dataset, SplitConfig())["test"], path.read_bytes()
    rows = rows[dataset.targets.iloc[rows].notna().any(axis=1).to_numpy()]
    wanted, n_told = read_predictions(path, dataset, rows), 0
    for at in range(4, len(content), 13):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            assert np.array_equal(read_predictions(path, dataset, rows), wanted), at
        except CheckpointError:
            n_told += 1
    assert n_told > 50
    with pytest.raises(CheckpointError, match="Remove it and run the sweep again"):
        cut(path)
        sweep(job, resamples=100)
    path.unlink()
    sweep(job, resamples=100)
    assert path.read_bytes() == content


@pytest.mark.parametrize("room", [0, 1, 7, 14, 21, 28])
def test_a_full_disk_is_one_line_and_the_same_sweep_goes_on(
    study: FakeStudy, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Only so many files find room: a plan, configurations, checkpoints with their history, models, predictions."""
    job, flush, left = job_of(study, tmp_path), os.fsync, [None] * room

    def full(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left.pop()
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: No space left on device\..*same command again"):
        sweep(job, resamples=100)
    monkeypatch.undo()
    assert not [path for path in job.output.rglob(".*.*") if path.is_file()], "nothing half written is left"
    sweep(job, resamples=100)
    assert files_of(job.output) == files_of(whole)


def test_no_room_for_a_directory_is_one_line(study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, make = job_of(study, tmp_path), Path.mkdir

    def full(path: Path, *arguments: object, **options: object) -> None:
        if path.parent.name == "runs":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\. Make room"):
        sweep(job, resamples=100)
