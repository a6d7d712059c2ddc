"""Baselines and the scorer where data are poor: columns that do not vary, equal rows, few rows of a kind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_study import FakeStudy, make_study

from heads import evaluate as evaluation
from heads import kernel
from heads.baselines import ALPHAS, POOLED, TISSUE_MEAN, fit_baseline, mean_features, ridge_predictions
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import _Scorer, evaluate
from heads.kernel import KERNELS, PENALTIES, kernel_predictions
from heads.metrics import r2_columns
from heads.scaling import TissueScaler
from heads.setup import open_study
from heads.train import train
from heads.trained import load_trained


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=30)


@pytest.fixture
def run(study: FakeStudy, tmp_path: Path) -> Path:
    model = ModelConfig(modalities=("dna", "protein"), aggregator="concat", hidden=4)
    config = TrainConfig(epochs=1, batch_size=16, device="cpu")
    train(dataset=study.dataset, cache=study.cache, run=tmp_path / "run", model=model, config=config)
    return tmp_path / "run"


# --- kernel ---


def two_groups(n: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = [rng.standard_normal((n, 4)).astype(np.float32), rng.standard_normal((n, 3)).astype(np.float32)]
    return groups, np.stack([groups[0][:, 0] + groups[1][:, 1], groups[0].sum(1)], axis=1).astype(np.float64)


ROWS = {"train": np.arange(50), "validation": np.arange(50, 65), "rows": np.arange(65, 80)}


def test_a_column_that_did_not_vary_in_training_says_nothing_later() -> None:
    groups, targets = two_groups(80)
    groups[1][:, 2] = 3.0
    wanted = kernel_predictions(groups, targets, **ROWS)
    groups[1][50:, 2] = np.linspace(-50, 50, 30)
    np.testing.assert_array_equal(kernel_predictions(groups, targets, **ROWS).predictions, wanted.predictions)


def test_without_a_score_the_first_kernel_and_penalty_are_taken() -> None:
    groups, targets = two_groups(80)
    targets[50:65] = np.nan
    found = kernel_predictions(groups, targets, **ROWS)
    assert (found.kernel, found.penalty) == (KERNELS[0], PENALTIES[0])
    _, alpha = ridge_predictions(groups[0].astype(np.float64), targets, **ROWS)
    assert alpha == ALPHAS[0]


def test_a_tissue_that_was_never_measured_in_training_is_predicted_by_nothing_learnt() -> None:
    groups, targets = two_groups(80)
    targets[:50, 1] = np.nan
    found = kernel_predictions(groups, targets, **ROWS)
    assert np.isfinite(found.predictions).all()
    assert (found.predictions[:, 1] == 0).all()


def test_landmarks_that_are_equal_can_be_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, targets = two_groups(80)
    for group in groups:
        group[:50] = np.tile(group[:5], (10, 1))
    targets[:50] = np.tile(targets[:5], (10, 1))
    monkeypatch.setattr(kernel, "_LANDMARKS", 20)
    monkeypatch.setattr(kernel, "PENALTIES", (1e-9,))
    assert np.isfinite(kernel_predictions(groups, targets, **ROWS).predictions).all()


def test_landmarks_are_drawn_from_all_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come sorted, as a dataset by chromosome does: the first ones are not like the last ones."""
    groups, targets = two_groups(400)
    for group in groups:
        group[:150] += 30.0
    rows = {"train": np.arange(300), "validation": np.arange(300, 350), "rows": np.arange(350, 400)}
    monkeypatch.setattr(kernel, "_LANDMARKS", 100)
    found = kernel_predictions(groups, targets - targets.mean(axis=0), **rows)
    assert r2_columns((targets - targets.mean(axis=0))[350:], found.predictions).min() > 0.3


# --- ridge and means ---


def test_the_tissue_mean_has_no_rank() -> None:
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((50, 30))
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    train_rows = np.arange(50)
    found, alpha = ridge_predictions(
        np.zeros((50, 0)), targets, train=train_rows, validation=train_rows, rows=train_rows
    )
    assert alpha is None
    assert (found == 0).all(), "rounding errors would rank tissues"


