"""What users write on the command line: places of caches, pairs, options of engines, devices."""

import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedcache.batching import by_length, cut_by_tokens
from embedcache.engines.options import number, read_options, text, whole_number
from embedcache.engines.run import choose_engine
from embedcache.errors import CacheError, InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.modality import resolve_device
from embedcache.options import parse_by_modality, parse_pairs
from embedcache.place import ObjectUrl, check_local, parse_place
from embedcache.store.files import open_files
from embedcache.store.write import cut_shards

# Places


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("cache", Path("cache")),
        ("/a/b c", Path("/a/b c")),
        ("C:cache", Path("C:cache")),
        ("a:/b", Path("a:/b")),
        (Path("x"), Path("x")),
        ("file:///a/b", Path("/a/b")),
        ("s3://bucket", ObjectUrl("s3://bucket")),
        ("s3://bucket/a/b//", ObjectUrl("s3://bucket/a/b")),
        (ObjectUrl("s3://b/x"), ObjectUrl("s3://b/x")),
    ],
    ids=str,
)
def test_a_place_is_a_directory_or_an_object_store(written: Any, place: Any) -> None:
    assert parse_place(written) == place


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("s3:/bucket/a", "begins with 's3:/', which is neither"),
        (Path("s3://bucket/a"), "begins with 's3:/', which is neither"),
        ("gs://bucket/a", "'gs://bucket/a' is no place for a cache. Give a directory, or s3://bucket/path."),
        ("s3:///a", "'s3:///a' is no place for a cache"),
        ("s3://key:secret@bucket/a", "the s3:// address of a cache holds more than bucket and path"),
        ("s3://bucket/a?key=secret", "Give credentials in the environment"),
        ("s3://bucket/a#secret", "never in the address"),
    ],
    ids=["lost-slash", "path", "google", "no-bucket", "user", "query", "fragment"],
)
def test_an_address_that_is_none_is_refused_and_never_repeats_a_secret(written: Any, message: str) -> None:
    with pytest.raises(InvalidSettingError) as error:
        parse_place(written)
    assert message in str(error.value) and "secret" not in str(error.value).replace("AWS_SECRET", "").lower()


def test_credentials_that_are_not_read_or_not_there_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_PROFILE": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("embedcache.store.objects.MOST_RETRIES", 0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(InvalidSettingError, match=r"AWS_PROFILE .* is not read here.*export-credentials"):
        open_files("s3://bucket/a").exists("zarr.json")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")  # or the machine is asked for a role
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(CacheError, match=r"nobody answers at 127\.0\.0\.1:9"):
        open_files("s3://bucket/a").exists("zarr.json")
    monkeypatch.setenv("AWS_PROFILE", "x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "keys win over a profile")
    with pytest.raises(CacheError, match="and the credentials in the environment, then"):
        open_files("s3://bucket/a").exists("zarr.json")


def test_parts_of_a_url_are_those_of_a_path() -> None:
    place = ObjectUrl("s3://bucket/cache") / "rna" / "x-1"
    assert (str(place), place.name, place.parent.name) == ("s3://bucket/cache/rna/x-1", "x-1", "rna")
    assert sorted([ObjectUrl("s3://b/b"), ObjectUrl("s3://b/a")]) == [ObjectUrl("s3://b/a"), ObjectUrl("s3://b/b")]
    assert len({place, ObjectUrl(str(place))}) == 1


@pytest.mark.parametrize("path", ["s3:/bucket", "s3://bucket", "file:/x", "gs:/x"])
def test_only_a_cache_lies_elsewhere(path: str) -> None:
    check_local(Path("runs/a:b"))
    with pytest.raises(InvalidSettingError, match="is no path of this machine, and only a cache can lie elsewhere"):
        check_local(Path(path))


# Pairs


def test_pairs_keep_what_stands_behind_the_first_sign() -> None:
    assert parse_pairs("--x", []) == {}
    assert parse_pairs("--x", ["a=b=c", "b==", "c= "]) == {"a": "b=c", "b": "=", "c": " "}


@pytest.mark.parametrize("values", [["a"], ["=b"], ["a="], ["a=b", "a=b"], [""]], ids=str)
def test_a_pair_has_two_sides_and_comes_once(values: list[str]) -> None:
    with pytest.raises(InvalidSettingError) as error:
        parse_pairs("--genetic-code", values, "chrM=2")
    found = f"--genetic-code {values[-1]!r} is not NAME=VALUE with each name once. Write --genetic-code chrM=2."
    assert str(error.value) == found


def test_modalities_come_in_one_order_and_others_are_named() -> None:
    assert list(parse_by_modality("--encoder", ["protein=c", "dna=a", "rna=b"]).items()) == [
        ("dna", "a"), ("rna", "b"), ("protein", "c")
    ]  # fmt: skip
    with pytest.raises(UnknownNameError, match=r"Unknown modality 'prot'. Did you mean 'protein'"):
        parse_by_modality("--encoder", ["prot=x", "rna=y"])
    with pytest.raises(InvalidSettingError, match=r"Write --encoder rna=VALUE\."):
        parse_by_modality("--encoder", ["esm2-8m"])


# Engines

KINDS = {"partition": text, "time": whole_number, "memory_gb": number}


def test_options_of_an_engine_have_kinds() -> None:
    given = {"partition": "gpu=1", "time": " 120 ", "memory_gb": "1.5e1"}
    assert read_options("slurm", given, KINDS) == {"partition": "gpu=1", "time": 120, "memory_gb": 15.0}
    assert read_options("slurm", {"time": "0", "memory_gb": "0"}, KINDS) == {"time": 0, "memory_gb": 0.0}
    assert read_options("ray", {}, KINDS) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tme": "1"}, "the slurm engine has no option 'tme'. Its options are memory_gb, partition, time."),
        ({"time": "-1"}, "--engine-option time=-1: expected a whole number of 0 or more. Write time=1, for one."),
        ({"time": "1.5"}, "--engine-option time=1.5: expected a whole number of 0 or more."),
        ({"memory_gb": "-0.1"}, "--engine-option memory_gb=-0.1: expected a number of 0 or more."),
        ({"memory_gb": "inf"}, "expected a number of 0 or more"),
        ({"memory_gb": "nan"}, "expected a number of 0 or more"),
        ({"memory_gb": "much"}, "expected a number of 0 or more"),
    ],
    ids=["unknown", "negative", "fraction", "negative-number", "infinite", "nan", "word"],
)
def test_an_option_that_cannot_be_is_told(given: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSettingError) as error:
        read_options("slurm", given, KINDS)
    assert message in str(error.value)


