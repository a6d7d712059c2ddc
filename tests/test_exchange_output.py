"""An export is there as a whole or not at all, and never in place of something."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchange_study import Study, make_study

from embedcache.errors import (
    CacheDamagedError,
    CacheError,
    CacheIncompleteError,
    InvalidInputError,
    InvalidSettingError,
)
from embedcache.exchange.export import export_embeddings
from embedcache.exchange.hdf5_file import writing
from embedcache.exchange.output import new_output
from embedcache.exchange.source import ExportSource
from embedcache.interrupt import StoppedError

NAMES = ["biotrainer", "bio-embeddings", "esm-pt", "h5ad", "parquet"]
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    sequences = ["ACDEFGHIKLMNPQRSTVWY"[i % 20] * (40 + i) for i in range(60)]
    return make_study(tmp_path_factory.mktemp("study"), sequences, store_dtype="float32")


@pytest.mark.parametrize("there", ["file", "directory", "broken link"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_overwritten(study: Study, tmp_path: Path, name: str, there: str) -> None:
    path = tmp_path / "x"
    {"file": path.touch, "directory": path.mkdir, "broken link": lambda: path.symlink_to("nowhere")}[there]()
    with pytest.raises(InvalidInputError, match=r"x exists already\. Choose another --output"):
        study.export(name, path)
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_embeddings_are_not_exported(tmp_path: Path, name: str) -> None:
    pytest.importorskip("anndata")
    study = make_study(tmp_path, ["MKVLAAG", "MKV"])
    shard = tmp_path / "cache" / "protein" / study.spec.directory / "tokens" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 64
    shard.write_bytes(data)
    with pytest.raises(CacheDamagedError, match=r"embedding of 'p0' is damaged in .*verify --repair"):
        study.export(name, tmp_path / "out" / "x")
    assert names(tmp_path) == ["cache", "dataset"]


@pytest.mark.parametrize("name", NAMES)
def test_an_address_is_no_path(study: Study, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettingError, match="only a cache can lie elsewhere"):
        study.export(name, Path("s3://bucket/x"))
    with pytest.raises(InvalidSettingError, match="only a cache can lie elsewhere"):
        study.import_(name, Path("s3://bucket/x"), tmp_path / "cache")
    assert names(tmp_path) == []


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


class MiddleError(Exception):
    """Stands for any error in the middle."""


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_the_middle_leaves_nothing(
    study: Study, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anndata")
    mean, rows, calls = ExportSource.mean, ExportSource.rows, list[bytes]()

    def counted(function: Any) -> Any:
        def call(self: ExportSource, key: bytes, *rest: Any) -> Any:
            calls.append(key)
            if len(calls) == 30:
                raise MiddleError
            return function(self, key, *rest)

        return call

    monkeypatch.setattr(ExportSource, "mean", counted(mean))
    monkeypatch.setattr(ExportSource, "rows", counted(rows))
    with pytest.raises(MiddleError):
        study.export(name, tmp_path / "deep" / "er" / "x")
    assert len(calls) == 30 and list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from exchange_study import Study
from fakes import fake_spec
from embedcache.errors import EmbedCacheError
import torch, h5py, pyarrow, anndata
study = Study(Path({dataset!r}), Path({cache!r}), {{}}, fake_spec(store_dtype="float32"))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    study.export({name!r}, Path({output!r}))
except EmbedCacheError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [1_000, 20_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up_is_told_and_leaves_nothing(study: Study, tmp_path: Path, name: str, limit: int) -> None:
    """The library of HDF5 would print the failure, forget it, and may end the process."""
    pytest.importorskip("anndata")
    code = FULL_DISK.format(
        tests=str(TESTS),
        dataset=str(study.dataset),
        cache=str(study.cache),
        output=str(tmp_path / "x"),
        name=name,
        limit=1_500 if name == "esm-pt" else limit,  # its files are small
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "x cannot be written: " in done.stdout and "File too large" in done.stdout and done.stdout.count("\n") == 1
    assert done.stderr == "" and list(tmp_path.iterdir()) == []


def test_hdf5_remembers_the_first_failure_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="File exists"), writing(tmp_path):
        pass
    with writing(tmp_path / "x.h5") as new:
        new.file["a"] = np.arange(1000)
        new.check()
    assert (tmp_path / "x.h5").stat().st_size > 8000


def test_a_place_that_cannot_be_written_is_told(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"x cannot be made: .*file is no directory\."):
        study.export("parquet", tmp_path / "file" / "x")


def test_two_exports_of_one_path_do_not_mix(tmp_path: Path) -> None:
    with new_output(tmp_path / "x", "file") as one:
        one.write_text("one")
        with new_output(tmp_path / "x", "file") as two:
            two.write_text("two")
        assert (tmp_path / "x").read_text() == "two"
        (tmp_path / "x").unlink()
    with (
        pytest.raises(InvalidInputError, match="exists already"),
        new_output(tmp_path / "y", "directory") as one,
    ):
        (one / "a").touch()
        with new_output(tmp_path / "y", "directory") as two:
            (two / "b").touch()
    assert (tmp_path / "x").read_text() == "one" and names(tmp_path / "y") == ["b"]
    assert names(tmp_path) == ["x", "y"]


def test_what_a_killed_export_left_is_removed_by_the_next(study: Study, tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from embedcache.exchange.output import new_output\n"
        f"with new_output(Path({str(tmp_path / 'x')!r}), 'file') as path:\n"
        "    path.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1 and not (tmp_path / "x").exists()
    study.export("parquet", tmp_path / "x")
    assert names(tmp_path) == ["x"]


def test_a_signal_stops_an_export_and_leaves_nothing(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: ExportSource, *_: Any) -> Any:
        time.sleep(0.05)
        return np.zeros((3, 12), np.float32)

    monkeypatch.setattr(ExportSource, "rows", slow)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(StoppedError, match="nothing was left"):
        study.export("biotrainer", tmp_path / "x")
    timer.join()
    assert list(tmp_path.iterdir()) == []


def test_absent_sequences_are_counted(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKV", "MKV", "WW", "AA"], leave_out=["WW", "MKV"], store_dtype="float32")
    message = r"lacks 2 of 3 protein sequences of .*dataset\. Run `embedcache build --modality protein`"
    with pytest.raises(CacheIncompleteError, match=message):
        study.export("biotrainer", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_modality_that_no_sample_has_is_told(study: Study, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="holds no rna embeddings"):
        study.export("biotrainer", tmp_path / "x", modalities=["rna"])
    other = make_study(tmp_path / "rna", ["ACGT"], modality="rna")
    with pytest.raises(InvalidInputError, match="has no rna sequences, only protein"):
        export_embeddings(
            format="biotrainer", modalities=["rna"], output=tmp_path / "x", dataset=study.dataset, cache=other.cache
        )


def test_pooled_stores_have_no_tokens_to_export(tmp_path: Path) -> None:
    mean = make_study(tmp_path / "mean", ["MKV"], pooling="mean")
    with pytest.raises(InvalidSettingError, match=r"holds pooled rows \(mean\), not one a token\. Give --pooled"):
        mean.export("biotrainer", tmp_path / "x")
    adaptive = make_study(tmp_path / "adaptive", ["MKVMKV"], pooling="adaptive-4")
    with pytest.raises(InvalidSettingError, match=r"means of neighbouring tokens \(adaptive-4\)"):
        adaptive.export("biotrainer", tmp_path / "x", pooled=True)


def test_a_disk_without_room_is_told_before_any_work(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcache.exchange import export

    usage = type("Usage", (), {"free": 60_000})
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage)
    for name, options in {"biotrainer": {}, "parquet": {"dtype": "float32"}}.items():
        with pytest.raises(CacheError, match=r"takes 2\d\d\.\d kB and its disk has 60\.0 kB free"):
            study.export(name, tmp_path / "x", **options)
    study.export("biotrainer", tmp_path / "x", pooled=True)
