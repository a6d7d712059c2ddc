import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, fake_spec, random_records
from worker_builds import Job, begun, run_to_the_end, start

from embedcache.batching import by_length, cut_by_tokens
from embedcache.build import build_cache
from embedcache.errors import (
    CacheError,
    CacheMismatchError,
    EmbedCacheError,
    InvalidInputError,
    InvalidSequenceError,
    InvalidSettingError,
)
from embedcache.interrupt import StoppedError
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore, create_store

SHARD_BYTES = 1 << 14  # 512 rows of 16 float16


def test_every_sequence_is_embedded_once_and_found_under_its_key(tmp_path: Path) -> None:
    records, encoder = random_records(60), FakeEncoder()
    report = build_cache(records, encoder, tmp_path / "s", tokens_per_batch=200, shard_bytes=SHARD_BYTES)
    store = EmbeddingStore(tmp_path / "s")
    distinct = {record.sequence for record in records}
    assert sorted(encoder.embedded) == sorted(distinct) and len(store) == len(distinct) == report.distinct
    assert report.computed == len(distinct) and report.repeated == len(records) - len(distinct)
    assert report.tokens == store.n_tokens == sum(map(len, distinct))
    for record in records:
        assert np.array_equal(
            store[sequence_key(record.sequence, "protein")], encoder.rows(record.sequence).astype("f2")
        )
    assert max(encoder.batches) <= 200 and store.index_is_current and store.damaged() == []


def test_a_second_build_computes_nothing_and_new_sequences_alone_are_added(tmp_path: Path) -> None:
    records = random_records(40)
    build_cache(records[:30], FakeEncoder(), tmp_path / "s")
    for again in (records[:30], records[29::-1]):
        encoder = FakeEncoder()
        assert build_cache(again, encoder, tmp_path / "s").computed == 0 and encoder.embedded == []
    encoder = FakeEncoder()
    build_cache(records[::-1], encoder, tmp_path / "s")
    assert set(encoder.embedded) == {r.sequence for r in records[30:]} - {r.sequence for r in records[:30]}


def test_a_build_does_not_count_on_a_shard_that_is_lost(tmp_path: Path) -> None:
    build_cache(random_records(9), FakeEncoder(), tmp_path / "s")
    (tmp_path / "s" / "tokens" / "c" / "0" / "0").unlink()
    with pytest.raises(CacheError, match="1 of 1 shards are missing or cut"):
        build_cache(random_records(9), FakeEncoder(), tmp_path / "s")


def test_a_whole_store_on_a_read_only_disk_needs_nothing_written(tmp_path: Path) -> None:
    build_cache(random_records(9), FakeEncoder(), tmp_path / "s")
    (tmp_path / "s" / ".lock").unlink()
    (tmp_path / "s" / ".lock").mkdir()  # opening it for writing fails, for root as well
    assert build_cache(random_records(9), FakeEncoder(), tmp_path / "s").computed == 0


def test_an_index_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    create_store(tmp_path / "s", fake_spec())
    (tmp_path / "s" / ".lock").mkdir()
    with pytest.raises(CacheError, match=r"index cannot be written: .*nothing is lost"):
        build_cache(random_records(9), FakeEncoder(), tmp_path / "s")


def test_batches_hold_every_index_once_within_the_budget_longest_first() -> None:
    rng = np.random.default_rng(0)
    for budget in (1, 50, 1000):
        n_tokens = rng.integers(1, 60, 100)
        keys = [bytes([i]) for i in range(100)]
        order = by_length(n_tokens, keys)
        batches = list(cut_by_tokens(order, n_tokens, budget))
        assert np.concatenate(batches).tolist() == order.tolist() and sorted(order) == list(range(100))
        assert (np.diff(n_tokens[order]) <= 0).all()
        assert all(n_tokens[batch].sum() <= budget or len(batch) == 1 for batch in batches)
    assert list(cut_by_tokens(np.zeros(0, np.int64), n_tokens, 5)) == []


