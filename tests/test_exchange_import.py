"""What other tools wrote comes in: their names, filters, dtypes and claims."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from exchange_study import fasta, make_study

from embedcache.encoders.spec import EncoderSpec
from embedcache.exchange.claim import Claim
from embedcache.exchange.importing import import_embeddings
from embedcache.exchange.names import biotrainer_name, md5_name
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore

LISTED = Claim(encoder="tiny-random-protein")


def hdf5(path: Path, content: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file.create_dataset(name, data=values, **options)
            file[name].attrs["original_id"] = "of " + name[:5]
    return path


SEQUENCES = {"a": "MKVLAAG", "b": "MKV", "c": "W" * 30}
ROWS = {
    name: np.random.default_rng(i).standard_normal((len(s), 64)).astype("f4")
    for i, (name, s) in enumerate(SEQUENCES.items())
}


def import_file(name: Any, path: Path, tmp_path: Path, claim: Claim = LISTED, **options: Any) -> EmbeddingStore:
    options.setdefault("fasta", fasta(tmp_path / "x.fa", SEQUENCES))
    report = import_embeddings(
        format=name, modality="protein", claim=claim, input=path, cache=tmp_path / "cache", **options
    )
    return EmbeddingStore(Path(report.store))


def holds_rows(store: EmbeddingStore) -> bool:
    return all(np.array_equal(store[sequence_key(SEQUENCES[name], "protein")], rows) for name, rows in ROWS.items())


FILTERS = [
    {},
    {"compression": "gzip", "chunks": True},
    {"compression": "lzf"},
    {"shuffle": True, "fletcher32": True, "chunks": True},
]


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_any_filter_of_hdf5_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    content = {biotrainer_name(SEQUENCES[name]): rows for name, rows in ROWS.items()}
    assert holds_rows(import_file("biotrainer", hdf5(tmp_path / "x.h5", content, **options), tmp_path))


SPELLINGS: dict[str, Callable[[str], str]] = {"stop": lambda s: s + "*", "lower case": str.lower, "as it is": str}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_hash_is_known_however_the_tool_spelled_the_sequence(tmp_path: Path, spelling: str) -> None:
    content = {md5_name(SPELLINGS[spelling](SEQUENCES[name])): rows for name, rows in ROWS.items()}
    assert holds_rows(import_file("bio-embeddings", hdf5(tmp_path / "x.h5", content), tmp_path))


def test_uracil_is_known_by_its_hash(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "x.h5", {biotrainer_name("ACGUU"): np.ones((5, 12), "f4")})
    claim = Claim(encoder="own-rna", tokens="letter")
    (tmp_path / "r.fa").write_text(">r\nacguu\n")
    report = import_embeddings(
        format="biotrainer", modality="rna", claim=claim, input=path, cache=tmp_path / "c", fasta=tmp_path / "r.fa"
    )
    assert report.imported == 1 and EmbeddingStore(Path(report.store)).spec.model_id == "own-rna"


@pytest.mark.parametrize("prefix", ["", "group/"], ids=["root", "groups"])
def test_names_without_attribute_are_ids(tmp_path: Path, prefix: str) -> None:
    """As protspace and protembedder have them; an ID with a slash made groups."""
    named = {prefix + name: s for name, s in SEQUENCES.items()}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, rows in ROWS.items():
            file[prefix + name] = rows.mean(0)
    store = import_file("biotrainer", tmp_path / "x.h5", tmp_path, fasta=fasta(tmp_path / "y.fa", named))
    assert store.spec.pooling == "mean" and len(store) == 3
    assert np.array_equal(store[sequence_key("MKV", "protein")], ROWS["b"].mean(0)[None])


def test_an_id_that_looks_like_a_hash_is_an_id(tmp_path: Path) -> None:
    name = "0" * 64
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[name] = ROWS["b"]
    store = import_file("biotrainer", tmp_path / "x.h5", tmp_path, fasta=fasta(tmp_path / "y.fa", {name: "MKV"}))
    assert np.array_equal(store[sequence_key("MKV", "protein")], ROWS["b"])


def test_the_mapping_of_bio_embeddings_names_what_has_no_attribute(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with h5py.File(tmp_path / "out" / "embeddings_file.h5", "w") as file:
        for i, rows in enumerate(ROWS.values()):
            file[str(i)] = rows
    (tmp_path / "out" / "mapping_file.csv").write_text(",original_id,sequence_length\n0,a,7\n1,b,3\n2,c,30\n")
    assert holds_rows(import_file("bio-embeddings", tmp_path / "out", tmp_path))


@pytest.mark.parametrize("is_header", [False, True], ids=["id", "whole header"])
@pytest.mark.parametrize("kind", ["per_tok", "mean", "both"])
def test_files_of_fair_esm_come_in(tmp_path: Path, kind: str, is_header: bool) -> None:
    """As extract.py writes them: labels are whole headers, a slash in one made a folder."""
    for name, rows in ROWS.items():
        label = f"{name} of nothing a/b" if is_header else name
        content: dict[str, Any] = {"label": label}
        if kind != "mean":
            content["representations"] = {2: torch.from_numpy(rows).clone(), 0: torch.zeros(len(rows), 64)}
        if kind != "per_tok":
            content["mean_representations"] = {2: torch.from_numpy(rows.mean(0)), 0: torch.zeros(64)}
        file = tmp_path / "out" / f"{label}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, file)
    claim = Claim(encoder="tiny-random-protein", layer=-1)
    store = import_file("esm-pt", tmp_path / "out", tmp_path, claim=claim)
    assert store.spec.layer == -1 and store.spec.pooling == ("mean" if kind == "mean" else "none")
    if kind != "mean":
        assert holds_rows(store)
    if kind == "both":
        pooled = import_file("esm-pt", tmp_path / "out", tmp_path, claim=claim, pooled=True)
        assert pooled.spec.pooling == "mean" and pooled.n_tokens == 3


def test_bfloat16_of_torch_is_kept(tmp_path: Path) -> None:
    values = torch.randn(3, 64).bfloat16()
    torch.save({"label": "b", "representations": {1: values}}, tmp_path / "b.pt")
    store = import_file("esm-pt", tmp_path / "b.pt", tmp_path)
    assert store.dtype == "bfloat16" and store.spec.layer == 1
    assert np.array_equal(store[sequence_key("MKV", "protein")], values.float().numpy())


def test_a_cut_that_is_declared_is_taken(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "x.h5", {biotrainer_name(SEQUENCES["c"]): ROWS["c"][:22]})
    claim = Claim(encoder="tiny-random-protein", max_tokens=22, crop="keep-5-prime")
    store = import_file("biotrainer", path, tmp_path, claim=claim)
    assert store.spec.max_tokens == 22 and store.spec.crop == "keep-5-prime" and store.n_tokens == 22


def test_twins_may_differ_by_what_a_batch_changes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["twin"] = ROWS["a"], ROWS["a"] * (1 + 1e-6)
    names = fasta(tmp_path / "y.fa", {"a": "MKVLAAG", "twin": "MKVLAAG"})
    store = import_file("biotrainer", tmp_path / "x.h5", tmp_path, fasta=names)
    assert np.array_equal(store[sequence_key("MKVLAAG", "protein")], ROWS["a"])


def test_a_claim_becomes_the_spec(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "x.h5", {biotrainer_name("MKV"): np.ones((3, 320), "f4")})
    claim = Claim(encoder="esm2-8m", layer=3, dtype="float16", source="run 7")
    spec = import_file("biotrainer", path, tmp_path, claim=claim).spec
    assert (spec.name, spec.layer, spec.compute_dtype, spec.width) == ("esm2-8m", 3, "float16", 320)
    assert spec.weights == "claimed:run 7" and spec.model_id == "facebook/esm2_t6_8M_UR50D" and not spec.is_random
    plain = import_file("biotrainer", path, tmp_path, claim=Claim(encoder="esm2-8m", layer=6)).spec
    assert plain.layer == -1 and plain.weights == "claimed:facebook/esm2_t6_8M_UR50D"


CHANGES = [{"layer": 3}, {"dtype": "float16"}, {"source": "x"}, {"max_tokens": 20}, {"store_dtype": "float16"}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_claim_makes_another_store(tmp_path: Path, change: dict[str, Any]) -> None:
    path = hdf5(tmp_path / "x.h5", {biotrainer_name("MKV"): np.ones((3, 320), "f4")})
    one = import_file("biotrainer", path, tmp_path, claim=Claim(encoder="esm2-8m"))
    other = import_file("biotrainer", path, tmp_path, claim=Claim(encoder="esm2-8m", **change))
    assert one.root != other.root and isinstance(other.spec, EncoderSpec)


def test_settings_that_our_own_file_records_need_not_be_said(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKVLAAG"], store_dtype="float32", layer=1, max_tokens=50, crop="center")
    study.export("bio-embeddings", tmp_path / "out")
    _, store = study.import_("bio-embeddings", tmp_path / "out", tmp_path / "again")
    assert store.spec.differing(study.spec) == ["adapter", "weights"]
    report, _ = study.import_(
        "bio-embeddings", tmp_path / "out", tmp_path / "again", claim={"layer": 1, "crop": "center"}
    )
    assert report.present == 1 and json.dumps(report.to_json())
