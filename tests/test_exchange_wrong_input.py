"""Inputs that cannot be right are refused in one line, and nothing is written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from exchange_input import GOOD, SEQUENCES, hdf5, import_file
from exchange_study import Study, make_study

from embedcache.errors import (
    CacheMismatchError,
    EmbedCacheError,
    InvalidInputError,
    InvalidSettingError,
    UnknownNameError,
)
from embedcache.exchange.names import biotrainer_name


def spoiled(row: int, column: int, value: float) -> np.ndarray:
    rows = GOOD["b"].copy()
    rows[row, column] = value
    return rows


ROWS = {
    "start and end token": (
        {"b": np.zeros((5, 64), "f4")},
        r"has shape \(5, 64\), expected \(3, 64\)\. 2 more look like special",
    ),
    "an end token": ({"b": np.zeros((4, 64), "f4")}, r"1 more look like special tokens"),
    "cut": ({"a": GOOD["a"][:5]}, r"has shape \(5, 64\), expected \(7, 64\).*--max-tokens 1022 --crop keep-5-prime"),
    "padded": ({"b": np.zeros((100, 64), "f4")}, r"Each row is a token of the sequence"),
    "other width": (
        {"b": np.zeros((3, 32), "f4")},
        r"has width 32, tiny-random-protein has 64. Name the right --encoder",
    ),
    "two widths": ({"a": GOOD["a"], "b": np.zeros((3, 32), "f4")}, r"All embeddings of an encoder have one width"),
    "not a number": ({"b": spoiled(1, 5, np.nan)}, r"data set 'b' has numbers that are not finite"),
    "infinite": ({"b": spoiled(2, 63, np.inf)}, r"data set 'b' has numbers that are not finite"),
    "integers": ({"b": np.zeros((3, 64), "i4")}, r"holds int32, expected floating-point numbers"),
    "integers later": ({"a": GOOD["a"], "b": np.zeros((3, 64), "i4")}, r"'b' holds int32, others float32"),
    "complex": ({"b": np.zeros((3, 64), "c8")}, r"holds complex64, expected floating-point numbers"),
    "text": ({"b": "MKV"}, r"has shape \(\), expected \(rows, width\)"),
    "three dimensions": ({"b": np.zeros((3, 3, 64), "f4")}, r"has shape \(3, 3, 64\), expected \(rows, width\)"),
    "no width": ({"b": np.zeros((3, 0), "f4")}, r"has shape \(3, 0\), expected \(rows, width\)"),
    "rows and means": ({"a": GOOD["a"], "b": GOOD["b"].mean(0)}, r"Rows and means do not mix"),
    "means and rows": ({"a": GOOD["a"].mean(0), "b": GOOD["b"]}, r"Rows and means do not mix"),
    "two formats": ({"a": GOOD["a"], "b": GOOD["b"].astype("f2")}, r"'b' holds float16, others float32.*--store-dtype"),
    "no data set": ({}, r"holds no embedding. Give another --input"),
    "strangers": (
        {"q": GOOD["a"]},
        r"None of 1 embeddings belongs to a sequence of .*x.fa, neither does .*data set 'q'",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_cannot_be_right(tmp_path: Path, case: str) -> None:
    content, message = ROWS[case]
    with pytest.raises(InvalidInputError, match=message):
        import_file("biotrainer", hdf5(tmp_path / "x.h5", content), tmp_path)
    assert not (tmp_path / "cache").exists()


def test_nothing_is_written_before_everything_was_checked(tmp_path: Path) -> None:
    names = {letter: f"MK{letter}" for letter in "ACDEFGHIKLM"} | {"q": "MKV"}
    content = {name: np.ones((3, 64), "f4") for name in names} | {"q": spoiled(0, 0, np.nan)}
    with pytest.raises(InvalidInputError, match="data set 'q' has numbers that are not finite"):
        import_file("biotrainer", hdf5(tmp_path / "x.h5", content), tmp_path, sequences=names)
    assert not (tmp_path / "cache").exists()


CLAIMS: dict[str, tuple[dict[str, Any], type[EmbedCacheError], str]] = {
    "unknown encoder": ({"encoder": "esm2-8M"}, InvalidInputError, "Did you mean 'esm2-8m'.*--tokens letter"),
    "other modality": ({"encoder": "nt-v2-50m"}, InvalidInputError, "protein"),
    "unlisted encoder, unknown rule": ({"encoder": "x", "claim": {"tokens": "words"}}, UnknownNameError, "token rule"),
    "name of a path": ({"encoder": "../x", "claim": {"tokens": "letter"}}, InvalidSettingError, "becomes a directory"),
    "rule of a listed one": ({"claim": {"tokens": "nt-6mer"}}, InvalidSettingError, "has tokens 'letter'"),
    "no such layer": ({"claim": {"layer": 7}}, InvalidSettingError, "no layer 7"),
    "int8": ({"claim": {"store_dtype": "int8"}}, InvalidSettingError, "not int8"),
    "over the limit": ({"claim": {"max_tokens": 2}}, InvalidInputError, "takes 2"),
    "too large for float16": (
        {"claim": {"store_dtype": "float16"}},
        InvalidInputError,
        "data set 'b'.*not finite as float16",
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims_that_cannot_be_right(tmp_path: Path, case: str) -> None:
    options, kind, message = CLAIMS[case]
    path = hdf5(tmp_path / "x.h5", {"b": spoiled(0, 0, 7e4)})
    with pytest.raises(kind, match=message):
        import_file("biotrainer", path, tmp_path, **options)
    assert not (tmp_path / "cache").exists()


def test_a_hash_of_another_sequence_is_told(tmp_path: Path) -> None:
    """As a FASTA file does that biotrainer read wrapped: its hash is that of the last line."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[biotrainer_name("LAAG")] = GOOD["a"]
        file[biotrainer_name("LAAG")].attrs["original_id"] = "a"
    with pytest.raises(
        InvalidInputError, match="the hash that names it says that 'a' was embedded from another sequence"
    ):
        import_file("biotrainer", tmp_path / "x.h5", tmp_path)


