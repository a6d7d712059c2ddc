"""What one store lacks of another, by sets and dictionaries in place of sorted arrays."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import fake_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import CacheError
from embedcache.place import ObjectUrl
from embedcache.store import EmbeddingStore, commit_task, create_store, write_index
from embedcache.store.files import open_files
from embedcache.store.index import entry_keys, load_entries, search_keys
from embedcache.store.layout import ENTRY, Array, new_layout
from embedcache.store.transfer import Carrier, check_fits, check_room, plan_loads

KEYS = st.binary(min_size=16, max_size=16) | st.tuples(st.sampled_from([b"\0" * 8, b"\xff" * 8]), st.binary(
    min_size=8, max_size=8)).map(b"".join)  # fmt: skip


def halves(keys: Iterable[bytes]) -> tuple[Array, Array]:
    whole = list(keys)
    return (
        np.array([int.from_bytes(key[:8], "big") for key in whole], np.uint64),
        np.array([int.from_bytes(key[8:], "big") for key in whole], np.uint64),
    )


@given(st.sets(KEYS, max_size=12), st.lists(KEYS, max_size=6))
def test_keys_are_found_where_a_dictionary_has_them(present: set[bytes], absent: list[bytes]) -> None:
    ordered = sorted(present)
    where = {key: i for i, key in enumerate(ordered)}
    wanted = [*ordered[::-1], *absent, *ordered[:2]]
    found = search_keys(*halves(ordered), *halves(wanted))
    assert found.tolist() == [where.get(key, -1) for key in wanted]
    assert found.dtype == np.int64


@given(st.lists(KEYS, max_size=8))
def test_halves_of_keys_join_to_keys(keys: list[bytes]) -> None:
    entries = np.zeros(len(keys), ENTRY)
    entries["high"], entries["low"] = halves(keys)
    assert entry_keys(entries) == keys


# Loads

NUMBERS = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def rows(number: int, seed: int = 0) -> Array:
    return np.random.default_rng((number, seed)).standard_normal((number % 4 + 1, 12)).astype(np.float16)


def make(path: Path, tasks: list[list[int]], seed: int = 0, note: str = "") -> Any:
    create_store(path, fake_spec(), shard_bytes=1 << 13)
    for i, task in enumerate(tasks):
        commit_task(path, [(key(n), rows(n, seed)) for n in task], task=f"{i:032x}", extra={"note": f"{note}{i}"})
    return open_files(path)


@given(st.lists(NUMBERS, max_size=3), st.lists(NUMBERS, max_size=3), st.none() | st.sets(st.integers(0, 9)))
@settings(max_examples=40, deadline=None)
def test_the_difference_of_two_stores_is_that_of_two_sets(
    tmp_path_factory: pytest.TempPathFactory, ours: list[list[int]], theirs: list[list[int]], wanted: set[int] | None
) -> None:
    folder = tmp_path_factory.mktemp("stores")
    source, target = make(folder / "a", ours), make(folder / "b", theirs)
    found = plan_loads(source, target, None if wanted is None else {key(n) for n in wanted})
    asked = {n for task in ours for n in task} & (set(range(10)) if wanted is None else wanted)
    there = {n for task in theirs for n in task}
    loaded = [int.from_bytes(one, "big") for load in found.loads for one in entry_keys(load.entries)]
    assert Counter(loaded) == Counter(asked - there)  # each once, although several records may have it
    assert (found.present, found.differing) == (len(asked & there), None)
    assert found.n_rows == sum(len(rows(n)) for n in loaded)
    assert found.longest == max((len(rows(n)) for n in loaded), default=0)
    assert all(load.n_rows == load.entries["length"].sum() > 0 for load in found.loads)
    # the record of the lower shard has a sequence that two records hold, with its own header
    first = {n: f"{i}" for i, task in reversed(list(enumerate(ours))) for n in task}
    for load in found.loads:
        assert {first[int.from_bytes(one, "big")] for one in entry_keys(load.entries)} == {load.header["note"]}


def test_sequences_with_other_bytes_are_named(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a", [[1, 2], [3]]), make(tmp_path / "b", [[2, 3]], seed=1)
    commit_task(tmp_path / "b", [(key(1), rows(1))])
    found = plan_loads(source, target)
    assert found.present == 3 and found.loads == [] and found.differing is not None
    assert sorted(entry_keys(found.differing)) == [key(2), key(3)]
    assert (found.n_rows, found.longest) == (0, 0)


def test_a_place_without_a_store_lacks_everything(tmp_path: Path) -> None:
    found = plan_loads(make(tmp_path / "a", [[1, 2], [2, 5]]), open_files(tmp_path / "none"))
    assert [entry_keys(load.entries) for load in found.loads] == [[key(1), key(2)], [key(5)]]
    assert [load.header["note"] for load in found.loads] == ["0", "1"]
    assert found.present == 0 and not (tmp_path / "none").exists()


class Doubled:
    """Rows become their doubles; what was carried is counted in the header."""

    def rows(self, rows: Array) -> Array:
        doubled: Array = rows * rows.dtype.type(2)
        return doubled

    def extra(self, headers: Any) -> dict[str, Any]:
        return {"from": [header["note"] for header in headers]}


def carry(folder: Path, groups: Any, stop_after: int = 99) -> tuple[Carrier, list[int]]:
    moved: list[int] = []
    carrier = Carrier(open_files(folder / "a"), new_layout(fake_spec()), folder / "b", Doubled(), moved.append)
    create_store(folder / "b", fake_spec(), shard_bytes=1 << 13)
    carrier.carry(groups, lambda: len(moved) >= stop_after)
    return carrier, moved


def test_what_is_carried_takes_the_form_of_the_target(tmp_path: Path) -> None:
    loads = plan_loads(make(tmp_path / "a", [[1, 2], [3], [6, 7]]), open_files(tmp_path / "b")).loads
    carrier, moved = carry(tmp_path, [loads[:2], loads[2:]])
    sizes = [len(rows(n)) for n in (1, 2, 3, 6, 7)]
    assert moved == [sum(sizes[:3]), sum(sizes[3:])]
    assert (carrier.sequences, carrier.tokens, carrier.damaged) == (5, sum(sizes), [])
    assert carrier.size_bytes == sum(sizes) * 12 * 2
    target = make(tmp_path / "b", [])
    records = {
        tuple(sorted(entry_keys(load.entries))): load.header for load in plan_loads(target, open_files("x")).loads
    }
    assert records[key(1), key(2), key(3)]["from"] == ["0", "1"] and records[key(6), key(7)]["from"] == ["2"]
    store = EmbeddingStore(tmp_path / "b")
    assert all(store[key(n)].tobytes() == (rows(n) * np.float16(2)).tobytes() for n in (1, 2, 3, 6, 7))
    again, _ = carry(tmp_path, [loads[:2], loads[2:]])
    assert (again.sequences, again.tokens, again.size_bytes) == (0, 0, 0)  # the records are there


def test_a_stop_ends_the_work_after_what_was_begun(tmp_path: Path) -> None:
    loads = plan_loads(make(tmp_path / "a", [[1], [2], [3]]), open_files(tmp_path / "b")).loads
    carrier, moved = carry(tmp_path, [[load] for load in loads], stop_after=2)
    assert len(moved) == 2 and carrier.sequences == 2
    assert sorted(entry_keys(load_entries(open_files(tmp_path / "b"))[0])) == [key(1), key(2)]
    assert list((tmp_path / "b" / "claims" / "tasks").iterdir()) == []  # the lease was handed back


def test_a_damaged_sequence_stays_behind_alone(tmp_path: Path) -> None:
    loads = plan_loads(make(tmp_path / "a", [[1, 2, 3]]), open_files(tmp_path / "b")).loads
    path = tmp_path / "a" / "tokens" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[len(rows(1)) * 24] ^= 1  # the first byte of the second sequence
    path.write_bytes(data)
    carrier, moved = carry(tmp_path, [loads])
    assert carrier.damaged == [key(2)] and carrier.sequences == 2 and moved == [sum(len(rows(n)) for n in (1, 2, 3))]


# Room


@pytest.mark.parametrize(("size_bytes", "is_refused"), [(0, False), (1000, False), (1001, True)])
def test_a_disk_is_full_when_it_has_less_than_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, is_refused: bool
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=1000))
    place = tmp_path / "not" / "there" / "yet"
    if is_refused:
        with pytest.raises(CacheError, match=r"yet needs 1,001 bytes more and its disk has 1,000 free\. Nothing was"):
            check_room(place, size_bytes)
    else:
        check_room(place, size_bytes)
    assert asked == [tmp_path]  # the nearest directory that exists
    check_room(ObjectUrl("s3://bucket/cache"), 1 << 60)
    assert len(asked) == 1


def test_a_sequence_fits_a_shard_of_as_many_rows(tmp_path: Path) -> None:
    layout = new_layout(fake_spec(), shard_bytes=1)
    check_fits(tmp_path, layout, 256)
    with pytest.raises(CacheError, match=r"a sequence of 257 tokens does not fit .* fixed at 256 rows"):
        check_fits(tmp_path, layout, 257)


def test_the_index_is_merged_for_readers_of_a_carried_store(tmp_path: Path) -> None:
    loads = plan_loads(make(tmp_path / "a", [[4, 1]]), open_files(tmp_path / "b")).loads
    carry(tmp_path, [loads])
    assert not load_entries(open_files(tmp_path / "b"))[2]
    write_index(tmp_path / "b")
    entries, _, is_current = load_entries(open_files(tmp_path / "b"))
    assert is_current and entry_keys(entries) == [key(1), key(4)]
