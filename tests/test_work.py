"""Workers that share the work of a store, in threads and in processes of their own."""

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, random_records
from worker_builds import SHARD_BYTES, Job, begun, build, run_to_the_end, start

from embedcache.build import BuildReport, build_products
from embedcache.interrupt import StoppedError
from embedcache.place import parse_place
from embedcache.products import Product
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore
from embedcache.store.files import LocalFiles
from embedcache.store.index import committed_tasks, read_records
from embedcache.store.processes import this_process
from embedcache.store.quarantine import read_quarantine
from embedcache.store.tasks import read_plans


def key_of(sequence: str) -> bytes:
    return sequence_key(sequence, "protein")


def run_threads(
    place: Path, shares: list[list[SequenceRecord]], workers: int = 3
) -> list[tuple[FakeEncoder, BuildReport]]:
    """One worker in a thread for each list of records, all in one store."""
    found, barrier = dict[int, tuple[FakeEncoder, BuildReport]](), threading.Barrier(len(shares))

    class Slow(FakeEncoder):
        def encode(self, sequences):  # type: ignore[no-untyped-def]
            time.sleep(0.005)
            return super().encode(sequences)

    def work(number: int) -> None:
        encoder = Slow()
        barrier.wait()
        product = Product(encoder.spec, parse_place(place))
        settings = {"tokens_per_batch": 200, "shard_bytes": SHARD_BYTES, "workers": workers}
        found[number] = encoder, build_products(shares[number], encoder, [product], **settings)  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(shares))]


def assert_right(place: str | Path, wanted: set[str]) -> None:
    """The store holds exactly these sequences, each committed once with the rows of the encoder."""
    store, encoder = EmbeddingStore(place), FakeEncoder()
    assert set(store) == {key_of(sequence) for sequence in wanted} and store.damaged() == []
    for sequence in wanted:
        assert np.array_equal(np.asarray(store[key_of(sequence)]), encoder.rows(sequence).astype("f2"))


def test_workers_in_threads_share_the_work_and_do_nothing_twice(tmp_path: Path) -> None:
    records = random_records(400)
    done = run_threads(tmp_path / "s", [records, records[::-1], records])
    wanted = {record.sequence for record in records}
    embedded = [sequence for encoder, _ in done for sequence in encoder.embedded]
    assert sorted(embedded) == sorted(wanted)
    assert all(report.computed for _, report in done), "one worker did everything"
    assert sum(report.computed for _, report in done) == len(wanted)
    assert_right(tmp_path / "s", wanted)
    files = LocalFiles(tmp_path / "s")
    assert len(read_records(files, committed_tasks(files))) == len(wanted)
    assert files.statuses("claims/tasks") == {}


def test_builds_of_overlapping_datasets_embed_twice_no_more_than_what_is_in_flight(tmp_path: Path) -> None:
    records = random_records(600)
    shares = [records[:450], records[150:]]
    done = run_threads(tmp_path / "s", shares, workers=12)  # small tasks
    assert_right(tmp_path / "s", {record.sequence for record in records})
    for share, (_, report) in zip(shares, done, strict=True):
        assert report.distinct == len({record.sequence for record in share}) and report.skipped == ()
    embedded = Counter(sequence for encoder, _ in done for sequence in encoder.embedded)
    common = {record.sequence for record in records[150:450]}
    # 6 to 61 of 300 were seen; 272 to 298 where both took their tasks in the same order
    assert sum(embedded.values()) - len(embedded) < len(common) / 2


def test_a_stop_commits_a_part_and_gives_the_task_back(tmp_path: Path) -> None:
    class Stopping(FakeEncoder):
        def encode(self, sequences):  # type: ignore[no-untyped-def]
            if len(self.batches) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().encode(sequences)

    records, encoder, settings = random_records(60), Stopping(), {"tokens_per_batch": 200, "shard_bytes": 1 << 20}
    with pytest.raises(StoppedError):
        build_products(records, encoder, [Product(encoder.spec, tmp_path / "s")], **settings)  # type: ignore[arg-type]
    files = LocalFiles(tmp_path / "s")
    assert files.statuses("claims/tasks") == {} and len(committed_tasks(files)) == 1
    assert 0 < len(encoder.embedded) < len({record.sequence for record in records})
    assert_right(tmp_path / "s", set(encoder.embedded))
    rest = FakeEncoder()
    build_products(records, rest, [Product(rest.spec, tmp_path / "s")], **settings)  # type: ignore[arg-type]
    assert set(rest.embedded).isdisjoint(encoder.embedded)
    assert_right(tmp_path / "s", {record.sequence for record in records})


