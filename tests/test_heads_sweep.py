"""Sweeps: each run is the run alone, kills change nothing, tables are the same again, and wrong grids are one line."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_study import FakeStudy, files_of, make_study

from embedcache.errors import EmbedCacheError
from embedcache.interrupt import StoppedError
from heads.baselines import BASELINES
from heads.checkpoint import CheckpointError
from heads.data import CachedDataset
from heads.run import Run
from heads.settings import RunSettings
from heads.sweep.directory import SweepDirectory
from heads.sweep.estimate import estimate_sweep
from heads.sweep.grid import Grid, read_grid
from heads.sweep.launch import launch_sweep
from heads.sweep.plan import NamedRun, cohorts_of
from heads.sweep.sweep import SweepJob, planned_runs, sweep
from heads.team import Alone
from heads.train import train

GRID = """
seeds = [0, 3]
reference = "dna,rna,protein"
[base]
epochs = 3
batch_size = 8
hidden = 16
heads = 2
dropout = 0.3
max_tokens_per_batch = 300
[grid]
aggregator = ["cross-attention", "concat"]
modalities = ["rna", "dna,rna,protein"]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=40)


def grid_of(tmp_path: Path, text: str, name: str = "grid.toml") -> Grid:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace('reference = "dna,rna,protein"', 'reference = "concat, dna,rna,protein"', 1))
    return read_grid(path)


def job_of(study: FakeStudy, tmp_path: Path, text: str = GRID, output: str = "sweep") -> SweepJob:
    return SweepJob(
        grid=grid_of(tmp_path, text), dataset=study.dataset, cache=study.cache, output=tmp_path / output, device="cpu"
    )


