"""The Ray engine: a cluster of this machine, started and shut down by the build."""

import os
import signal
import socket
import sys
import time
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

from embedcache.engines.run import run_build
from embedcache.errors import EmbedCacheError, InvalidSettingError, MissingDependencyError


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    use_brittle(monkeypatch)


@pytest.mark.slow
def test_ray_replaces_a_killed_worker_and_ctrl_c_lets_all_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    records = make_proteins(tmp_path / "dataset", 200)
    monkeypatch.setenv(SECONDS, "0.2")
    words = ("--engine", "ray", "--workers", "2", "--tokens-per-batch", "100")
    process = command(tmp_path, "build", *words)
    wait_for(lambda: len(lease_pids(tmp_path)) == 2)
    killed, other = lease_pids(tmp_path)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: set(lease_pids(tmp_path)) - {killed, other})  # its successor is at work
    before = commits(tmp_path)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Run the same command to go on" in err, err
    assert "was lost (WorkerCrashedError" in err
    assert commits(tmp_path) > before and not set(lease_pids(tmp_path)) - {killed}
    monkeypatch.setenv(SECONDS, "0")
    assert run_build(brittle_job(tmp_path)).computed > 0
    check_embedded(tmp_path / "cache", records)


def test_what_ray_cannot_do_is_said_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_proteins(tmp_path / "dataset", 3)
    job = brittle_job(tmp_path)
    with pytest.raises(InvalidSettingError, match=r"no option 'adress'\. Its options are address, memory_gb, num_cpus"):
        run_build(job, engine="ray", options={"adress": "auto"})
    with pytest.raises(InvalidSettingError, match="num_gpus=many: expected a number of 0 or more"):
        run_build(job, engine="ray", options={"num_gpus": "many"})
    monkeypatch.setattr("embedcache.modality.resolve_device", lambda _: pytest.fail("looked for a GPU here"))
    with pytest.raises(InvalidSettingError, match="Ray chooses which GPU"):
        run_build(brittle_job(tmp_path, device="cuda:1"), engine="ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'isoheads\[ray\]'"):
        run_build(job, engine="ray")


def test_a_cluster_that_does_not_answer_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_proteins(tmp_path / "dataset", 3)
    fake = SimpleNamespace(is_initialized=lambda: False, exceptions=SimpleNamespace(RayError=KeyError))
    monkeypatch.setattr("embedcache.engines.ray_cluster._import_ray", lambda _: fake)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EmbedCacheError, match=f"no Ray cluster at {address}: .*refused.*address=host:port"):
            run_build(brittle_job(tmp_path), engine="ray", options={"address": address})


def test_a_ray_that_cannot_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise error

    make_proteins(tmp_path / "dataset", 3)
    fake = SimpleNamespace(is_initialized=lambda: False, exceptions=SimpleNamespace(RayError=OSError), init=init)
    monkeypatch.setattr("embedcache.engines.ray_cluster._import_ray", lambda _: fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    error: Exception = Exception("The current node timed out\n  during startup.")  # as Ray raises it
    with pytest.raises(EmbedCacheError, match=r"machine: The current node timed out during startup\. .*--engine local"):
        run_build(brittle_job(tmp_path), engine="ray")
    with pytest.raises(EmbedCacheError, match=r"no Ray cluster at auto: .* during startup\. Give --engine-option"):
        run_build(brittle_job(tmp_path), engine="ray", options={"address": "auto"})
    error = KeyError("a bug of ours keeps its traceback")
    with pytest.raises(KeyError, match="keeps its traceback"):
        run_build(brittle_job(tmp_path), engine="ray")
