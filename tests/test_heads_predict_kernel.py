"""The kernel of the tables as what predicts: on the dataset of the run, and on another one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fake_study import FakeStudy, fill_cache, make_dataset, make_study

from embedcache.errors import InvalidInputError
from heads import kernel
from heads.baselines import KERNEL, fit_baseline
from heads.config import ModelConfig, TrainConfig
from heads.metrics import mean_defined, r2_columns
from heads.predict import PredictResult, predict
from heads.train import train
from heads.trained import load_trained

MODEL = ModelConfig(modalities=("rna", "protein"), aggregator="concat", hidden=8)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=30)


@pytest.fixture(scope="module")
def run(study: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(epochs=1, batch_size=16, device="cpu")
    train(dataset=study.dataset, cache=study.cache, run=path, model=MODEL, config=config)
    return path


def values_of(result: PredictResult) -> np.ndarray:
    return pd.read_parquet(result.output).iloc[:, 2:].to_numpy()


def test_test_rows_get_what_the_tables_score(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    found = values_of(predict(run, study.dataset, study.cache, tmp_path / "p.parquet", by="kernel"))
    opened = load_trained(run, "cpu").study()
    rows = opened.rows["test"]
    of_table = fit_baseline(KERNEL, opened, rows).predictions
    np.testing.assert_allclose(found[rows], opened.scaler.undo(of_table), atol=1e-9)
    scaled = (found[rows] - np.array(opened.scaler.mean)) / np.array(opened.scaler.sd)
    score = mean_defined(r2_columns(opened.data.targets[rows], scaled))
    assert score == pytest.approx(mean_defined(r2_columns(opened.data.targets[rows], of_table)), abs=1e-9)
    by_run = values_of(predict(run, study.dataset, study.cache, tmp_path / "run.parquet"))
    assert np.abs(found - by_run).max() > 0.01


def test_another_dataset_of_the_same_transcripts_gets_the_same(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    bare = make_dataset(tmp_path / "bare", n_genes=30, targets=False)
    theirs = predict(run, bare.path, study.cache, tmp_path / "bare.parquet", by="kernel")
    ours = predict(run, study.dataset, study.cache, tmp_path / "own.parquet", by="kernel")
    np.testing.assert_allclose(values_of(theirs), values_of(ours), atol=1e-9)
    assert "by the kernel on pooled embeddings" in str(theirs)
    assert json.loads(pq.read_schema(theirs.output).metadata[b"isoheads"])["by"] == "kernel"


def test_new_genes_without_one_modality_are_predicted(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    new = make_dataset(tmp_path / "new", n_genes=5, seed=9, targets=False, modalities=("rna",))
    cache = Path(shutil.copytree(study.cache, tmp_path / "cache"))
    fill_cache(cache, new)
    result = predict(run, new.path, cache, tmp_path / "p.parquet", by="kernel")
    assert result.lacking["protein"] == result.n_transcripts == len(values_of(result))
    assert np.isfinite(values_of(result)).all() and values_of(result).std(axis=0).min() > 0


def test_few_new_rows_beside_many_of_training_have_the_same_groups(
    study: FakeStudy, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = make_dataset(tmp_path / "new", n_genes=2, targets=False)
    whole = values_of(predict(run, new.path, study.cache, tmp_path / "whole.parquet", by="kernel"))
    monkeypatch.setattr(kernel, "_MOST_ROWS", len(new.samples))  # parts for the few, but not for those of training
    means = values_of(predict(run, new.path, study.cache, tmp_path / "means.parquet", by="kernel"))
    assert means.shape == whole.shape and np.abs(means - whole).max() > 1e-6


def test_the_training_rows_have_to_be_there(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "run"))
    bare = make_dataset(tmp_path / "bare", n_genes=3, targets=False)
    away = study.dataset.with_name("away")
    study.dataset.rename(away)
    try:
        with pytest.raises(InvalidInputError, match=r"dataset"):
            predict(moved, bare.path, study.cache, tmp_path / "p.parquet", by="kernel")
        assert predict(moved, bare.path, study.cache, tmp_path / "q.parquet").by == "run"
        own = predict(moved, away, study.cache, tmp_path / "r.parquet", by="kernel")  # it is the dataset of the run
        assert np.isfinite(values_of(own)).all()
    finally:
        away.rename(study.dataset)
    assert not (tmp_path / "p.parquet").exists()
