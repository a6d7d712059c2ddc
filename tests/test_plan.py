"""What is still to embed, and in which tasks, beside sets and dictionaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, fake_spec
from hypothesis import given, settings
from hypothesis import strategies as st

import embedcache.plan as plan_module
from embedcache.errors import CacheError, InvalidInputError, InvalidSequenceError
from embedcache.plan import make_plan
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore, commit_task, create_store

LETTERS = st.text("MKV", min_size=1, max_size=4)


def key(sequence: str) -> bytes:
    return sequence_key(sequence, "protein")


def records(sequences: list[str]) -> list[SequenceRecord]:
    return [SequenceRecord(f"p{i}", sequence, "protein") for i, sequence in enumerate(sequences)]


def store_of(folder: Path, sequences: set[str]) -> EmbeddingStore:
    encoder = FakeEncoder()
    create_store(folder, encoder.spec, shard_bytes=1 << 13)
    if sequences:
        commit_task(folder, [(key(one), encoder.rows(one).astype(np.float16)) for one in sorted(sequences)])
    return EmbeddingStore(folder)


@given(st.lists(LETTERS, max_size=12), st.sets(LETTERS, max_size=6), st.sets(LETTERS, max_size=3), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_a_plan_holds_what_a_store_lacks_each_once(
    tmp_path_factory: pytest.TempPathFactory, asked: list[str], there: set[str], given_up: set[str], at_a_time: int
) -> None:
    store = store_of(tmp_path_factory.mktemp("store"), there)
    first = {sequence: f"p{i}" for i, sequence in reversed(list(enumerate(asked)))}
    wanted = [one for one in dict.fromkeys(asked) if one not in there and one not in given_up]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "RECORDS_AT_A_TIME", at_a_time)
        with make_plan(iter(records(asked)), fake_spec(), [store], {key(one) for one in given_up}) as plan:
            assert [plan.sequence(i) for i in range(len(plan.keys))] == wanted
            assert [plan.sequence(i) for i in reversed(range(len(plan.keys)))] == wanted[::-1]
    assert plan.keys == [key(one) for one in wanted] and plan.ids == [first[one] for one in wanted]
    assert plan.lengths == plan.n_tokens.tolist() == [len(one) for one in wanted]
    assert plan.total_tokens == sum(map(len, wanted)) and plan.cropped == 0
    assert (plan.distinct, plan.repeated) == (len(set(asked)), len(asked) - len(set(asked)))
    assert plan.given_up == {key(one): first[one] for one in given_up & set(asked) - there}


def test_a_sequence_that_one_of_several_stores_lacks_is_planned(tmp_path: Path) -> None:
    stores = [store_of(tmp_path / "a", {"M", "K"}), store_of(tmp_path / "b", {"K", "V"})]
    with make_plan(records(["M", "K", "V", "MM"]), fake_spec(), stores) as plan:
        assert plan.ids == ["p0", "p2", "p3"]
    with make_plan(records(["M", "K"]), fake_spec(), [stores[0], None]) as plan:
        assert plan.ids == ["p0", "p1"]


@given(st.lists(LETTERS, min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_name_of_the_work_is_that_of_its_sequences(asked: list[str], rng: Any) -> None:
    def work(sequences: list[str]) -> str:
        with make_plan(records(sequences), fake_spec()) as plan:
            return plan.work

    shuffled = asked + asked[:2]
    rng.shuffle(shuffled)
    assert work(shuffled) == work(asked) != work([*asked, "MKVMKV"])


def test_the_crop_rule_counts_and_a_plan_holds_what_is_left() -> None:
    spec = fake_spec(crop="keep-3-prime", max_tokens=3)
    with make_plan(records(["MKVAC", "MKV", "MMKVAC"]), spec) as plan:
        assert [plan.sequence(i) for i in range(3)] == ["VAC", "MKV", "VAC"]
        assert (plan.cropped, plan.lengths) == (2, [3, 3, 3])
        assert plan.keys == [key("MKVAC"), key("MKV"), key("MMKVAC")]  # found again by the whole sequence
    with make_plan(records(["MKVAC"]), fake_spec(special_tokens="kept-1-1")) as plan:
        assert (plan.lengths, plan.sequence(0)) == ([7], "MKVAC")


def test_what_cannot_be_planned_is_told_by_its_record() -> None:
    with (
        pytest.raises(InvalidSequenceError, match="protein sequence of 'p1': 5 letters are 5 tokens, fake takes 4"),
        make_plan(records(["MK", "MKVAC"]), fake_spec(max_tokens=4)),
    ):
        pass
    strange = SequenceRecord("x", "ACGT", "rna")
    with (
        pytest.raises(InvalidInputError, match=r"record 'x' is rna, encoder fake takes protein\. Choose an encoder"),
        make_plan([strange], fake_spec()),
    ):
        pass


def test_a_full_folder_of_temporary_files_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan_module.tempfile, "TemporaryFile", full)
    with (
        pytest.raises(
            CacheError, match=r"cannot be kept in .*: No space left on device\. Free space there, or set TMPDIR"
        ),
        make_plan(records(["MK"]), fake_spec()),
    ):
        pass


@given(st.lists(LETTERS, unique=True, max_size=10), st.integers(1, 9), st.data())
@settings(deadline=None)
def test_tasks_hold_the_chosen_sequences_longest_first(asked: list[str], size: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(asked))) if asked else set()
    with make_plan(records(asked), fake_spec()) as plan:
        tasks = plan.tasks({key(one) for one in chosen}, size)
    length = {key(one): len(one) for one in asked}
    flat = [one for task in tasks for one in task]
    assert flat == sorted((key(one) for one in chosen), key=lambda one: (-length[one], one)) and all(tasks)
    assert all(sum(length[one] for one in task) <= size or len(task) == 1 for task in tasks)
    again = data.draw(st.permutations(asked))
    with make_plan(records(again), fake_spec()) as plan:
        assert plan.tasks({key(one) for one in chosen}, size) == tasks  # whatever order the input is in
