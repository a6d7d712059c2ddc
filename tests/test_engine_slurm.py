"""The SLURM engine: submitit without a cluster, then with the commands of SLURM played by scripts."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from brittle import (
    SECONDS,
    brittle_job,
    check_embedded,
    command,
    commits,
    finish,
    lease_pids,
    make_proteins,
    use_brittle,
    wait_for,
)
from fake_slurm import install_fake_slurm

from embedcache.engines import slurm as engine
from embedcache.engines.run import run_build
from embedcache.errors import EmbedCacheError, InvalidSettingError, MissingDependencyError


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    use_brittle(monkeypatch)


@pytest.mark.slow
def test_a_killed_job_is_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    records = make_proteins(tmp_path / "dataset", 100)
    monkeypatch.setenv(SECONDS, "0.05")
    options = ("--engine-option", "cluster=local", "--engine-option", "folder=logs")
    words = ("--engine", "slurm", "--workers", "2", "--tokens-per-batch", "100", *options)
    process = command(tmp_path, "build", *words)
    wait_for(lambda: len(lease_pids(tmp_path)) == 2)
    os.kill(lease_pids(tmp_path)[0], signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 0, err
    assert "it left no result, see" in err and str(tmp_path / "logs") in err
    check_embedded(tmp_path / "cache", records)
    assert len(list((tmp_path / "logs").glob("*_submitted.pkl"))) == 3


@pytest.mark.slow
def test_jobs_get_what_was_asked_for_and_commit_when_they_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", install_fake_slurm(tmp_path / "slurm"))
    records = make_proteins(tmp_path / "dataset", 100)
    monkeypatch.setenv(SECONDS, "0.1")
    options = [
        "partition=gpu",
        "time=30",
        "mem_gb=8",
        "account=lab",
        "cpus_per_task=2",
        "wckey=lab",
        "setup=module load x || true",
    ]
    words = [word for option in options for word in ("--engine-option", option)]
    process = command(tmp_path, "build", "--engine", "slurm", "--workers", "2", "--tokens-per-batch", "100", *words)
    wait_for(lambda: len(lease_pids(tmp_path)) == 2)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 143 and "Run the same command to go on" in err, err
    assert sorted((tmp_path / "slurm/state/cancelled").read_text().split()) == ["1", "2"]
    assert commits(tmp_path) > 0 and not lease_pids(tmp_path)
    script = (tmp_path / "slurm/state/1.sh").read_text()
    wanted = (
        "partition=gpu",
        "time=30",
        "mem=8GB",
        "account=lab",
        "cpus-per-task=2",
        "wckey=lab",
        "job-name=embedcache",
    )
    assert all(f"#SBATCH --{one}\n" in script for one in wanted) and "\nmodule load x || true\n" in script
    monkeypatch.setenv(SECONDS, "0")
    assert run_build(brittle_job(tmp_path)).computed > 0
    check_embedded(tmp_path / "cache", records)


@dataclass
class FakeJob:
    """A job whose state is written by the test, without a result."""

    paths: SimpleNamespace
    state: str = "RUNNING"
    over: bool = False
    job_id: str = "7"

    def done(self, *, force_check: bool) -> bool:
        return self.over

    def cancel(self, *, check: bool) -> None:
        pass


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    return FakeJob(SimpleNamespace(result_pickle=tmp_path / "none", stderr=tmp_path / "7.err"))


def look(jobs: engine._Jobs, job: FakeJob, clock: list[float], seconds: float) -> str:
    """What is said of a job so many seconds later; empty if it is thought to run."""
    clock[0] += seconds
    found = jobs.ended({0: job})
    return found[0][1].how if found else ""  # type: ignore[union-attr]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    fake = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None)
    monkeypatch.setattr(engine, "time", fake)
    return now


def test_a_preempted_job_may_be_queued_again_and_else_is_lost(job: FakeJob, clock: list[float], tmp_path: Path) -> None:
    jobs = engine._Jobs(None, "slurm", tmp_path, asked=0)
    for state, seconds, how in [
        ("PREEMPTED", 1, ""),
        ("PREEMPTED", 50, ""),
        ("PENDING", 1, ""),
        ("PREEMPTED", 30, ""),  # another time: the patience begins anew
        ("PREEMPTED", 61, f"job 7: preempted, see {tmp_path}/7.err"),
    ]:
        job.state = state
        assert look(jobs, job, clock, seconds) == how


def test_a_job_that_ended_may_show_its_result_late(job: FakeJob, clock: list[float], tmp_path: Path) -> None:
    jobs = engine._Jobs(None, "slurm", tmp_path, asked=0)
    job.state, job.over = "NODE_FAIL", True
    assert look(jobs, job, clock, 0) == look(jobs, job, clock, 10) == ""
    assert look(jobs, job, clock, 11) == f"job 7: NODE_FAIL without a result, see {tmp_path}/7.err"


def test_a_cancelled_job_is_not_waited_for_for_ever(job: FakeJob, clock: list[float], tmp_path: Path) -> None:
    jobs = engine._Jobs(None, "slurm", tmp_path, asked=0)
    jobs.stop(job)
    assert look(jobs, job, clock, 170) == ""
    assert "gave no sign" in look(jobs, job, clock, 11)


@pytest.mark.parametrize("queued", [True, False])
def test_without_accounting_the_queue_tells_who_is_gone(
    job: FakeJob, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    monkeypatch.setenv("PATH", install_fake_slurm(tmp_path / "slurm"))
    if not queued:
        (tmp_path / "slurm/state/7.exit").touch()
    jobs = engine._Jobs(None, "slurm", tmp_path, asked=0)
    job.state = "UNKNOWN"
    assert look(jobs, job, clock, 21) == ""
    assert ("it left the queue" in look(jobs, job, clock, 21)) is not queued


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """A build with options of the engine."""
    make_proteins(tmp_path / "dataset", 3)
    monkeypatch.chdir(tmp_path)
    return lambda **options: run_build(brittle_job(tmp_path), engine="slurm", options=options)


def test_wrong_options_are_said(build: Callable[..., object]) -> None:
    with pytest.raises(InvalidSettingError, match=r"no option 'queue'\. Its options are account, cluster, comment"):
        build(queue="gpu")
    with pytest.raises(InvalidSettingError, match="time=2:00: expected a whole number"):
        build(time="2:00")
    with pytest.raises(InvalidSettingError, match="cluster=debug is not known"):
        build(cluster="debug")


def test_a_missing_submitit_is_said(build: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'isoheads\[slurm\]'"):
        build()


def test_no_slurm_and_a_slurm_that_refuses_are_said(
    build: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    path = install_fake_slurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbedCacheError, match="there is no SLURM here"):
        build()
    monkeypatch.setenv("PATH", path)
    (tmp_path / "slurm/bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    with pytest.raises(EmbedCacheError, match=r"SLURM refused worker 0: .*invalid partition.*--engine-option"):
        build(partition="nowhere")
