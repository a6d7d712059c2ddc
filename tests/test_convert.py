import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import s3_server
from fakes import FakeEncoder, fake_spec, random_records

from embedcache.build import build_cache
from embedcache.care import verify_cache
from embedcache.convert import ConvertReport, convert_store, converted_spec
from embedcache.errors import CacheDamagedError, CacheError, InvalidSettingError
from embedcache.interrupt import StoppedError
from embedcache.store import EmbeddingStore, list_stores, store_path, transfer
from embedcache.store.care import check_store
from embedcache.store.files import open_files
from embedcache.store.index import read_all_records

SHARD_BYTES = 1 << 14
RECORDS = random_records(60)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("convert-tests") as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return str(tmp_path / "cache") if request.param == "local" else f"{bucket}/{uuid.uuid4().hex}"


def build(cache: str | Path, store_dtype: str) -> EmbeddingStore:
    encoder = FakeEncoder(store_dtype=store_dtype)
    build_cache(RECORDS, encoder, store_path(cache, encoder.spec), shard_bytes=SHARD_BYTES)
    return EmbeddingStore(store_path(cache, encoder.spec))


def stored(root: object) -> dict[bytes, bytes]:
    """Bytes of every sequence as they lie in a store."""
    store = EmbeddingStore(root)  # type: ignore[arg-type]
    found = store.packed(np.arange(len(store)))
    values = found.values if store.dtype != "bfloat16" else found.values.view(dtype=__import__("torch").uint16)
    ends = found.offsets.tolist()
    return {key: values[a:b].numpy().tobytes() for key, a, b in zip(store, ends, ends[1:], strict=False)}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_that_were_exact_become_those_of_a_build_and_the_build_goes_on_with_them(
    cache: str, tmp_path: Path, dtype: str
) -> None:
    exact, built = build(cache, "float32"), build(tmp_path / "other", dtype)
    report = convert_store(cache, "protein", dtype)  # type: ignore[arg-type]
    assert report.store.endswith(built.spec.directory) and report.rounded_before == ""
    assert report.converted == len(exact) and report.tokens == exact.n_tokens and report.present == 0
    assert stored(report.store) == stored(built.root) and len(stored(report.store)) == len(exact)
    assert len(list(list_stores(cache))) == 2  # the source stays
    encoder = FakeEncoder(store_dtype=dtype)
    assert build_cache(RECORDS, encoder, report.store).computed == 0 and encoder.embedded == []
    verify_cache(cache).raise_if_damaged()


@pytest.mark.parametrize(("dtype", "most"), [("float16", 3e-4), ("bfloat16", 3e-3), ("int8", 2e-2)])
def test_the_error_is_measured_and_kept_in_the_records(tmp_path: Path, dtype: str, most: float) -> None:
    exact = build(tmp_path, "float32")
    report = convert_store(tmp_path, "protein", dtype)  # type: ignore[arg-type]
    store = EmbeddingStore(report.store)
    lost = np.concatenate([exact[key] - store[key].astype(np.float32) for key in exact])
    true = np.linalg.norm(lost) / np.linalg.norm(np.concatenate([exact[key] for key in exact]))
    assert report.rounding is not None and 0 < true < most
    assert abs(report.rounding["relative_l2"] - true) < true / 5  # of at most 64 tokens a sequence
    assert 1 - most**2 < report.rounding["cosine"] <= 1
    headers = [header for _, header in read_all_records(store.files)]
    assert all(0 < header["rounding"]["relative_l2"] < most for header in headers)
    assert {header["converted_from"] for header in headers} == {exact.spec.directory}


def test_rows_that_were_rounded_twice_say_so(cache: str) -> None:
    half = build(cache, "float16")
    report = convert_store(cache, "protein", "int8")
    spec = EmbeddingStore(report.store).spec
    assert (spec.store_dtype, spec.source_dtype, report.rounded_before) == ("int8", "float16", "float16")
    assert spec.digest != fake_spec(store_dtype="int8").digest  # never taken for the store of a build
    assert report.source_rounding is not None and "rounded to float16" in str(report)
    header = read_all_records(open_files(report.store))[0][1]
    assert header["rounded_before"]["relative_l2"] < header["rounding"]["relative_l2"]
    with pytest.raises(InvalidSettingError, match="third time"):
        convert_store(cache, "protein", "bfloat16", encoder=spec.directory)
    again = convert_store(cache, "protein", "bfloat16")  # the only one that can be converted
    assert again.source == str(half.root) and EmbeddingStore(again.store).spec.source_dtype == "float16"


def test_which_store_is_meant_is_asked_with_what_tells_them_apart(tmp_path: Path) -> None:
    stores = [build(tmp_path, dtype) for dtype in ("float32", "float16")]
    with pytest.raises(CacheError, match="no --encoder is given, which could mean 2 protein stores") as caught:
        convert_store(tmp_path, "protein", "int8")
    assert all(f"{one.spec.directory} (store_dtype {one.dtype})" in str(caught.value) for one in stores)
    report = convert_store(tmp_path, "protein", "int8", encoder=stores[0].spec.directory)
    assert report.source_dtype == "float32"


