"""Files that cannot be read, hold code or are damaged are refused in one line, and nothing is written."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from exchange_input import GOOD, SEQUENCES, hdf5, import_file
from exchange_study import Study, make_study

from embedcache.errors import (
    EmbedCacheError,
    InvalidInputError,
    UnknownNameError,
)
from embedcache.sequences import sequence_key


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", SEQUENCES, store_dtype="float32", layer=1, architecture={"layers": 4})


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


TORCH: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code": (lambda path: torch.save({"label": "b", "x": Evil(path.with_name("marker"))}, path), "could be code"),
    "pickled code": (lambda path: path.write_bytes(pickle.dumps(Evil(path.with_name("marker")))), "cannot be loaded"),
    "nothing": (lambda path: path.write_bytes(b""), "cut, damaged or no PyTorch file"),
    "text": (lambda path: path.write_text("MKV"), "cut, damaged or no PyTorch file"),
    "a tensor": (saved(torch.zeros(3, 64)), "has no label"),
    "no label": (saved({"representations": {2: torch.zeros(3, 64)}}), "has no label"),
    "a label of numbers": (saved({"label": 7, "representations": {2: torch.zeros(3, 64)}}), "has no label"),
    "no embedding": (
        saved({"label": "b", "contacts": torch.zeros(3, 3)}),
        "has no representations, only contacts, label",
    ),
    "no layer": (saved({"label": "b", "representations": {}}), "has no representations"),
    "two layers": (
        saved({"label": "b", "representations": {1: torch.zeros(3, 64), 2: torch.zeros(3, 64)}}),
        "has the layers 1, 2. Name one with --layer",
    ),
    "no tensor": (saved({"label": "b", "representations": {2: [1.0]}}), "has no representations of layer 2"),
    "integers": (saved({"label": "b", "representations": {2: torch.zeros(3, 64, dtype=torch.long)}}), "holds int64"),
    "a sparse tensor": (
        saved({"label": "b", "representations": {2: torch.zeros(3, 64).to_sparse()}}),
        "has no representations of layer 2|cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_torch_files_that_cannot_be_right(tmp_path: Path, case: str) -> None:
    write, message = TORCH[case]
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "b.pt")
    with pytest.raises(InvalidInputError, match=message):
        import_file("esm-pt", tmp_path / "out", tmp_path)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "out" / "marker").exists()


def test_a_layer_that_the_files_lack_is_told(tmp_path: Path) -> None:
    torch.save({"label": "b", "representations": {2: torch.zeros(3, 64)}}, tmp_path / "b.pt")
    with pytest.raises(UnknownNameError, match=r"layer in .*b.pt '1'. Choose from: 2"):
        import_file("esm-pt", tmp_path / "b.pt", tmp_path, claim={"layer": 1})


def columns(**changes: pa.Array | None) -> pa.Table:
    pooled = pa.FixedSizeListArray.from_arrays(pa.array(GOOD["b"].mean(0)), 64)
    found = {
        "id": pa.array(["b"]),
        "sequence_key": pa.array([sequence_key("MKV", "protein")], pa.binary(16)),
        "mean": pooled,
    }
    return pa.table({name: column for name, column in {**found, **changes}.items() if column is not None})


PARQUET: dict[str, tuple[dict[str, pa.Array | None], str]] = {
    "no id": ({"id": None}, "column 'id' is missing, expected string"),
    "numbers as id": ({"id": pa.array([7])}, "column 'id' is int64, expected string"),
    "no key": ({"sequence_key": None}, "column 'sequence_key' is missing"),
    "keys as text": ({"sequence_key": pa.array(["x"])}, "'sequence_key' is string, expected fixed_size_binary"),
    "no embedding": ({"mean": None}, "column 'mean' is missing"),
    "lists of any length": (
        {"mean": pa.array([[1.0, 2.0]])},
        r"column 'mean' is list<.*expected fixed_size_list<float>",
    ),
    "a null": ({"id": pa.array([None], pa.string())}, "has a null"),
    "a null embedding": ({"mean": pa.array([None], pa.list_(pa.float32(), 64))}, "has a null"),
    "a null number": ({"mean": pa.array([[None] + [1.0] * 63], pa.list_(pa.float32(), 64))}, "has a null"),
    "a null token": ({"tokens": pa.array([[None, [1.0] * 64]], pa.list_(pa.list_(pa.float32(), 64)))}, "has a null"),
}


@pytest.mark.parametrize("case", PARQUET)
def test_tables_that_cannot_be_right(tmp_path: Path, case: str) -> None:
    changes, message = PARQUET[case]
    pq.write_table(columns(), tmp_path / "good.parquet")
    import_file("parquet", tmp_path / "good.parquet", tmp_path, claim={"source": "good"})
    pq.write_table(columns(**changes), tmp_path / "x.parquet")
    with pytest.raises(InvalidInputError, match=message):
        import_file("parquet", tmp_path / "x.parquet", tmp_path)


def test_an_annotated_matrix_without_the_embedding_names_what_it_has(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("anndata")
    study.export("h5ad", tmp_path / "x.h5ad")
    with pytest.raises(UnknownNameError, match=r"X_protein_fakes'\. Did you mean 'X_protein_fake'"):
        import_file("h5ad", tmp_path / "x.h5ad", tmp_path, encoder="fakes")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        del file["obs/gene_id"], file["obs/protein_key"]
        file["obs/protein_key"] = ["f" * 31, "f" * 32]
    with pytest.raises(InvalidInputError, match="is not 32 hexadecimal digits"):
        import_file("h5ad", tmp_path / "x.h5ad", tmp_path, encoder="fake")


@pytest.mark.parametrize("name", ["biotrainer", "bio-embeddings", "esm-pt", "h5ad", "parquet"])
@pytest.mark.parametrize("case", ["missing", "empty", "text", "directory"])
def test_what_is_no_such_file_is_told(tmp_path: Path, name: str, case: str) -> None:
    path = tmp_path / "x"
    {
        "missing": lambda: None,
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text(">a\nMKV\n"),
        "directory": path.mkdir,
    }[case]()
    with pytest.raises(InvalidInputError) as error:
        import_file(name, path, tmp_path)
    assert "\n" not in str(error.value) and str(path) in str(error.value) and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["biotrainer", "bio-embeddings", "esm-pt", "h5ad", "parquet"])
def test_damage_is_told_in_one_line(study: Study, tmp_path: Path, name: str) -> None:
    pytest.importorskip("anndata")
    study.export(name, tmp_path / "out")
    files = [tmp_path / "out"] if (tmp_path / "out").is_file() else sorted((tmp_path / "out").iterdir())
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(60):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 8):
            damaged[place] = rng.integers(256)
        file.write_bytes(bytes(damaged[: rng.integers(1, len(whole))] if i % 3 == 0 else damaged))
        try:
            study.import_(name, tmp_path / "out", tmp_path / f"cache{i}")
        except EmbedCacheError as error:
            refused += 1
            assert "\n" not in str(error)
        file.write_bytes(whole)
    assert refused > 15
    assert study.import_(name, tmp_path / "out", tmp_path / "cache")[0].imported == 2


def test_groups_without_end_are_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = file["/"]
    with pytest.raises(InvalidInputError, match="groups in groups without end"):
        import_file("biotrainer", tmp_path / "x.h5", tmp_path)


def test_a_mapping_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    hdf5(tmp_path / "out" / "embeddings_file.h5", {"0": GOOD["b"]})
    (tmp_path / "out" / "mapping_file.csv").write_text("new,old\n0,b\n")
    with pytest.raises(InvalidInputError, match=r"mapping_file\.csv is not the mapping"):
        import_file("bio-embeddings", tmp_path / "out", tmp_path)