def test_means_have_a_column_for_what_some_rows_lack(study: FakeStudy) -> None:
    opened = open_study(study.dataset, study.cache, ModelConfig())
    found = mean_features(opened)
    assert found.shape == (len(opened.data), 8 + 16 + 12 + 1), "nobody lacks dna or rna"
    lacks = np.array([key is None for key in opened.dataset.keys("protein")])
    np.testing.assert_array_equal(found[:, -1], lacks)
    assert not found[lacks, 24:36].any()
    for row in (0, 7):
        for source, columns in zip(opened.sources.values(), (slice(0, 8), slice(8, 24), slice(24, 36)), strict=True):
            tokens = source.decode(source.packed(np.array([row])).values).double()
            mean = tokens.mean(0) if len(tokens) else torch.zeros(tokens.shape[1])
            np.testing.assert_allclose(found[row, columns], mean, atol=1e-6)
    rows = opened.rows["test"]
    assert fit_baseline(POOLED, opened, rows).n_features == 37
    assert fit_baseline(TISSUE_MEAN, opened, rows).n_features == 0


# --- the scorer ---


def scorer(coding: np.ndarray, scaler: TissueScaler | None = None) -> _Scorer:
    targets = np.random.default_rng(1).standard_normal((8, 2))
    genes = np.repeat(np.arange(4), 2)
    return _Scorer(targets, genes, genes, coding, scaler, 20)


def test_parts_of_fewer_than_two_rows_are_not_scored() -> None:
    predictions = np.random.default_rng(2).standard_normal((8, 2))
    for n in range(4):
        found = scorer(np.arange(8) < n).score("x", predictions, predictions, {})
        assert (found.coding is None) == (n < 2)
        assert found.noncoding is not None
        assert found.noncoding.n_transcripts == 8 - n
    assert found.r2_lead is None, "the run does not lead itself"
    assert scorer(np.arange(8) < 3).score("x", predictions, predictions + 1, {}).r2_lead is not None


def test_usage_is_scored_only_on_tpm() -> None:
    predictions, coding = np.random.default_rng(2).standard_normal((8, 2)), np.arange(8) < 4
    assert scorer(coding).score("x", predictions, predictions, {}).differential is None
    scaler = TissueScaler(tissues=("a", "b"), mean=(2.0, 2.0), sd=(1.0, 1.0))
    found = scorer(coding, scaler).score("x", predictions, predictions, {}).differential
    assert found is not None
    assert found.n_genes <= 4


def test_what_is_counted_of_test_rows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_trained(run, "cpu")
    opened = trained.study()
    rows, samples = opened.rows["test"], opened.dataset.samples
    has_protein = samples["protein_key"].iloc[rows].notna()
    first = rows[int(np.flatnonzero(has_protein)[0])]
    samples.loc[first, "protein_key"] = None  # its CDS stays: it codes, though nobody gave the protein
    monkeypatch.setitem(opened.dataset.info, "target_unit", "rank")
    found = evaluation._score(trained, opened, 20)
    assert found.n_coding == int(has_protein.sum())
    assert 0 < found.n_coding < found.n_transcripts == len(rows)
    assert found.n_genes == samples["gene_id"].iloc[rows].nunique()
    assert found.lacking == {"dna": 0, "protein": int((~has_protein).sum())}
    assert [model.differential for model in found.models] == [None] * len(found.models)


def test_predictions_that_a_sweep_left_are_kept(run: Path) -> None:
    kept = run / "test_predictions.parquet"
    kept.write_bytes(b"of a sweep")
    result = evaluate(run, device="cpu", resamples=20)
    assert kept.read_bytes() == b"of a sweep"
    assert json.loads((run / "test.json").read_text())["models"][0]["name"] == "this run"
    assert result.models[0].differential is not None
