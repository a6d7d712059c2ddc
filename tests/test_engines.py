"""Workers that die, that are told to stop, that share the work: what is embedded in the end, and what is said."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from brittle import (
    CARD,
    DEADLY,
    RAISING,
    SECONDS,
    brittle_job,
    check_embedded,
    command,
    commits,
    finish,
    lease_pids,
    load,
    make_proteins,
    use_brittle,
    wait_for,
)

from embedcache.embedding import DeviceLostError
from embedcache.encoders.registry import CARDS, card, register_encoder
from embedcache.engines.local import _gpus, _work
from embedcache.engines.run import WorkerEnd, run_build
from embedcache.engines.supervise import MOST_LOST, Lost, supervise, take_part
from embedcache.errors import CacheError, EmbedCacheError, InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.interrupt import StoppedError, stop_requests
from embedcache.job import BuildJob, prepare_job, run_job


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    use_brittle(monkeypatch)


@dataclass
class Script:
    """A fleet of workers that end as written, each of a number in turn; without an end they run until stopped."""

    ends: dict[int, list[Any]]
    started: list[tuple[int, bool]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)

    def start(self, job: BuildJob, number: int) -> int:
        self.started.append((number, job.retry))
        return number

    def ended(self, running: Mapping[int, int]) -> list[tuple[int, WorkerEnd | Lost]]:
        time.sleep(0.001)
        ready = [number for number in running if self.ends.get(number) or number in self.stopped]
        return [(n, self.ends[n].pop(0) if self.ends.get(n) else Lost("it was told to stop")) for n in ready]

    def stop(self, worker: int) -> None:
        self.stopped.append(worker)


DONE: Any = WorkerEnd(object())  # type: ignore[arg-type]


def run_script(path: Path, fleet: Script, workers: int, **settings: Any) -> list[WorkerEnd]:
    return list(supervise(fleet, brittle_job(path, **settings), workers))


def test_a_lost_worker_is_started_again_and_one_that_failed_is_not(tmp_path: Path) -> None:
    failed = WorkerEnd(None, "the disk is full")
    fleet = Script({0: [Lost("signal 9"), Lost("it was told to stop"), DONE], 1: [failed]})
    assert run_script(tmp_path, fleet, 2, retry=True) == [failed, DONE]
    assert fleet.started == [(0, True), (1, False), (0, False), (0, False)]  # sequences are tried again once


def test_workers_that_are_lost_without_progress_are_given_up(tmp_path: Path) -> None:
    fleet = Script({0: [Lost("signal 9")] * 99})
    [end] = run_script(tmp_path, fleet, 1)
    assert end == WorkerEnd(None, f"{MOST_LOST} workers were lost one after the other (signal 9)")
    assert len(fleet.started) == MOST_LOST


def test_progress_of_anybody_keeps_workers_coming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Iterator[Any] = iter([{tmp_path: n // 3} for n in range(99)])  # a commit every third loss
    monkeypatch.setattr(BuildJob, "progress", lambda _: next(counts))
    fleet = Script({0: [*[Lost("signal 9")] * 30, DONE]})
    assert run_script(tmp_path, fleet, 1) == [DONE] and len(fleet.started) == 31


def test_who_still_waits_when_all_is_done_is_called_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.engines.supervise.LAST_SECONDS", 0.05)
    fleet = Script({0: [DONE], 1: [], 2: []})
    assert run_script(tmp_path, fleet, 3) == [DONE, WorkerEnd(None), WorkerEnd(None)]
    assert fleet.stopped == [1, 2] and len(fleet.started) == 3


def test_a_signal_stops_all_and_starts_none(tmp_path: Path) -> None:
    fleet = Script({0: [], 1: []})
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(StoppedError, match="Run the same command to go on"):
        run_script(tmp_path, fleet, 2)
    assert fleet.stopped == [0, 1] and len(fleet.started) == 2


def test_a_worker_that_ends_at_the_signal_is_not_called_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C reaches a worker that still imports; its end may come before the parent has told it anything."""

    class Hasty(Script):
        def ended(self, running: Mapping[int, int]) -> list[tuple[int, WorkerEnd | Lost]]:
            if not self.stopped:
                os.kill(os.getpid(), signal.SIGTERM)
            return [(number, Lost("it was told to stop")) for number in running]

    fleet = Hasty({})
    with pytest.raises(StoppedError):
        run_script(tmp_path, fleet, 2)
    assert len(fleet.started) == 2 and "was lost" not in caplog.text


def test_a_worker_whose_parent_was_killed_ends_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcache.engines.local.take_part", lambda _: Lost("it was told to stop"))
    monkeypatch.setattr("embedcache.engines.local.signal.signal", lambda *_: None)  # that of the tests stays
    ours, theirs = multiprocessing.Pipe(duplex=False)
    ours.close()
    _work(brittle_job(tmp_path), 0, None, theirs)


def test_an_error_while_workers_are_started_ends_those_that_run(tmp_path: Path) -> None:
    class Broken(Script):
        def start(self, job: BuildJob, number: int) -> int:
            if number == 1:
                raise CacheError("no more")
            return super().start(job, number)

    fleet = Broken({})
    with pytest.raises(CacheError, match="no more"):
        run_script(tmp_path, fleet, 2)
    assert fleet.stopped == [0]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (DeviceLostError("the GPU failed"), Lost("the GPU failed")),
        (StoppedError("later", signal.SIGTERM), Lost("it was told to stop")),
        (CacheError("the disk is full"), WorkerEnd(None, "the disk is full")),
    ],
    ids=["gpu", "signal", "error"],
)
def test_what_another_worker_can_mend_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: EmbedCacheError, end: WorkerEnd | Lost
) -> None:
    def fail(_: BuildJob) -> None:
        raise error

    monkeypatch.setattr("embedcache.job.run_job", fail)
    assert take_part(brittle_job(tmp_path)) == end


