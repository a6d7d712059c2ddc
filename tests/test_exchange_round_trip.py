"""What goes out comes back in, bit for bit where no rounding was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchange_study import HARD_IDS, Study, make_dataset, make_study
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache.care import verify_cache
from embedcache.info import describe_cache, format_cache
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore

FORMATS = {
    "biotrainer by hash": ("biotrainer", {}),
    "biotrainer by id": ("biotrainer", {"names": "id"}),
    "bio_embeddings by hash": ("bio-embeddings", {}),
    "bio_embeddings by number": ("bio-embeddings", {"names": "id"}),
    "esm": ("esm-pt", {}),
    "parquet": ("parquet", {"dtype": "float32"}),
}
POOLED = {name: (chosen, {**options, "pooled": True}) for name, (chosen, options) in FORMATS.items()} | {
    "h5ad": ("h5ad", {})
}
del POOLED["parquet"][1]["dtype"]

residues = st.text("ACDEFGHIKLMNPQRSTVWY", min_size=1, max_size=60)
ids = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=330) | st.sampled_from(
    HARD_IDS
)


def same(found: EmbeddingStore, study: Study, *, pooled: bool = False, dtype: str = "float32") -> bool:
    expected = {
        sequence_key(sequence, study.spec.modality): study.mean(name)[None] if pooled else study.rows(name)
        for name, sequence in study.sequences.items()
    }
    return set(found) == set(expected) and all(
        found[key].dtype == dtype and np.array_equal(found[key], rows.astype(dtype)) for key, rows in expected.items()
    )


@pytest.mark.parametrize("case", FORMATS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences=st.dictionaries(ids, residues, min_size=1, max_size=8))
def test_rows_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, case: str, sequences: dict[str, str]
) -> None:
    path, (name, options) = tmp_path_factory.mktemp("x"), FORMATS[case]
    study = make_study(path, sequences, store_dtype="float32")
    study.export(name, path / "out", **options)
    report, store = study.import_(name, path / "out", path / "again")
    assert same(store, study) and store.damaged() == []
    assert report.imported == len(set(sequences.values())) and report.lacking == report.unknown == 0


@pytest.mark.parametrize("case", POOLED)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences=st.dictionaries(ids, residues, min_size=1, max_size=8), was_pooled=st.booleans())
def test_means_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, case: str, sequences: dict[str, str], was_pooled: bool
) -> None:
    if case == "h5ad":
        pytest.importorskip("anndata", reason="the extra anndata is not installed")
    path, (name, options) = tmp_path_factory.mktemp("x"), POOLED[case]
    study = make_study(path, sequences, store_dtype="float32", pooling="mean" if was_pooled else "none")
    study.export(name, path / "out", **options)
    _, store = study.import_(name, path / "out", path / "again")
    assert store.spec.pooling == "mean" and same(store, study, pooled=True)


@pytest.mark.parametrize("case", ["biotrainer by hash", "bio_embeddings by number", "parquet"])
@pytest.mark.parametrize("store_dtype", ["float32", "float16", "bfloat16", "int8"])
def test_float16_rounds_once_and_is_kept(tmp_path: Path, case: str, store_dtype: str) -> None:
    name, options = FORMATS[case]
    study = make_study(tmp_path, ["MKVLAAG", "MK", "MK", "W" * 300], store_dtype=store_dtype)
    study.export(name, tmp_path / "out", **{**options, "dtype": "float16"})
    _, store = study.import_(name, tmp_path / "out", tmp_path / "again")
    assert store.dtype == "float16" and same(store, study, dtype="float16")
    _, wide = study.import_(name, tmp_path / "out", tmp_path / "again", claim={"store_dtype": "float32"})
    assert wide.dtype == "float32" and wide.root != store.root
    assert all(np.array_equal(wide[key], store[key].astype(np.float32)) for key in store)


def test_parquet_of_a_float16_store_comes_back_without_rounding(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKVLAAG", "MK"], store_dtype="float16")
    study.export("parquet", tmp_path / "out")
    assert same(study.import_("parquet", tmp_path / "out", tmp_path / "again")[1], study, dtype="float16")


@pytest.mark.parametrize("modality", ["rna", "dna"])
@pytest.mark.parametrize("case", FORMATS)
def test_tokens_of_several_letters_come_back(tmp_path: Path, case: str, modality: Any) -> None:
    name, options = FORMATS[case]
    study = make_study(tmp_path, ["ACGTN", "ACGT"], modality=modality, tokens="bins-2", store_dtype="float32")
    assert study.rows("p0").shape == (3, 12)
    study.export(name, tmp_path / "out", **options)
    assert same(study.import_(name, tmp_path / "out", tmp_path / "again")[1], study)


def test_shards_are_filled_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, ["MKVW"[i % 4] * (i + 20) for i in range(60)], store_dtype="float32", width=12)
    study.export("biotrainer", tmp_path / "out")
    monkeypatch.setattr("embedcache.store.layout.SHARD_BYTES", 1 << 14)
    from embedcache.exchange import importing
    from embedcache.store import create_store

    monkeypatch.setattr(importing, "create_store", lambda *a, **k: create_store(*a, **k, shard_bytes=1 << 14))
    _, store = study.import_("biotrainer", tmp_path / "out", tmp_path / "again")
    assert same(store, study) and len(store.tasks) > 5 and store.index_is_current


def test_an_imported_store_is_another_than_a_built_one_and_says_so(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKVLAAG"], store_dtype="float32")
    study.export("biotrainer", tmp_path / "out")
    report, store = study.import_("biotrainer", tmp_path / "out", study.cache)
    assert store.spec.differing(study.spec) == ["adapter", "weights"] and report.digest == store.spec.digest
    assert store.spec.adapter == "imported/biotrainer" and store.spec.weights == "claimed:seed:0"
    assert store.spec.is_imported and store.spec.is_random and not study.spec.is_imported
    _, other = study.import_("biotrainer", tmp_path / "out", study.cache, claim={"source": "Ida's run"})
    assert other.spec.weights == "claimed:Ida's run" and other.spec.is_random and other.root != store.root
    infos = describe_cache(study.cache)
    assert sorted(info.is_imported for info in infos) == [False, True, True]
    assert format_cache(infos).count("random, imported") == 2
    assert not any(check.damages for check in verify_cache(study.cache).stores)


def test_an_imported_store_goes_out_and_in_again(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKVLAAG", "MK"], store_dtype="float32")
    study.export("biotrainer", tmp_path / "1.h5")
    _, first = study.import_("biotrainer", tmp_path / "1.h5", tmp_path / "cache1")
    again = Study(study.dataset, tmp_path / "cache1", study.sequences, first.spec)
    again.export("parquet", tmp_path / "2.parquet")
    _, second = again.import_("parquet", tmp_path / "2.parquet", tmp_path / "cache2")
    assert same(second, study) and second.spec.weights == "claimed:seed:0"
    assert second.spec.adapter == "imported/parquet"


def test_the_same_import_twice_does_the_work_once(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["MKVLAAG", "MK"], store_dtype="float32")
    study.export("parquet", tmp_path / "out")
    study.import_("parquet", tmp_path / "out", tmp_path / "again")
    before = sorted(path for path in (tmp_path / "again").rglob("*"))
    report, _ = study.import_("parquet", tmp_path / "out", tmp_path / "again")
    assert report.imported == 0 and report.present == 2 and "were there before" in str(report)
    assert sorted(path for path in (tmp_path / "again").rglob("*")) == before


def test_a_second_file_of_the_same_claim_adds_to_the_store(tmp_path: Path) -> None:
    one = make_study(tmp_path / "1", ["MKVLAAG", "MK"], store_dtype="float32")
    two = make_study(tmp_path / "2", ["MK", "WWW"], store_dtype="float32")
    for study in (one, two):
        study.export("biotrainer", study.cache.parent / "out")
        report, store = study.import_("biotrainer", study.cache.parent / "out", tmp_path / "again")
    assert report.imported == report.present == 1 and len(store) == 3 and len(store.tasks) == 2


def test_what_is_not_known_is_left_out_and_counted(tmp_path: Path) -> None:
    study = make_study(tmp_path / "1", {"a": "MKVLAAG", "twin": "MKVLAAG", "b": "MK"}, store_dtype="float32")
    study.export("esm-pt", tmp_path / "out")
    other = make_dataset(tmp_path / "other", {"a": "MKVLAAG", "z": "WW"}, "protein").path
    report, store = study.import_("esm-pt", tmp_path / "out", tmp_path / "again", dataset=other)
    assert (report.imported, report.unknown, report.lacking, report.repeated) == (1, 2, 1, 0) and len(store) == 1
    assert "2  embeddings left out" in str(report) and "1  sequences have no embedding" in str(report)
    both = make_dataset(tmp_path / "both", {"a": "MKVLAAG", "twin": "MKVLAAG"}, "protein").path
    assert study.import_("esm-pt", tmp_path / "out", tmp_path / "more", dataset=both)[0].repeated == 1