def poison(records: list[SequenceRecord]) -> str:
    """A sequence that shares its task with others and comes neither first nor last."""
    return sorted({record.sequence for record in records}, key=len)[len(records) // 2]


def leave_dead_leases(files: LocalFiles, alone: list[str]) -> None:
    """As workers leave them that died, one after the other, while they embedded these sequences alone."""
    (plan,) = files.statuses("claims/plans")
    for task in read_plans(files)[plan]:
        for number, sequence in enumerate(alone):
            if key_of(sequence) in task.keys:
                body = {**this_process(), "start": "0", "alone": key_of(sequence).hex()}
                files.create(f"claims/tasks/{task.name}-{number}", [json.dumps(body).encode()])


def test_a_sequence_is_given_up_after_three_deaths_alone_and_not_after_two(tmp_path: Path) -> None:
    records = random_records(60)
    suspect = poison(records)
    wanted = {record.sequence for record in records}

    class Stopping(FakeEncoder):
        def encode(self, sequences):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGTERM)
            return super().encode(sequences)

    for deaths in (2, 3):
        place = tmp_path / str(deaths)
        files = LocalFiles(place)
        with pytest.raises(StoppedError):  # there is a plan
            build_products(records, (stopping := Stopping()), [Product(stopping.spec, place)], tokens_per_batch=60)
        leave_dead_leases(files, [suspect] * deaths)
        with pytest.raises(StoppedError):  # a stop is no success: what is known of deaths stays known
            build_products(records, (stopping := Stopping()), [Product(stopping.spec, place)], tokens_per_batch=60)
        encoder = FakeEncoder()
        report = build_products(records, encoder, [Product(encoder.spec, place)])
        if deaths == 2:
            assert report.skipped == () and encoder.embedded[-1] == suspect, "all others come first"
            assert_right(place, wanted)
            continue
        (skipped,) = report.skipped
        assert suspect not in encoder.embedded and "3 workers died" in skipped.reason
        assert skipped == read_quarantine(files)[key_of(suspect)]
        assert_right(place, wanted - {suspect})
        encoder = FakeEncoder()
        again = build_products(records, encoder, [Product(encoder.spec, place)], retry=True)
        assert again.skipped == () and encoder.embedded == [suspect] and read_quarantine(files) == {}
        assert_right(place, wanted)


def test_a_sequence_that_kills_and_one_that_raises_are_skipped_and_all_others_embedded(tmp_path: Path) -> None:
    records = random_records(300, longest=60)
    ordered = sorted({record.sequence for record in records}, key=len)
    deadly, bad = ordered[len(ordered) // 2], ordered[len(ordered) // 3]
    job = Job(
        place=str(tmp_path / "s"),
        notes=tmp_path / "notes",
        kills=frozenset([deadly]),
        raises=frozenset([bad]),
        workers=4,
        pause=0.002,
    )
    workers = [start(job) for _ in range(4)]
    wait_for((job.notes / str(workers[0].pid)).exists)
    workers[0].kill()
    deaths = run_to_the_end(job, workers)
    assert 4 <= deaths <= 8  # the one above, and one with others and three alone of the deadly sequence
    assert_right(job.place, {*ordered} - {deadly, bad})
    found = read_quarantine(LocalFiles(tmp_path / "s"))
    assert set(found) == {key_of(deadly), key_of(bad)}
    assert "3 workers died" in found[key_of(deadly)].reason and "no embedding of 1" in found[key_of(bad)].reason
    again = Job(place=job.place, notes=tmp_path / "again", kills=job.kills, raises=job.raises)
    again.notes.mkdir()
    assert {one.id for one in build(again)} == {one.id for one in found.values()}
    assert begun(again.notes) == []


def test_leases_that_mean_nothing_cost_work_and_nothing_else(tmp_path: Path) -> None:
    """No heartbeat, and a worker counts as dead long before it is done with a batch."""
    job = Job(
        place=str(tmp_path / "s"),
        notes=tmp_path / "notes",
        pause=0.05,
        ttl=0.02,
        is_blind=True,
        is_silent=True,
        count=120,
    )
    assert run_to_the_end(job, [start(job) for _ in range(4)]) == 0
    wanted = {record.sequence for record in random_records(120, longest=60)}
    assert len(begun(job.notes)) > len(wanted), "no lease was broken: this shows nothing"
    assert_right(job.place, wanted)
    assert read_quarantine(LocalFiles(tmp_path / "s")) == {}


def wait_for(is_so) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)
