"""What an estimate and the table of a cache say in words."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_spec

from embedcache.errors import CacheError
from embedcache.estimate import Estimate, StoreEstimate
from embedcache.info import DatasetUse, StoreInfo, describe_cache, format_cache


def estimate(**changes: Any) -> Estimate:
    one = StoreEstimate(
        layer=-1, pooling="none", store_dtype="int8", path="", present=0, rows=1, size_bytes=9, shards=1
    )
    fields: dict[str, Any] = {"encoder": "e", "modality": "rna", "sequences": 1200, "repeated": 30, "present": 2,
        "cropped": 4, "tokens": 5000, "computed_tokens": 5000, "longest_tokens": 70, "size_bytes": 3000, "shards": 1,
        "free_bytes": 4000, "seconds": 150.0, "device": "cpu", "trial_tokens": 800, "stores": (one,)}  # fmt: skip
    return Estimate(**{**fields, **changes})


def test_an_estimate_is_read_by_people() -> None:
    assert str(estimate()).splitlines() == [
        "encoder    e",
        "sequences  1,200 distinct rna (30 repeated, 2 need no pass, 4 to be cropped, longest 70 tokens)",
        "tokens     5,000 to embed",
        "disk       3.0 kB in 1 shard; 4.0 kB are free",
        "time       about 2.5 minutes on cpu (from 800 tokens tried)",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"computed_tokens": 6000}, "tokens     5,000 to embed, 6,000 with what windows share"),
        ({"shards": 1001}, "disk       3.0 kB in 1,001 shards; 4.0 kB are free"),
        ({"free_bytes": 3000}, "disk       3.0 kB in 1 shard; 3.0 kB are free"),
        ({"free_bytes": 2999}, "disk       3.0 kB in 1 shard, BUT ONLY 3.0 kB ARE FREE: choose another --cache, or a "
         "smaller store"),
        ({"free_bytes": None}, "disk       3.0 kB in 1 shard"),
        ({"seconds": None}, "time       not tried"),
        ({"seconds": 0.0}, "time       about 0.0 seconds on cpu (from 800 tokens tried)"),
    ],
    ids=["windows", "shards", "just-enough", "too-little", "object-store", "no-trial", "no-time"],
)  # fmt: skip
def test_an_estimate_says_what_is_special(changes: dict[str, Any], line: str) -> None:
    assert line in str(estimate(**changes)).splitlines()


def test_each_of_several_stores_has_its_line() -> None:
    (one,) = estimate().stores
    assert not [line for line in str(estimate()).splitlines() if line.startswith("     ")]
    lines = str(estimate(stores=(one, one))).splitlines()
    assert lines[4:6] == ["           9 B for layer -1, pooling none, int8"] * 2


def info(**changes: Any) -> StoreInfo:
    fields: dict[str, Any] = {
        "path": "c/rna/e-1",
        "modality": "rna",
        "encoder": "e",
        "is_random": False,
        "is_small": False,
        "is_imported": False,
        "width": 12,
        "dtype": "float16",
        "source_dtype": "",
        "layer": -1,
        "special_tokens": "dropped",
        "pooling": "none",
        "sequences": 2000,
        "tokens": 5000,
        "tokens_per_sequence": 2.5,
        "size_bytes": 1e6,
        "rounding": {"relative_l2": 0.000123, "cosine": 1.0, "tokens": 9},
        "shards": 1,
        "commits": 1,
        "last_commit": "2026-01-02T03:04:05",
        "index_is_current": True,
        "quarantined": {},
        "orphans": 0,
        "orphan_bytes": 0,
        "temporary_files": 0,
        "workers": 0,
        "dataset": None,
        "spec": fake_spec().to_json(),
    }
    return StoreInfo(**{**fields, **changes})


def cells(store: StoreInfo) -> dict[str, str]:
    head, row = format_cache([store]).splitlines()[:2]
    names = ["modality", "encoder", "weights", "holds", "width", "rounding", "last"]
    return {a: row[head.index(a) : head.index(b)].strip() for a, b in pairwise(names)}


@pytest.mark.parametrize(
    ("changes", "column", "text"),
    [
        ({}, "weights", "pretrained"),
        ({"is_small": True}, "weights", "pretrained, small"),
        ({"is_random": True, "is_small": True}, "weights", "random"),
        ({"is_imported": True}, "weights", "imported"),
        ({"is_imported": True, "is_random": True}, "weights", "random, imported"),
        ({}, "holds", "float16 tokens"),
        ({"source_dtype": "float16", "dtype": "int8"}, "holds", "int8 (from float16) tokens"),
        ({"pooling": "mean", "layer": 12}, "holds", "float16 mean, layer 12"),
        ({"special_tokens": "kept-1-1", "layer": 3}, "holds", "float16 tokens, layer 3 with special ones"),
        ({}, "rounding", "1.2e-04"),
        ({"rounding": None}, "rounding", "-"),
        ({"rounding": None, "dtype": "float32"}, "rounding", "none"),
    ],
)
def test_a_store_is_told_by_its_row(changes: dict[str, Any], column: str, text: str) -> None:
    assert cells(info(**changes))[column] == text


def test_the_table_lines_up_and_counts_are_grouped() -> None:
    lines = format_cache([info(), info(encoder="longer-name", last_commit="")]).splitlines()
    assert len(lines) == 3 and lines[0].index("weights") == lines[1].index("pretrained") == lines[2].index("pretrained")
    assert "2,000" in lines[1] and "5,000" in lines[1] and " 2.5 " in lines[1] and "1.0 MB" in lines[1]
    assert lines[1].endswith("e-1") and " never " in lines[2]
    assert format_cache([]) == "No stores. Run `embedcache build`, or give another --cache."


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, []),
        ({"workers": 3, "orphans": 2}, ["e-1: 3 workers at work"]),
        ({"orphans": 2, "orphan_bytes": 5000}, ["e-1: killed builds left 2 shards (5.0 kB) and 0 temporary files; "
         "`embedcache gc` removes them when they are old"]),
        ({"temporary_files": 1}, ["e-1: killed builds left 0 shards (0 B) and 1 temporary files; `embedcache gc` "
         "removes them when they are old"]),
        ({"quarantined": {f"p{i}": "why" for i in range(7)}}, ["e-1: 7 sequences cannot be embedded: p0 (why); "
         "p1 (why); p2 (why); p3 (why); p4 (why) and 2 more"]),
        ({"dataset": DatasetUse(transcripts=1000, sequences=900, absent=1, size_bytes=2000, saved_bytes=500)},
         ["e-1: 1,000 transcripts of the dataset share 900 sequences, lacks 1 of them; 2.0 kB, 500 B saved because "
          "none is embedded twice"]),
        ({"dataset": DatasetUse(transcripts=2, sequences=2, absent=0, size_bytes=0, saved_bytes=0)},
         ["e-1: 2 transcripts of the dataset share 2 sequences, has all of them; 0 B, 0 B saved because none is "
          "embedded twice"]),
    ],
    ids=["nothing", "workers", "orphans", "temporary", "quarantine", "lacking", "whole"],
)  # fmt: skip
def test_what_else_is_worth_a_line(changes: dict[str, Any], notes: list[str]) -> None:
    assert format_cache([info(**changes)]).splitlines()[2:] == notes


def test_a_cache_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"file is not a directory\. Give the root of a cache"):
        describe_cache(tmp_path / "file")
    with pytest.raises(CacheError, match=r"none does not exist\. Run `embedcache build`"):
        describe_cache(tmp_path / "none")
    with pytest.raises(CacheError, match=r"holds no stores\. Give the root of a cache"):
        describe_cache(tmp_path)
    (tmp_path / "empty").mkdir()
    assert describe_cache(tmp_path / "empty") == []
