"""Kernel ridge on pooled embeddings against scikit-learn, and its limits."""

import numpy as np
import pytest
from fake_study import FakeStudy, make_study
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import StandardScaler

from heads import kernel
from heads.baselines import KERNEL, fit_baseline
from heads.config import ModelConfig
from heads.kernel import KERNELS, PENALTIES, kernel_groups, kernel_predictions
from heads.setup import open_study


def make_data(n: int = 120, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = [rng.standard_normal((n, 5)).astype(np.float32), rng.standard_normal((n, 9)).astype(np.float32)]
    targets = np.stack([np.sin(groups[0][:, 0] * 2) + groups[1][:, 1] ** 2, groups[0].sum(1)], axis=1)
    return groups, targets + 0.1 * rng.standard_normal(targets.shape)


ROWS = {"train": np.arange(80), "validation": np.arange(80, 100), "rows": np.arange(100, 120)}


@pytest.mark.parametrize("tried", KERNELS, ids=str)
def test_it_is_kernel_ridge_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, tried: tuple[str, float]) -> None:
    groups, targets = make_data()
    monkeypatch.setattr(kernel, "KERNELS", (tried,))
    found = kernel_predictions(groups, targets, **ROWS)
    assert found.kernel == tried and found.penalty in PENALTIES
    scaled = [StandardScaler().fit(group[:80]).transform(group) for group in groups]
    kind, gamma = found.kernel
    distances = [euclidean_distances(x) / x.shape[1] ** 0.5 for x in scaled]
    whole = sum(np.exp(-gamma * (d**2 if kind == "gaussian" else d)) for d in distances) / 2
    model = KernelRidge(alpha=found.penalty, kernel="precomputed")
    mean = targets[:80].mean(0)
    expected = model.fit(whole[:80, :80], targets[:80] - mean).predict(whole[100:, :80]) + mean
    np.testing.assert_allclose(found.predictions, expected, atol=2e-5)


def test_unmeasured_cells_do_not_count() -> None:
    groups, targets = make_data()
    holes = targets.copy()
    holes[:80:3, 1] = np.nan
    found = kernel_predictions(groups, holes, **ROWS)
    measured = np.flatnonzero(~np.isnan(holes[:80, 1]))
    alone = kernel_predictions(groups, targets[:, 1:], **{**ROWS, "train": measured})
    whole = kernel_predictions(groups, targets, **ROWS)
    assert np.isfinite(found.predictions).all()
    assert np.abs(found.predictions[:, 1] - whole.predictions[:, 1]).max() > 1e-3, "fewer rows were fitted"
    assert np.corrcoef(found.predictions[:, 1], alone.predictions[:, 0])[0, 1] > 0.95


def test_few_landmarks_come_near_all(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, targets = make_data(400)
    rows = {"train": np.arange(300), "validation": np.arange(300, 350), "rows": np.arange(350, 400)}
    whole = kernel_predictions(groups, targets, **rows).predictions
    monkeypatch.setattr(kernel, "_LANDMARKS", 200)
    monkeypatch.setattr(kernel, "_AT_ONCE", 64)
    few = kernel_predictions(groups, targets, **rows).predictions
    assert 0.9 < np.corrcoef(few[:, 0], whole[:, 0])[0, 1] < 1 - 1e-9


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=30)


def test_a_study_gives_means_and_parts_of_each_modality(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_study(study.dataset, study.cache, ModelConfig())
    assert [group.shape[1] for group in kernel_groups(opened.sources.values())] == [9, 64, 17, 128, 13, 96]
    found = fit_baseline(KERNEL, opened, opened.rows["test"])
    assert found.predictions.shape == (len(opened.rows["test"]), 3) and np.isfinite(found.predictions).all()
    monkeypatch.setattr(kernel, "_MOST_ROWS", 1)
    assert [group.shape[1] for group in kernel_groups(opened.sources.values())] == [9, 17, 13]