def test_a_worker_that_is_told_twice_still_commits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``scancel`` and others tell a process and its parent, which tells it again."""
    committed = []

    def work(_: BuildJob) -> None:
        with stop_requests() as stop:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            committed.append("rows")
        stop.check("stopped")

    monkeypatch.setattr("embedcache.job.run_job", work)
    assert take_part(brittle_job(tmp_path)) == Lost("it was told to stop") and committed == ["rows"]
    monkeypatch.setattr("embedcache.job.run_job", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert take_part(brittle_job(tmp_path)) == Lost("it was told to stop")  # while the encoder is loaded


def test_each_worker_gets_one_gpu_of_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _gpus(brittle_job(tmp_path, device="auto"), 3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert _gpus(brittle_job(tmp_path, device="cuda"), 2) == ["5", "7"]
    assert _gpus(brittle_job(tmp_path, device="auto"), 1) == [None]
    assert _gpus(brittle_job(tmp_path, device="cpu"), 2) == [None, None]


def test_a_worker_knows_an_encoder_that_came_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_proteins(tmp_path / "dataset", 3)
    mine = replace(CARD, name="mine", loader="nowhere:load")
    job = brittle_job(tmp_path, encoder="mine", card=mine, loader=load)
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))
    monkeypatch.setattr("embedcache.encoders.registry._LOADERS", {})
    assert run_job(job).computed == 3


@pytest.mark.slow
def test_a_deadly_and_a_raising_sequence_cost_nothing_but_themselves(tmp_path: Path) -> None:
    records = make_proteins(tmp_path / "dataset", 60, DEADLY, RAISING)
    code, out, err = finish(command(tmp_path, "worker"))
    assert code == 3 and "2 cannot be embedded" in out and "Traceback" not in err
    assert "2 sequences cannot be embedded and were skipped: " in err and err.count("worker 0 was lost (signal 9)") == 4
    assert "deadly (3 workers died while they embedded it alone" in err and "raising (ValueError: it was told to" in err
    check_embedded(tmp_path / "cache", records)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_ctrl_c_lets_all_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_proteins(tmp_path / "dataset", 300)
    monkeypatch.setenv(SECONDS, "0.1")
    process = command(tmp_path, "build", "--workers", "2", "--tokens-per-batch", "100")
    wait_for(lambda: len(lease_pids(tmp_path)) == 2)
    killed, other = lease_pids(tmp_path)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: set(lease_pids(tmp_path)) - {killed, other})  # its successor is at work
    before = commits(tmp_path)
    time.sleep(0.5)  # into the middle of a task
    os.kill(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Run the same command to go on" in err and "Traceback" not in err, err
    assert err.count("was lost (signal 9)") == 1
    assert commits(tmp_path) > before and not set(lease_pids(tmp_path)) - {killed}
    monkeypatch.setenv(SECONDS, "0")
    assert run_build(brittle_job(tmp_path)).computed > 0
    check_embedded(tmp_path / "cache", records)


@pytest.mark.slow
def test_two_workers_started_by_hand_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_proteins(tmp_path / "dataset", 150)
    monkeypatch.setenv(SECONDS, "0.03")
    both = [command(tmp_path, "worker", "--workers", "2", "--tokens-per-batch", "100") for _ in range(2)]
    ends = [finish(one) for one in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    embedded = [int(out.split()[0].replace(",", "")) for _, out, _ in ends]
    assert sum(embedded) == len({one.sequence for one in records}) and min(embedded) > 0
    check_embedded(tmp_path / "cache", records)


def test_what_no_worker_could_do_starts_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.engines.local.LocalEngine.run", lambda *_, **__: pytest.fail("started"))
    make_proteins(tmp_path / "dataset", 3)
    with pytest.raises(UnknownNameError, match="Did you mean 'brittle'"):
        run_build(brittle_job(tmp_path, encoder="britle"), workers=2)
    with pytest.raises(InvalidSettingError, match="no layer 40"):
        run_build(brittle_job(tmp_path, encoder="esm2-8m", layers=(40,)), workers=2)
    with pytest.raises(InvalidInputError, match="nowhere"):
        run_build(replace(brittle_job(tmp_path), dataset=tmp_path / "nowhere"), workers=2)


def test_a_job_goes_to_other_places_with_whole_paths_and_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_proteins(tmp_path / "dataset", 3)
    monkeypatch.chdir(tmp_path)
    job = prepare_job(BuildJob(dataset=Path("dataset"), cache="cache", modality="protein"))
    assert (job.dataset, job.cache) == (tmp_path / "dataset", tmp_path / "cache") and job.card == CARD
    assert job.loader is None  # the card names it
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))
    mine = replace(CARD, name="mine")
    register_encoder(mine, os.path.join)  # type: ignore[arg-type]  # any function of a module
    assert prepare_job(replace(job, encoder="mine")).loader is os.path.join
    register_encoder(mine, lambda *_: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidSettingError, match=r"'mine'.*<lambda>.*other processes cannot import"):
        prepare_job(replace(job, encoder="mine"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere:CARD", "'nowhere:CARD' from EMBEDCACHE_ENCODERS cannot be imported: No module named 'nowhere'"),
        ("brittle:NONE", "cannot be imported: .*no attribute 'NONE'. Write module:NAME"),
        ("brittle", "cannot be imported: "),
        ("brittle:SECONDS", "is a str, expected an EncoderCard"),
    ],
)
def test_a_plug_in_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, place: str, words: str) -> None:
    monkeypatch.setenv("EMBEDCACHE_ENCODERS", place)
    with pytest.raises(InvalidInputError, match=words):
        card("an-encoder-of-nobody")
