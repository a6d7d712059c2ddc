"""Metrics and intervals against scikit-learn and scipy on the rows written out one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import r2_score

from heads.metrics import Scores, WithinGene, r2_columns, score, within_gene
from heads.statistics import GeneSums, difference_by_gene, draw_genes, interval_by_gene

Array = NDArray[np.float64]


def study(seed: int, n: int = 60, ties: bool = False) -> tuple[Array, Array, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    genes = np.unique(rng.integers(0, n // 3, n), return_inverse=True)[1]
    y = rng.standard_normal((n, 3)) + rng.standard_normal((n // 3, 3))[genes]
    p = y + rng.standard_normal((n, 3))
    if ties:
        y, p = y.round(), p.round()
    y[rng.random(y.shape) < 0.25] = np.nan
    return y, p, genes.astype(np.int64)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.booleans())
def test_scores_equal_scikit_learn_and_scipy(seed: int, ties: bool) -> None:
    y, p, _ = study(seed, ties=ties)
    found, m = score(y, p), ~np.isnan(y)
    r2 = [r2_score(y[m[:, k], k], p[m[:, k], k]) for k in range(3)]
    rho = [stats.spearmanr(y[m[:, k], k], p[m[:, k], k])[0] for k in range(3)]
    np.testing.assert_allclose(found.r2_by_tissue, r2, atol=1e-12)
    np.testing.assert_allclose(found.spearman_by_tissue, rho, atol=1e-12)
    np.testing.assert_allclose([found.r2, found.spearman], [np.mean(r2), np.mean(rho)], atol=1e-12)
    np.testing.assert_allclose(found.r2_pooled, r2_score(y[m], p[m]), atol=1e-12)
    np.testing.assert_allclose(found.spearman_pooled, stats.spearmanr(y[m], p[m])[0], atol=1e-12)
    np.testing.assert_allclose(found.mse, np.mean((y[m] - p[m]) ** 2), atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.booleans())
def test_within_gene_equals_its_definition_written_out(seed: int, ties: bool) -> None:
    y, p, genes = study(seed, ties=ties)
    r2, rho, taus, used_genes = [], [], [], set()
    for k in range(y.shape[1]):
        dy, dp, tau = [], [], []
        for g in np.unique(genes):
            rows = np.flatnonzero((genes == g) & ~np.isnan(y[:, k]))
            if len(rows) < 2:
                continue
            used_genes.add(g)
            dy += list(y[rows, k] - y[rows, k].mean())
            dp += list(p[rows, k] - p[rows, k].mean())
            if np.ptp(y[rows, k]) > 0:
                varies = np.ptp(p[rows, k]) > 0
                tau.append(stats.kendalltau(y[rows, k], p[rows, k])[0] if varies else 0.0)
        r2.append(1 - np.sum(np.subtract(dy, dp) ** 2) / np.sum(np.square(dy)))
        rho.append(stats.spearmanr(dy, dp)[0])
        taus.append(np.mean(tau))
    found = within_gene(y, p, genes)
    assert found.n_genes == len(used_genes)
    expected = [np.mean(r2), np.mean(taus)]
    np.testing.assert_allclose([found.r2, found.kendall], expected, atol=1e-12)
    if not ties:  # rounding errors of the means break ties of deviations
        np.testing.assert_allclose(found.spearman, np.mean(rho), atol=1e-12)


def test_a_right_gene_level_alone_scores_nothing_within_genes() -> None:
    rng = np.random.default_rng(0)
    genes = np.repeat(np.arange(10), 3)
    level = rng.standard_normal((10, 2))[genes]
    y = level + rng.standard_normal(level.shape)
    found = within_gene(y, level, genes)
    assert score(y, level).r2 > 0.2
    np.testing.assert_allclose([found.r2, found.kendall], 0, atol=1e-12)


def test_undefined_scores_are_nan_and_null_in_json() -> None:
    y = np.array([[1.0, np.nan], [1.0, 2.0], [1.0, 3.0]])
    found = score(y, np.zeros((3, 2)))
    assert np.isnan(found.r2_by_tissue[0])
    assert np.isnan(found.spearman)
    assert found.to_json()["r2_by_tissue"][0] is None
    assert repr(Scores.from_json(found.to_json())) == repr(found)
    lone = within_gene(y, np.zeros((3, 2)), np.arange(3))
    assert lone.n_genes == 0
    assert np.isnan(lone.kendall)
    assert repr(WithinGene.from_json(lone.to_json())) == repr(lone)


@pytest.mark.parametrize("metric", ["r2", "spearman"])
def test_a_resample_by_counts_equals_its_rows(metric: str) -> None:
    y, p, genes = study(1)
    sums = GeneSums.collect(metric, y, p, genes)  # type: ignore[arg-type]
    n_genes = int(genes.max()) + 1
    ones = sums.score(np.ones((1, n_genes)))[0]
    expected = score(y, p)
    np.testing.assert_allclose(ones, getattr(expected, f"{metric}_by_tissue"), atol=1e-12)
    if metric == "r2":
        for weights in draw_genes(n_genes, 5, seed=1):
            rows = np.concatenate([np.repeat(np.flatnonzero(genes == g), int(w)) for g, w in enumerate(weights)])
            np.testing.assert_allclose(sums.score(weights[None])[0], r2_columns(y[rows], p[rows]), atol=1e-10)


def test_interval_equals_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    genes = np.repeat(np.arange(50), 4)
    y = rng.standard_normal((200, 1)) + rng.standard_normal((50, 1))[genes]
    p = 0.5 * y + 0.3 * rng.standard_normal(y.shape)
    rows = [np.flatnonzero(genes == g) for g in range(50)]

    def r2(drawn: NDArray[np.int64]) -> float:
        index = np.concatenate([rows[g] for g in drawn])
        return float(r2_columns(y[index], p[index])[0])

    theirs = stats.bootstrap((np.arange(50),), r2, n_resamples=1000, vectorized=False, method="percentile", rng=rng)
    ours = interval_by_gene("r2", y, p, genes, resamples=5000)
    width = ours.high - ours.low
    assert abs(ours.low - theirs.confidence_interval.low) < 0.12 * width
    assert abs(ours.high - theirs.confidence_interval.high) < 0.12 * width


def test_a_model_leads_itself_by_nothing() -> None:
    y, p, genes = study(2)
    same = difference_by_gene("r2", y, p, p, genes, resamples=50)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    worse = difference_by_gene("r2", y, y, p, genes, resamples=50)
    assert worse.low > 0


@pytest.mark.parametrize("metric", ["r2", "spearman"])
def test_a_prediction_that_is_no_number_is_never_right(metric: str) -> None:
    y, p, genes = study(3)
    p[4] = np.nan
    found, within = score(y, p), within_gene(y, p, genes)
    measured = ~np.isnan(y[4])
    assert np.isnan(getattr(found, f"{metric}_by_tissue"))[measured].all()
    if measured.all():
        assert np.isnan([getattr(found, metric), getattr(found, f"{metric}_pooled")]).all()
    assert np.isnan(within_gene(y, np.full_like(p, np.nan), genes).r2)
    assert np.isnan(interval_by_gene(metric, y, np.full_like(p, np.nan), genes).estimate)  # type: ignore[arg-type]
    assert within.n_genes > 0


def test_one_gene_gives_no_interval() -> None:
    y, p, _ = study(0, n=12)
    one = np.zeros(12, dtype=np.int64)
    found = interval_by_gene("r2", np.nan_to_num(y), p, one)
    lead = difference_by_gene("r2", np.nan_to_num(y), p, p * 0, one)
    assert np.isfinite([found.estimate, lead.estimate]).all()
    assert np.isnan([found.low, found.high, lead.low, lead.high]).all()
