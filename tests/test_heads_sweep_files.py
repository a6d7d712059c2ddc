"""The directory of a sweep, what it will take, and the workers that share it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heads.checkpoint import CheckpointError
from heads.settings import RunSettings
from heads.sweep import launch
from heads.sweep.directory import SweepDirectory
from heads.sweep.estimate import CohortEstimate, SweepEstimate, _duration
from heads.sweep.grid import read_grid
from heads.sweep.sweep import SweepJob


def job_of(tmp_path: Path) -> SweepJob:
    (tmp_path / "grid.toml").write_text("[base]\nepochs = 1\n")
    return SweepJob(grid=read_grid(tmp_path / "grid.toml"), dataset=tmp_path, cache="c", output=tmp_path)


# --- directory ---


DESCRIBED: dict[str, Any] = {"name": "a", "grid": {"arms": []}, "dataset": {"digest": "12"}, "arms": []}


def test_a_directory_goes_on_with_the_same_sweep_only(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path / "new" / "sweep")
    directory.settle(DESCRIBED)
    written = directory.plan.read_bytes()
    directory.settle({**DESCRIBED, "software": {"torch": "another"}})
    assert directory.plan.read_bytes() == written
    for change, word in (({"name": "b"}, "name"), ({"grid": {}}, "grid"), ({"dataset": {"digest": "3"}}, "dataset")):
        with pytest.raises(CheckpointError, match=f"holds a sweep with another {word}. Choose another --output"):
            directory.settle({**DESCRIBED, **change})
    with pytest.raises(CheckpointError, match="another name and grid and dataset"):
        directory.settle({"name": "b", "grid": {}, "dataset": {"digest": "3"}, "arms": []})


@pytest.mark.parametrize(
    "content", ["[]", '{"format": "other", "version": 1}', '{"format": "isoheads-sweep", "version": 2}']
)
def test_a_plan_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(CheckpointError, match="is not a sweep of this version"):
        SweepDirectory(tmp_path).read_plan()
    with pytest.raises(CheckpointError, match="There is no sweep at"):
        SweepDirectory(tmp_path / "nothing").read_plan()


def test_a_place_where_no_directory_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"file/sweep cannot be written: .*Choose another --output"):
        SweepDirectory(tmp_path / "file" / "sweep").settle(DESCRIBED)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(CheckpointError, match=r"no sweep.json and is not empty \(thesis.doc\)"):
        SweepDirectory(tmp_path / "full").settle(DESCRIBED)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.doc"]


def test_names_of_files_in_a_sweep(tmp_path: Path) -> None:
    directory, run = SweepDirectory(tmp_path), RunSettings()
    assert directory.baseline("k-mers and codons (ridge)", None).name == "k-mers-and-codons-ridge.parquet"
    assert directory.baseline("tissue mean", 0).name == "tissue-mean-fold0.parquet"
    assert directory.predictions(run).parent == directory.run(run).path == tmp_path / "runs" / run.digest()


def test_a_piece_of_work_has_one_worker_at_a_time(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    with directory.claimed("one") as mine, directory.claimed("one") as other, directory.claimed("two") as second:
        assert (mine, other, second) == (True, False, True)
    with directory.claimed("one", wait=True) as mine:
        assert mine


# --- estimate and workers ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (100_000, "27.8 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_an_estimate_adds_up_its_cohorts() -> None:
    one = CohortEstimate(runs=3, reads="tokens", stores=("rna:a",), rows=10, tokens_per_epoch=12_345, tokens_once=0,
                         seconds_per_epoch=2.5, most_seconds=250.0, memory_bytes=3 << 20)  # fmt: skip
    means = replace(one, runs=2, reads="means", tokens_per_epoch=0, tokens_once=777, most_seconds=7000.0)
    text = str(SweepEstimate(name="mine", cohorts=(one, means), tuned=True))
    assert "12,345" in text and "777 once" in text and "3 MiB" in text and "4 min" in text
    assert "mine: 5 runs in 2 cohorts, at most 2.0 h on this machine" in text
    assert "Trials of tuning are counted" in text
    assert "Trials" not in str(SweepEstimate(name="mine", cohorts=(one,), tuned=False))
    found = json.loads(json.dumps(SweepEstimate(name="mine", cohorts=(one,), tuned=False).to_json()))
    assert found["cohorts"][0]["stores"] == ["rna:a"]


class Engine:
    """Its workers end as they are told to."""

    def __init__(self, *ends: tuple[object, str | None]) -> None:
        self.ends, self.jobs = ends, []

    def run(self, job: SweepJob, *, workers: int) -> Iterator[SimpleNamespace]:
        self.jobs.append((job, workers))
        return iter([SimpleNamespace(report=report, error=error) for report, error in self.ends])


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([(None, "the disk is full"), (None, "x")], "^the disk is full$"),
        ([(None, None)] * 2, "none of 2 workers finished"),
    ],
)
def test_workers_that_all_fail_are_told_by_what_the_first_one_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[tuple[object, str | None]], message: str
) -> None:
    monkeypatch.setattr(launch, "choose_engine", lambda *_: Engine(*ends))
    monkeypatch.setattr(launch, "sweep", None)
    with pytest.raises(CheckpointError, match=message):
        launch.launch_sweep(job_of(tmp_path), engine="slurm")


def test_one_worker_that_finished_is_enough_and_this_process_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine, scored = Engine((None, "died"), (True, None)), []
    monkeypatch.setattr(launch, "choose_engine", lambda *_: engine)
    monkeypatch.setattr(launch, "sweep", lambda job, *, resamples: scored.append((job, resamples)))
    job = replace(job_of(tmp_path), output=Path("out"), dataset=Path("d"), cache="c")
    launch.launch_sweep(job, engine="local", workers=3, resamples=123)
    (((sent, workers),), ((own, resamples),)) = engine.jobs, scored
    assert (workers, sent.workers, resamples) == (3, 3, 123)
    assert sent == own
    whole = tuple(tmp_path / name for name in ("out", "d", "c"))
    assert (sent.output, sent.dataset, sent.cache) == whole, "workers may run elsewhere"
    launch.launch_sweep(replace(job, cache="s3://bucket/c"), engine="local", workers=2)
    assert str(engine.jobs.pop()[0].cache) == "s3://bucket/c" and scored.pop()
    launch.launch_sweep(job, engine="local", workers=1)
    assert scored[1][0] is job and len(engine.jobs) == 1, "alone it is done in this process"


def test_a_job_knows_when_each_run_was_saved(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    assert job.progress() == {}
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "a" / "checkpoint.safetensors").touch()
    assert set(job.progress()) == {"a"}
    assert job.again() is job
    hidden = job.on_cpu()
    assert hidden.hide_gpus and hidden.device == job.device, "the device names the runs"