def test_the_local_engine_takes_no_options() -> None:
    assert type(choose_engine("local")).__name__ == "LocalEngine"
    assert type(choose_engine("slurm", {"partition": "x"})).__name__ == "SlurmEngine"
    with pytest.raises(InvalidSettingError, match=r"The local engine takes no options, found \['a', 'b'\]\. Leave"):
        choose_engine("local", {"b": "1", "a": "2"})


# Devices


@pytest.mark.parametrize("there", [0, 2])
def test_a_device_is_one_of_this_machine(monkeypatch: pytest.MonkeyPatch, there: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert resolve_device("cpu") == "cpu" and resolve_device("auto") == ("cuda" if there else "cpu")
    for device, index in (("cuda", 0), ("cuda:1", 1), ("cuda:2", 2)):
        if index < there:
            assert resolve_device(device) == device
        else:
            with pytest.raises(InvalidInputError, match=f"device '{device}' is not here: {there} CUDA devices were"):
                resolve_device(device)


@pytest.mark.parametrize("device", ["", "gpu", "cuda:x", "cuda:-1", "CPU", "mps", "cuda:1.0"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"is not known\. Choose cpu, cuda, cuda:<number> or auto"):
        resolve_device(device)


# Work cut by tokens

LENGTHS = st.lists(st.integers(0, 30), max_size=20)


@given(LENGTHS, st.integers(1, 40))
def test_pieces_of_work_are_as_full_as_can_be(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, np.int64)
    order = np.array(random.Random(0).sample(range(len(lengths)), len(lengths)), np.int64)
    pieces = [piece.tolist() for piece in cut_by_tokens(order, sizes, budget)]
    assert [i for piece in pieces for i in piece] == order.tolist() and all(pieces)
    totals = [sum(lengths[i] for i in piece) for piece in pieces]
    assert all(total <= budget or len(piece) == 1 for total, piece in zip(totals, pieces, strict=True))
    following = [lengths[piece[0]] for piece in pieces[1:]]
    assert all(total + more > budget for total, more in zip(totals, following, strict=False))


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=2)), unique=True))
def test_the_longest_come_first_and_equal_ones_by_key(items: list[tuple[int, bytes]]) -> None:
    order = by_length(np.array([size for size, _ in items], np.int64), [key for _, key in items]).tolist()
    assert [items[i] for i in order] == sorted(items, key=lambda item: (-item[0], item[1]))


@given(LENGTHS)
def test_shards_hold_whole_sequences_and_as_many_as_fit(lengths: list[int]) -> None:
    parts = [lengths[part] for part in cut_shards(lengths, 30)]
    assert [length for part in parts for length in part] == lengths and all(parts)
    assert all(sum(part) <= 30 for part in parts)
    assert all(sum(a) + b[0] > 30 for a, b in pairwise(parts))
    assert len(parts) >= math.ceil(sum(lengths) / 30)