def test_float32_keeps_all_that_there_is_and_goes_back_without_loss(tmp_path: Path) -> None:
    half = build(tmp_path / "a", "bfloat16")
    wide = convert_store(tmp_path / "a", "protein", "float32", output=tmp_path / "b")
    assert wide.rounding is None and wide.rounded_before == "bfloat16"
    assert all((EmbeddingStore(wide.store)[key] == half[key]).all() for key in half)
    back = convert_store(tmp_path / "b", "protein", "bfloat16", output=tmp_path / "c")
    assert EmbeddingStore(back.store).spec == half.spec and stored(back.store) == stored(half.root)


@pytest.mark.parametrize(
    ("store", "source", "dtype", "text"),
    [
        ("float16", "", "float16", "holds float16: there is nothing to gain"),
        ("float32", "int8", "int8", "holds float32 that was int8"),
        ("int8", "float16", "bfloat16", "third time"),
    ],
)
def test_what_gains_nothing_is_refused(store: str, source: str, dtype: str, text: str) -> None:
    with pytest.raises(InvalidSettingError, match=text):
        converted_spec(fake_spec(store_dtype=store, source_dtype=source), dtype)  # type: ignore[arg-type]


def test_a_killed_conversion_goes_on_where_it_stopped(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = build(cache, "float32")
    commit, calls = transfer.commit_task, [0]

    def dies(*arguments: object, **named: object) -> bool:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return commit(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "commit_task", dies)
    with pytest.raises(KeyboardInterrupt):
        convert_store(cache, "protein", "int8", shard_bytes=SHARD_BYTES // 2)
    monkeypatch.undo()
    report: ConvertReport = convert_store(cache, "protein", "int8")  # two stores of one name: the other one is meant
    assert 0 < report.present < len(exact) and report.present + report.converted == len(exact)
    again = convert_store(cache, "protein", "int8")
    assert (again.converted, again.present) == (0, len(exact)) and not check_store(report.store).damages
    assert len(EmbeddingStore(report.store)) == len(exact)


def test_a_request_to_stop_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, commit = build(tmp_path, "float32"), transfer.commit_task

    def asks_to_stop(*arguments: object, **named: object) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return commit(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "commit_task", asks_to_stop)
    with pytest.raises(StoppedError, match=r"Stopped after [1-9][\d,]* of [\d,]+ tokens") as caught:
        convert_store(tmp_path, "protein", "bfloat16", shard_bytes=SHARD_BYTES // 2)
    monkeypatch.undo()
    assert caught.value.signal_number == signal.SIGTERM
    store = EmbeddingStore(store_path(tmp_path, converted_spec(exact.spec, "bfloat16")))
    assert 0 < len(store) < len(exact) and store.index_is_current and store.files.statuses("claims/tasks") == {}
    assert convert_store(tmp_path, "protein", "bfloat16").present == len(store)


def test_damage_does_not_spread(cache: str, tmp_path: Path) -> None:
    exact = build(tmp_path / "a", "float32")
    path = next(path for path in sorted((Path(str(exact.root)) / "tokens" / "c").glob("*/0")))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    report = convert_store(tmp_path / "a", "protein", "float16", output=cache)
    wrong = [key for position, key in enumerate(exact) if position in exact.damaged()]
    assert report.damaged == (wrong[0].hex(),) and report.converted == len(exact) - 1
    with pytest.raises(CacheDamagedError, match="verify --repair"):
        report.raise_if_damaged()
    assert wrong[0] not in EmbeddingStore(report.store)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, "float32")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CacheError, match=r"has 1,000 free. Nothing was written"):
        convert_store(tmp_path, "protein", "float16")
    assert len(list(list_stores(tmp_path))) == 1


def test_records_of_one_store_fill_shards_of_the_next(tmp_path: Path) -> None:
    exact = build(tmp_path, "float32")
    assert len(exact.tasks) > 4
    report = convert_store(tmp_path, "protein", "float16")
    assert len(EmbeddingStore(report.store).tasks) == 1  # all fits a shard of 64 MiB


def test_numbers_too_large_are_told_and_nothing_is_committed(tmp_path: Path) -> None:
    class Loud(FakeEncoder):
        def rows(self, sequence: str) -> np.ndarray:
            return super().rows(sequence) * 1e6

    encoder = Loud(store_dtype="float32")
    build_cache(RECORDS, encoder, store_path(tmp_path, encoder.spec))
    with pytest.raises(CacheError, match=r"not finite as float16.*bfloat16"):
        convert_store(tmp_path, "protein", "float16")
    convert_store(tmp_path, "protein", "bfloat16", encoder=encoder.spec.directory).raise_if_damaged()