def test_the_crop_rule_is_applied_and_counted_or_refused_with_the_id(tmp_path: Path) -> None:
    records = [SequenceRecord("short", "MK", "protein"), SequenceRecord("titin", "MKVL" * 5, "protein")]
    encoder = FakeEncoder(max_tokens=10, crop="keep-3-prime")
    assert build_cache(records, encoder, tmp_path / "a").cropped == 1
    key = sequence_key("MKVL" * 5, "protein")
    assert np.array_equal(EmbeddingStore(tmp_path / "a")[key], encoder.rows(("MKVL" * 5)[-10:]).astype("f2"))
    with pytest.raises(InvalidSequenceError, match=r"'titin': 20 letters are 20 tokens, fake takes 10"):
        build_cache(records, FakeEncoder(max_tokens=10), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_store_of_another_spec_and_records_of_another_modality_are_refused(tmp_path: Path) -> None:
    build_cache(random_records(3), FakeEncoder(), tmp_path / "s")
    with pytest.raises(CacheMismatchError, match="layer"):
        build_cache(random_records(3), FakeEncoder(layer=2), tmp_path / "s")
    with pytest.raises(InvalidInputError, match="'x' is rna"):
        build_cache([SequenceRecord("x", "ACGT", "rna")], FakeEncoder(), tmp_path / "s")


@pytest.mark.parametrize("wrong", ["rows", "width", "count", "nan", "overflow"])
def test_an_encoder_that_is_wrong_writes_nothing(tmp_path: Path, wrong: str) -> None:
    class Wrong(FakeEncoder):
        def encode(self, sequences):  # type: ignore[no-untyped-def]
            arrays = super().encode(sequences)
            if wrong == "count":
                return arrays[1:]
            arrays[0] = {
                "rows": lambda a: np.vstack([a, a[:1]]),  # a special token left in
                "width": lambda a: a[:, 1:],
                "nan": lambda a: a * np.nan,
                "overflow": lambda a: a * 1e6,
            }[wrong](arrays[0])
            return arrays

    with pytest.raises(EmbedCacheError):
        build_cache(random_records(5), Wrong(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    encoder = FakeEncoder()
    with pytest.raises(CacheError, match="10 B free"):
        build_cache(random_records(5), encoder, tmp_path / "s")
    assert encoder.embedded == []


def test_a_stop_request_keeps_what_was_finished(tmp_path: Path) -> None:
    class Stopping(FakeEncoder):
        def encode(self, sequences):  # type: ignore[no-untyped-def]
            if len(self.batches) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().encode(sequences)

    records, encoder = random_records(60), Stopping()
    with pytest.raises(StoppedError, match="Run the same command to go on"):
        build_cache(records, encoder, tmp_path / "s", tokens_per_batch=200)
    assert len(EmbeddingStore(tmp_path / "s")) == len(encoder.embedded) > 0
    rest = FakeEncoder()
    build_cache(records, rest, tmp_path / "s", tokens_per_batch=200)
    assert set(rest.embedded).isdisjoint(encoder.embedded) and len(rest.embedded) > 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_killed_builds_leave_nothing_torn_and_end_in_the_same_bytes(tmp_path: Path) -> None:
    build_cache(random_records(900, longest=60), FakeEncoder(), tmp_path / "undisturbed", shard_bytes=SHARD_BYTES)
    undisturbed = EmbeddingStore(tmp_path / "undisturbed")
    job = Job(place=str(tmp_path / "killed"), notes=tmp_path / "notes", count=900, workers=1, pause=0.005)
    rng, committed = random.Random(0), 0
    for _ in range(6):
        process = start(job)
        until = time.monotonic() + 30
        while not (job.notes / str(process.pid)).exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.join()
        store = EmbeddingStore(tmp_path / "killed")
        assert store.damaged() == [] and len(store) >= committed
        committed = len(store)
        assert all(store[key].tobytes() == undisturbed[key].tobytes() for key in store)
    assert committed > 0
    assert run_to_the_end(job, [start(job)]) == 0
    store = EmbeddingStore(tmp_path / "killed")
    assert set(store) == set(undisturbed) and store.damaged() == []
    assert all(store[key].tobytes() == undisturbed[key].tobytes() for key in store)


def test_two_builds_of_one_store_at_once_end_right(tmp_path: Path) -> None:
    job = Job(place=str(tmp_path / "s"), notes=tmp_path / "notes", count=900, workers=1, pause=0.005)
    assert run_to_the_end(job, [start(job) for _ in range(2)]) == 0
    store = EmbeddingStore(tmp_path / "s")
    assert len(store) == len({record.sequence for record in random_records(900, longest=60)})
    assert store.damaged() == [] and len(begun(job.notes)) == len(store)


def test_a_spec_survives_json() -> None:
    spec = fake_spec(architecture={"layers": 2}, max_tokens=4)
    assert type(spec).from_json(spec.to_json()) == spec


def test_a_build_with_nothing_to_do_tests_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[object] = []
    monkeypatch.setattr("embedcache.build.check_encoder", lambda encoder, layers: tested.append(encoder))
    build_cache(random_records(5), FakeEncoder(), tmp_path / "s")
    build_cache(random_records(5), FakeEncoder(), tmp_path / "s")
    assert len(tested) == 1


def test_any_spelling_is_embedded_once_and_places_of_caches_are_refused(tmp_path: Path) -> None:
    records = [SequenceRecord(one, one, "protein") for one in ("MKV", "mkv", "MKV*")]
    report = build_cache(records, FakeEncoder(), tmp_path / "protein" / "s")
    assert report.distinct == 1 and list(EmbeddingStore(tmp_path / "protein" / "s")) == [sequence_key("MKV", "protein")]
    with pytest.raises(CacheError, match="is a whole cache"):
        build_cache(records, FakeEncoder(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["protein"]
    with pytest.raises(InvalidSettingError, match="encoder is the name 'esm2-8m'"):
        build_cache(records, "esm2-8m", tmp_path / "x")  # type: ignore[arg-type]