def test_two_embeddings_of_one_sequence_are_told(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "x.h5", {"a": GOOD["b"], "twin": GOOD["b"][::-1]})
    with pytest.raises(InvalidInputError, match=r"'twin'.* has another embedding elsewhere in the input"):
        import_file("biotrainer", path, tmp_path, sequences={"a": "MKV", "twin": "MKV"})
    assert not (tmp_path / "cache").exists()


def test_other_embeddings_than_the_store_has_are_told(tmp_path: Path) -> None:
    import_file("biotrainer", hdf5(tmp_path / "x.h5", {"b": GOOD["b"]}), tmp_path)
    other = hdf5(tmp_path / "y.h5", {"a": GOOD["a"], "b": GOOD["b"] * 1.1})
    files = sorted((tmp_path / "cache").rglob("*"))
    with pytest.raises(CacheMismatchError, match=r"has another embedding of 'b'.*--source"):
        import_file("biotrainer", other, tmp_path)
    assert sorted((tmp_path / "cache").rglob("*")) == files
    import_file("biotrainer", other, tmp_path, claim={"source": "another run"})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", SEQUENCES, store_dtype="float32", layer=1, architecture={"layers": 4})


RECORDS = [("layer", 2), ("dtype", "bfloat16"), ("max_tokens", 9), ("tokens", "bins-2"), ("crop", "center")]


@pytest.mark.parametrize("name", ["biotrainer", "esm-pt", "parquet"])
@pytest.mark.parametrize(("setting", "value"), RECORDS)
def test_a_claim_against_our_own_record_is_told(
    study: Study, tmp_path: Path, name: str, setting: str, value: Any
) -> None:
    study.export(name, tmp_path / "out")
    with pytest.raises(EmbedCacheError, match=r"says that its|layer in"):
        study.import_(name, tmp_path / "out", tmp_path / "cache", claim={setting: value})
    with pytest.raises(
        InvalidInputError, match=r"says that its encoder is 'fake', not 'esm2-8m'. Claim what it says.$"
    ):
        study.import_(name, tmp_path / "out", tmp_path / "cache", encoder="esm2-8m", claim={"layer": 1})
    assert not (tmp_path / "cache").exists()


def test_the_key_of_a_row_must_be_that_of_its_id(study: Study, tmp_path: Path) -> None:
    study.export("parquet", tmp_path / "out")
    with pytest.raises(InvalidInputError, match="its sequence key says that 'b' was embedded from another sequence"):
        import_file("parquet", tmp_path / "out", tmp_path, encoder="fake", sequences={"a": "MKVLAAG", "b": "MKW"})


COMMANDS = {
    "no format": ("export --modality rna --output x", 2, "--format"),
    "unknown format": ("export --format npz --modality rna --output x", 2, "npz"),
    "no dataset": ("export --format parquet --modality rna --output x", 1, "no dataset"),
    "unknown modality": ("export --format parquet --modality rma --output x", 1, "Did you mean 'rna'"),
    "two modalities": ("export --format parquet --modality rna,dna --output x", 2, "one modality a file"),
    "a modality twice": ("export --format h5ad --modality rna,rna --output x", 2, "twice"),
    "names of parquet": ("export --format parquet --modality rna --names id --output x", 2, "Leave it out"),
    "float16 of torch": ("export --format esm-pt --modality rna --dtype float16 --output x", 2, "float32"),
    "float16 means": ("export --format parquet --modality rna --pooled --dtype float16 --output x", 2, "--dtype"),
    "encoder of no modality": ("export --format h5ad --modality rna --encoder dna=x --output x", 2, "--modality dna"),
    "no encoder": ("import --format parquet --modality rna --input x", 2, "--encoder"),
    "no input": ("import --format parquet --modality rna --encoder enformer --input x", 1, "x is no file"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_commands_tell_what_is_wrong_in_one_line(tmp_path: Path, case: str) -> None:
    arguments, code, message = COMMANDS[case]
    command = [sys.executable, "-c", "import cli; cli.embedcache()", *arguments.split()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []
