"""What other programs find in our exports, read with their own libraries."""

import json
import subprocess
import sys
from hashlib import md5, sha256
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from exchange_study import HARD_IDS, Study, make_store, make_study
from fakes import fake_spec

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError
from embedcache.exchange.export import export_embeddings
from embedcache.exchange.names import escape_name, id_path, unescape_name
from embedcache.exchange.parquet import GROUP_BYTES
from embedcache.sequences import sequence_key

SEQUENCES = {"a": "MKVLAAG", "twin": "MKVLAAG", "b": "MKV", "none": None, "c": "W" * 40}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    targets = np.array([[1.5, 0.1], [np.nan, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 7.0]])
    return make_study(tmp_path_factory.mktemp("study"), SEQUENCES, targets=targets, store_dtype="float16")


def biotrainer_hash(sequence: str) -> str:
    return sha256(f"{sequence}_{len(sequence)}".encode()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pooled", [False, True], ids=["tokens", "pooled"])
def test_biotrainer_finds_a_sequence_by_its_hash(study: Study, tmp_path: Path, pooled: bool, dtype: str) -> None:
    study.export("biotrainer", tmp_path / "x.h5", pooled=pooled, dtype=dtype)
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file) == {biotrainer_hash(sequence) for sequence in study.sequences.values()}
        assert len(file) == 3 < len(study.sequences)
        for identifier, sequence in study.sequences.items():
            found = file[biotrainer_hash(sequence)]
            expected = study.mean(identifier) if pooled else study.rows(identifier)
            assert found.dtype == dtype and np.array_equal(found[()], expected.astype(dtype))
            assert found.shape[:-1] == (() if pooled else (len(sequence),)) and found.compression is None
        twins = file[biotrainer_hash("MKVLAAG")]
        assert twins.attrs["original_id"] == "a" and json.loads(twins.attrs["all_ids"]) == ["a", "twin"]
        assert file.attrs["model_name"] == "fake"
        record = json.loads(file.attrs["embedcache"])
        assert EncoderSpec.from_json(record["encoder"]) == study.spec and record["random_weights"]
        assert record["pooled"] == pooled and record["dataset"]["labels"] == ["simulated"]


@pytest.mark.parametrize("pooled", [False, True], ids=["tokens", "pooled"])
def test_data_sets_named_by_id_hold_every_id(tmp_path: Path, pooled: bool) -> None:
    study = make_study(tmp_path, dict.fromkeys(HARD_IDS, "MKVLAAG"))
    study.export("biotrainer", tmp_path / "x.h5", pooled=pooled, names="id")
    with h5py.File(tmp_path / "x.h5") as file:
        assert sorted(found.attrs["original_id"] for found in file.values()) == sorted(HARD_IDS)
        assert all(isinstance(found, h5py.Dataset) for found in file.values())
        assert "a" in file and "a b" in file  # what needs no escape has none
        assert {unescape_name(name) for name in file} == set(HARD_IDS)


@pytest.mark.parametrize("names", ["sequence", "id"])
def test_bio_embeddings_finds_sequences_through_its_mapping(study: Study, tmp_path: Path, names: str) -> None:
    study.export("bio-embeddings", tmp_path / "x", names=names)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        "embeddings_file.h5",
        "reduced_embeddings_file.h5",
        "mapping_file.csv",
    }
    mapping = pd.read_csv(tmp_path / "x" / "mapping_file.csv", index_col=0)
    mapping.index = mapping.index.map(str)
    assert list(mapping.columns) == ["original_id", "sequence_length"]
    assert sorted(mapping["original_id"]) == sorted(study.sequences)
    with (
        h5py.File(tmp_path / "x" / "embeddings_file.h5") as tokens,
        h5py.File(tmp_path / "x" / "reduced_embeddings_file.h5") as means,
    ):
        assert len(tokens) == len(means) == (3 if names == "sequence" else 4)
        for name, identifier, length in mapping.itertuples():
            assert np.array_equal(tokens[name][()], study.rows(identifier)) and len(tokens[name]) == length
            assert np.array_equal(means[name][()], study.mean(identifier))
            sequence = study.sequences[identifier]
            assert name == md5(sequence.encode()).hexdigest() if names == "sequence" else name.isdigit()
            assert names == "sequence" or tokens[name].attrs["original_id"] == identifier


def test_pooled_bio_embeddings_have_no_file_of_rows(study: Study, tmp_path: Path) -> None:
    study.export("bio-embeddings", tmp_path / "x", pooled=True)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "mapping_file.csv",
        "reduced_embeddings_file.h5",
    ]


@pytest.mark.parametrize("pooled", [False, True], ids=["tokens", "pooled"])
def test_torch_loads_a_file_an_id(study: Study, tmp_path: Path, pooled: bool) -> None:
    study.export("esm-pt", tmp_path / "x", pooled=pooled)
    files = {path.stem: path for path in (tmp_path / "x").glob("*.pt")}
    assert set(files) == set(study.sequences)
    for identifier, file in files.items():
        found = torch.load(file, weights_only=True)
        kind = "mean_representations" if pooled else "representations"
        assert set(found) == {"label", kind} and found["label"] == identifier and set(found[kind]) == {-1}
        values = found[kind][-1]
        expected = study.mean(identifier) if pooled else study.rows(identifier)
        assert values.dtype == torch.float32 and np.array_equal(values.numpy(), expected)
        assert file.stat().st_size < 4 * values.numel() + 3000  # not the shard that the rows lie in


def test_the_layer_of_a_torch_file_is_counted_as_fair_esm_counts(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKV"], architecture={"layers": 6})
    study.export("esm-pt", tmp_path / "x")
    assert set(torch.load(tmp_path / "x" / "p0.pt", weights_only=True)["representations"]) == {6}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_arrow_reads_the_columns_that_were_promised(study: Study, tmp_path: Path, dtype: str) -> None:
    study.export("parquet", tmp_path / "x.parquet", dtype=dtype)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    arrow = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    assert [(field.name, field.type) for field in file.schema_arrow] == [
        ("id", pa.string()),
        ("sequence_key", pa.binary(16)),
        ("mean", pa.list_(pa.float32(), 12)),
        ("tokens", pa.list_(pa.list_(arrow, 12))),
    ]
    assert EncoderSpec.from_json(json.loads(file.schema_arrow.metadata[b"embedcache"])) == study.spec
    group = file.metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"UNCOMPRESSED"}
    frame = file.read().to_pandas().set_index("id")
    assert list(frame.index) == list(study.sequences)  # every ID, in the order of the samples
    for identifier, sequence in study.sequences.items():
        row = frame.loc[identifier]
        assert row["sequence_key"] == sequence_key(sequence, "protein")
        assert np.array_equal(row["mean"], study.mean(identifier))
        assert np.array_equal(np.stack(row["tokens"]), study.rows(identifier).astype(dtype))


def test_pooled_parquet_has_no_tokens(study: Study, tmp_path: Path) -> None:
    study.export("parquet", tmp_path / "x.parquet", pooled=True)
    assert pq.read_schema(tmp_path / "x.parquet").names == ["id", "sequence_key", "mean"]


