"""Builds of several stores from one pass of the encoder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, random_records
from numpy.typing import NDArray

import embedcache.work
from embedcache.build import BuildReport, build_products
from embedcache.encoders.pooling import pool_rows
from embedcache.errors import CacheError, InvalidSettingError
from embedcache.products import Product
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore
from embedcache.store.files import LocalFiles
from embedcache.store.index import committed_tasks, read_record, read_records

RECORDS = random_records(80)
WANTED = {record.sequence for record in RECORDS}


class Layered(FakeEncoder):
    """Rows of layer n are n + 2 times those of an encoder with one layer."""

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[NDArray[np.float32]]]:
        rows = super().encode(sequences)
        return {layer: [(layer + 2) * one for one in rows] for layer in layers}


def products_of(encoder: FakeEncoder, root: Path) -> dict[str, Product]:
    changes: dict[str, dict[str, object]] = {
        "exact": {"store_dtype": "float32"},
        "half": {},
        "mean": {"pooling": "mean"},
        "few": {"pooling": "adaptive-4", "store_dtype": "bfloat16"},
        "first": {"layer": 1},
        "small": {"store_dtype": "int8"},
    }
    specs = {name: replace(encoder.spec, **change) for name, change in changes.items()}  # type: ignore[arg-type]
    return {name: Product(spec, root / name) for name, spec in specs.items()}


def build(root: Path, *names: str, records: Sequence[SequenceRecord] = RECORDS) -> tuple[Layered, BuildReport]:
    encoder = Layered()
    found = products_of(encoder, root)
    chosen = [found[name] for name in names]
    return encoder, build_products(records, encoder, chosen, tokens_per_batch=200, shard_bytes=1 << 13)


def rows_in(root: Path) -> int:
    """Rows of all records of a store: more than its sequences have if one was committed twice."""
    files = LocalFiles(root)
    return len(read_records(files, committed_tasks(files)))


def stored(root: Path) -> dict[bytes, bytes]:
    store = EmbeddingStore(root)
    assert store.damaged() == []
    return {key: np.asarray(store[key]).tobytes() for key in store}


def test_each_store_is_what_a_build_of_it_alone_makes_and_the_encoder_runs_once(tmp_path: Path) -> None:
    names = ["half", "exact", "mean", "few", "first", "small"]
    encoder, report = build(tmp_path / "together", *names)
    assert sorted(encoder.embedded) == sorted(WANTED) and report.computed == len(WANTED)
    assert [place.name for place in report.stores if isinstance(place, Path)] == names
    for name in names:
        build(tmp_path / "alone", name)
        assert stored(tmp_path / "together" / name) == stored(tmp_path / "alone" / name), name
        assert rows_in(tmp_path / "together" / name) == len(WANTED)
    exact, first = (EmbeddingStore(tmp_path / "together" / name) for name in ("exact", "first"))
    pooled = EmbeddingStore(tmp_path / "together" / "mean")
    for sequence in WANTED:
        key, rows = sequence_key(sequence, "protein"), FakeEncoder().rows(sequence)
        assert np.array_equal(np.asarray(exact[key]), rows)
        assert np.array_equal(np.asarray(first[key]), (3 * rows).astype("f2"))
        assert np.array_equal(np.asarray(pooled[key]), pool_rows(rows, "mean").astype("f2"))
    assert build(tmp_path / "together", *names)[0].embedded == []


def test_what_rounding_costs_is_in_the_records_of_the_store_that_rounds(tmp_path: Path) -> None:
    build(tmp_path, "exact", "half", "small")
    costs = {}
    for name in ("exact", "half", "small"):
        files = LocalFiles(tmp_path / name)
        headers = [read_record(files, task)[1] for task in committed_tasks(files)]
        costs[name] = [header["rounding"]["relative_l2"] for header in headers if "rounding" in header]
    assert costs["exact"] == []
    assert 0 < max(costs["half"]) < 4e-4 < min(costs["small"]) < max(costs["small"]) < 2e-2


def test_a_store_that_is_there_is_not_written_again_beside_a_new_one(tmp_path: Path) -> None:
    build(tmp_path, "half")
    before = {path: path.read_bytes() for path in (tmp_path / "half" / "tokens" / "c").glob("*/0")}
    encoder, report = build(tmp_path, "half", "first")
    assert sorted(encoder.embedded) == sorted(WANTED) and report.computed == len(WANTED)
    assert {path: path.read_bytes() for path in (tmp_path / "half" / "tokens" / "c").glob("*/0")} == before
    assert rows_in(tmp_path / "half") == rows_in(tmp_path / "first") == len(WANTED)


@pytest.mark.parametrize("first", ["half", "first"])
def test_stores_that_have_different_parts_are_each_completed(tmp_path: Path, first: str) -> None:
    second = {"half": "first", "first": "half"}[first]
    build(tmp_path, "half", records=RECORDS[:40])
    build(tmp_path, "first", records=RECORDS[20:60])
    encoder, report = build(tmp_path, first, second)
    common = {record.sequence for record in RECORDS[20:40]}
    assert sorted(encoder.embedded) == sorted(WANTED - common) and report.computed == len(WANTED - common)
    assert rows_in(tmp_path / "half") == rows_in(tmp_path / "first") == len(WANTED)
    build(tmp_path / "alone", "half", "first")
    for name in ("half", "first"):
        assert stored(tmp_path / name) == stored(tmp_path / "alone" / name)


def test_a_build_that_ended_between_the_stores_of_a_task_completes_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_task, commits = embedcache.work.commit_task, list[str]()

    def commit_half(root: Path, *given: object, **more: object) -> bool:
        commits.append(root.name)
        if len(commits) == 6:  # the third task, second store
            raise CacheError("the disk is full")
        return commit_task(root, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(embedcache.work, "commit_task", commit_half)
    with pytest.raises(CacheError, match="the disk is full"):
        build(tmp_path, "half", "first")
    assert commits == ["half", "first"] * 3 and rows_in(tmp_path / "half") > rows_in(tmp_path / "first") > 0
    monkeypatch.undo()
    lacking = len(WANTED) - rows_in(tmp_path / "first")
    encoder, _ = build(tmp_path, "half", "first")
    assert len(encoder.embedded) == lacking
    assert rows_in(tmp_path / "half") == rows_in(tmp_path / "first") == len(WANTED)


def test_layers_of_an_encoder_that_gives_one_are_refused(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with pytest.raises(InvalidSettingError, match="one layer"):
        build_products(RECORDS, encoder, list(products_of(encoder, tmp_path).values()))