@pytest.fixture(scope="module")
def whole(study: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the sweep leaves when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("whole")
    sweep(job_of(study, folder), resamples=200)
    return files_of(folder / "sweep")


def test_a_run_of_a_sweep_is_bitwise_the_run_alone(study: FakeStudy, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Runs that read one modality and three, tokens and means, share batches; alone they leave the same bytes."""
    runs = planned_runs(job_of(study, tmp_path))
    assert len(runs) == 8
    for run in runs:
        one, name = run.settings, run.settings.digest()
        train(dataset=study.dataset, cache=study.cache, run=tmp_path / name, model=one.model, config=one.training,
              encoders=one.encoders, split=one.split)  # fmt: skip
        for file in ("model.safetensors", "history.jsonl", "checkpoint.safetensors", "config.json"):
            assert (tmp_path / name / file).read_bytes() == whole[f"runs/{name}/{file}"], (run.name, file)


def test_the_cache_is_read_once_for_all_runs_of_a_cohort(
    study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    batches = CachedDataset.batches

    def counted(self: CachedDataset, parts: object, **options: object) -> object:
        passes.append(options["reads"])
        return batches(self, parts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(CachedDataset, "batches", counted)
    sweep(job_of(study, tmp_path), resamples=200)
    # one pass for scales, three epochs of training and of validation, and the test rows: for each of two cohorts
    assert sorted(passes) == ["means"] * 8 + ["tokens"] * 8


def test_the_same_sweep_twice_trains_once(
    study: FakeStudy, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(study, tmp_path)
    sweep(job, resamples=200)
    monkeypatch.setattr(Run, "accumulate", None)
    again = sweep(job, resamples=200)
    assert files_of(job.output) == whole
    assert "concat, dna,rna,protein" in str(again) and "2 seeds" in str(again)


@pytest.mark.parametrize("step", [0, 5, 11, 30])
def test_stopped_at_any_step_it_ends_in_the_same_bytes(
    study: FakeStudy, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    job, steps, update = job_of(study, tmp_path), 0, Run.update

    def interrupted(self: Run, team: Alone) -> None:
        nonlocal steps
        update(self, team)
        if steps == step:
            signal.raise_signal(signal.SIGTERM)
        steps += 1

    monkeypatch.setattr(Run, "update", interrupted)
    with pytest.raises(StoppedError, match="same command to go on"):
        sweep(job, resamples=200)
    monkeypatch.undo()
    assert not (job.output / "table.json").exists()
    sweep(job, resamples=200)
    assert files_of(job.output) == whole


def test_killed_sweeps_end_in_the_same_bytes(study: FakeStudy, tmp_path: Path, whole: dict[str, bytes]) -> None:
    job = job_of(study, tmp_path)
    script = (
        "import sys; from pathlib import Path; from test_heads_sweep import *;"
        "sweep(job_of(FakeStudy(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3])), resamples=200)"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(study.dataset), str(study.cache), str(tmp_path)]
    for wanted in (1, 5):  # checkpoints that are there when it is killed
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(job.output.glob("runs/*/checkpoint.safetensors"))) < wanted:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (job.output / "table.json").exists(), "too late to kill it"
    sweep(job, resamples=200)
    assert files_of(job.output) == whole


def test_two_workers_share_the_runs_and_leave_the_same_results(
    study: FakeStudy, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    job = job_of(study, tmp_path)
    launch_sweep(job, workers=2, resamples=200)
    assert files_of(job.output) == whole
    claims = list((job.output / ".cohorts").iterdir())
    assert len(claims) == len(cohorts_of(planned_runs(job), workers=2))


def test_folds_predict_every_row_by_a_run_that_has_not_seen_its_gene(study: FakeStudy, tmp_path: Path) -> None:
    text = GRID.replace("seeds = [0, 3]", "seeds = 2\nfolds = 4").replace('["cross-attention", "concat"]', '["concat"]')
    result = sweep(job_of(study, tmp_path, text), resamples=200)
    table = result.table
    assert table["folds"] == 4 and table["scored"] == "4 folds by gene" and len(table["arms"]) == 2 + len(BASELINES)
    tested: list[str] = []
    for run in next(arm for arm in table["arms"] if arm["name"] == "concat, rna")["runs"]:
        if run["seed"] == 0:
            found = pq.read_table(tmp_path / "sweep" / run["directory"] / "test_predictions.parquet")
            tested += found["transcript_id"].to_pylist()
    assert len(tested) == len(set(tested)) == table["n_transcripts"]


def test_an_arm_is_tuned_on_validation_rows_with_the_same_budget(study: FakeStudy, tmp_path: Path) -> None:
    text = GRID.replace('["cross-attention", "concat"]', '["concat"]') + "[tune]\nlearning_rate = [1e-5, 3e-3, 1e-2]\n"
    job = job_of(study, tmp_path, text)
    result = sweep(job, resamples=200)
    for arm in result.table["arms"][:2]:
        chosen = {json.loads((job.output / run["directory"] / "config.json").read_text())["training"]["learning_rate"]
                  for run in arm["runs"]}  # fmt: skip
        assert len(chosen) == 1, "all seeds of an arm have the settings that its trials chose"
        losses = {}
        for path in job.output.glob("runs/*/config.json"):
            config = json.loads(path.read_text())
            if (
                ",".join(config["model"]["modalities"]) in arm["name"].split(", ")[1:]
                and not config["training"]["seed"]
            ):
                history = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
                losses[config["training"]["learning_rate"]] = min(one["validation_loss"] for one in history)
        assert len(losses) == 3 and chosen == {min(losses, key=losses.get)}  # type: ignore[arg-type]
    scored = list(job.output.glob("runs/*/test_predictions.parquet"))
    assert len(scored) == 4, "runs that were not chosen never see test rows"


def test_a_diverged_run_is_told_and_the_others_go_on(study: FakeStudy, tmp_path: Path) -> None:
    text = GRID.replace('reference = "dna,rna,protein"', "").replace("[grid]", "[grid]\nlearning_rate = [1e-3, 1e6]")
    text = text.replace('["cross-attention", "concat"]', '["cross-attention"]')
    result = sweep(job_of(study, tmp_path, text), resamples=200)
    assert result.table["diverged"] == {"learning_rate=1000000.0, cross-attention, dna,rna,protein": [0, 3]}
    assert len([arm for arm in result.table["arms"] if arm["kind"] == "arm"]) == 3
    assert "diverged and are left out" in str(result)


def test_a_dry_run_writes_nothing(study: FakeStudy, tmp_path: Path) -> None:
    job = job_of(study, tmp_path)
    found = estimate_sweep(job)
    assert {(one.reads, one.runs) for one in found.cohorts} == {("tokens", 2), ("means", 6)}
    assert all(one.seconds_per_epoch > 0 and one.memory_bytes > 0 for one in found.cohorts)
    assert not job.output.exists() and "8 runs in 2 cohorts" in str(found) and "workers" not in str(found)
    several = estimate_sweep(replace(job, workers=4))
    assert len(several.cohorts) == 4 and "4 workers share the cohorts: at most" in str(several)


def test_another_grid_or_dataset_in_the_same_directory_is_refused(study: FakeStudy, tmp_path: Path) -> None:
    job = job_of(study, tmp_path, GRID.replace("epochs = 3", "epochs = 1"))
    sweep(job, resamples=200)
    with pytest.raises(CheckpointError, match="another grid"):
        sweep(job_of(study, tmp_path, GRID), resamples=200)
    other = make_study(tmp_path / "other", n_genes=24, seed=9)
    with pytest.raises(CheckpointError, match="another dataset"):
        sweep(replace(job, dataset=other.dataset, cache=other.cache), resamples=200)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        sweep(replace(job, output=tmp_path / "full"), resamples=200)


def test_what_cannot_be_opened_is_told_before_anything_is_written(study: FakeStudy, tmp_path: Path) -> None:
    job = job_of(study, tmp_path, GRID.replace("[base]", "[base]\nencoder.rna = 'none'"))
    with pytest.raises(EmbedCacheError, match="none"):
        sweep(job)
    assert not job.output.exists()


def test_cohorts_hold_each_run_once_and_share_what_they_can(tmp_path: Path) -> None:
    runs = [
        NamedRun(name=str(i), settings=RunSettings.from_flat({"seed": i % 5, "batch_size": 8 << (i % 2), "heads": 2}))
        for i in range(20)
    ]
    alike = cohorts_of(runs)
    assert sorted(len(one.runs) for one in alike) == [5, 5]
    names = [run.settings.digest() for one in cohorts_of(runs, workers=7) for run in one.runs]
    assert len(cohorts_of(runs, workers=7)) == 7 and len(names) == len(set(names)) == 10
    assert [len(one.runs) for one in cohorts_of(runs, most=2)] == [2, 2, 1, 2, 2, 1]


def test_the_directory_of_a_sweep_reads_what_it_wrote(
    study: FakeStudy, whole: dict[str, bytes], tmp_path: Path
) -> None:
    plan = json.loads(whole["sweep.json"])
    assert [len(arm["runs"]) for arm in plan["arms"]] == [2, 2, 2, 2]
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        SweepDirectory(tmp_path).read_plan()
    table = json.loads(whole["table.json"])
    assert table["arms"][3]["difference"] is None and table["arms"][0]["difference"]["r2"]["p"] <= 1
    estimate = [arm["r2"]["estimate"] for arm in table["arms"]]
    assert all(np.isfinite(estimate))