def test_row_groups_are_cut_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert GROUP_BYTES == 64 << 20
    monkeypatch.setattr("embedcache.exchange.parquet.GROUP_BYTES", 4000)
    study = make_study(tmp_path, ["M" * 30 + "KV"[i % 2] * (i + 1) for i in range(9)])  # 1,500 to 1,900 bytes each
    study.export("parquet", tmp_path / "x.parquet", dtype="float32")
    file = pq.ParquetFile(tmp_path / "x.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sum(sizes) == 9 and max(sizes) == 3


def test_anndata_reads_samples_targets_and_pooled_embeddings(study: Study, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    study.export("h5ad", tmp_path / "x.h5ad")
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert list(found.obs_names) == list(SEQUENCES) and list(found.var_names) == ["t0", "t1"]
    assert list(found.obs["gene_id"]) == [f"g{i}" for i in range(5)] and found.obs["gene_name"].isna().tolist()[1]
    assert list(found.obs["split"]) == ["train", "validation", "test", "train", "train"]
    assert np.array_equal(found.X, [[1.5, 0.1], [np.nan, 2], [3, 4], [5, 6], [0, 7]], equal_nan=True)
    pooled = found.obsm["X_protein_fake"]
    assert pooled.dtype == np.float32 and pooled.shape == (5, 12)
    for row, identifier in zip(pooled, SEQUENCES, strict=True):
        is_missing = SEQUENCES[identifier] is None
        assert np.isnan(row).all() if is_missing else np.array_equal(row, study.mean(identifier))
        key = found.obs.loc[identifier, "protein_key"]
        assert pd.isna(key) if is_missing else key == sequence_key(study.sequences[identifier], "protein").hex()
    record = json.loads(found.uns["embedcache"])
    assert EncoderSpec.from_json(record["encoders"]["X_protein_fake"]) == study.spec
    assert "dna_key" not in found.obs and "random_weights" not in record


def test_anndata_holds_several_modalities_and_needs_no_targets(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    from embedcache.prepare.fasta import prepare_fasta

    (tmp_path / "r.fa").write_text(">a\nACGTACGTA\n>b\nACGTTT\n")
    (tmp_path / "p.fa").write_text(">a\nMKV\n")
    prepare_fasta(output=tmp_path / "dataset", rna=tmp_path / "r.fa", protein=tmp_path / "p.fa")
    make_store(tmp_path / "cache", fake_spec(modality="rna", width=5), ["ACGTACGTA", "ACGTTT"])
    make_store(tmp_path / "cache", fake_spec(), ["MKV"])
    report = export_embeddings(
        format="h5ad",
        modalities=["rna", "protein"],
        output=tmp_path / "x.h5ad",
        dataset=tmp_path / "dataset",
        cache=tmp_path / "cache",
    )
    assert report.ids == {"rna": 2, "protein": 1} and "random weights" in str(report)
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert found.obsm["X_rna_fake"].shape == (2, 5) and found.obsm["X_protein_fake"].shape == (2, 12)
    assert np.isnan(found.obsm["X_protein_fake"]).all(1).tolist() == [False, True] and found.n_vars == 0


@pytest.mark.parametrize("store_dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["biotrainer", "parquet", "esm-pt"])
def test_every_store_is_exported_as_it_reads(tmp_path: Path, name: str, store_dtype: str) -> None:
    study = make_study(tmp_path, ["MKVLAAG", "MK"], store_dtype=store_dtype)
    study.export(name, tmp_path / "x")
    if name == "biotrainer":
        with h5py.File(tmp_path / "x") as file:
            rows = file[biotrainer_hash("MKVLAAG")][()]
    elif name == "parquet":
        column = pq.read_table(tmp_path / "x")["tokens"]
        rows = np.stack(column.to_pandas()[0])
        assert rows.dtype == ("float16" if store_dtype == "float16" else "float32")
    else:
        rows = torch.load(tmp_path / "x" / "p0.pt", weights_only=True)["representations"][-1].numpy()
    assert rows.shape == (7, 12) and np.array_equal(rows, study.rows("p0"))


def test_a_number_over_float16_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKVLAAG"], store_dtype="bfloat16")
    store = type(study.store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "decode", lambda self, rows: torch.full(rows.shape, 7e4))
        with pytest.raises(InvalidInputError, match=r"'p0' has 7e\+04, more than float16 can hold\. .*float32"):
            study.export("biotrainer", tmp_path / "x.h5", dtype="float16")
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("identifier", HARD_IDS)
def test_names_come_back_as_the_id(identifier: str) -> None:
    path = id_path(identifier, ".pt")
    assert not path.is_absolute() and ".." not in path.parts
    assert all(len(part) < 255 and part.isascii() for part in path.parts) and not path.parts[0].startswith(".")
    assert unescape_name(escape_name(identifier)) == identifier and "/" not in escape_name(identifier)


def test_no_two_ids_share_a_name() -> None:
    hard = [*HARD_IDS, "tr%7CA", "tr|A", "%", "%25", "%2F", "/", "N" * 200, "N" * 201, "N" * 400, "A/b", "A%/b", ""]
    assert len({id_path(one, ".pt") for one in hard}) == len({escape_name(one) for one in hard}) == len(hard)


def test_the_commands_start_without_the_libraries_of_the_formats() -> None:
    code = (
        "import embedcache.commands, sys; print({'torch', 'h5py', 'pyarrow', 'anndata', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stdout == "set()\n"
