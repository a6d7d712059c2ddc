"""Differential usage against its definition written out, and what models without tissue-specific usage must score."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from heads.differential import DifferentialUsage, differential_usage

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def study(seed: int = 0, n: int = 200, tissues: int = 5, gaps: bool = True) -> tuple[Array, Array, Ints]:
    rng = np.random.default_rng(seed)
    genes = np.unique(rng.integers(0, n // 3, n), return_inverse=True)[1].astype(np.int64)
    y = np.maximum(1 + rng.standard_normal((n, tissues)) + rng.standard_normal((n, 1)), 0)
    y[genes == 0] = 0.01  # not expressed
    p = 0.5 + 0.6 * y + 0.5 * rng.standard_normal(y.shape)
    if gaps:
        y[rng.random(y.shape) < 0.05] = np.nan
        y[rng.random(n) < 0.05] = np.nan
    return y, p, genes


def written_out(y: Array, p: Array, genes: Ints) -> dict[str, float]:
    """Gene by gene and pair by pair."""
    differences: dict[tuple[int, int], list[tuple[float, float]]] = {}
    labels, scores, top, chance, isoforms = [], [], [], [], 0
    for g in np.unique(genes):
        rows = np.flatnonzero((genes == g) & ~np.isnan(y).all(axis=1))
        used = [k for k in range(y.shape[1]) if len(rows) > 1 and np.expm1(y[rows, k]).sum() >= 1]
        if len(used) < 2:
            continue
        isoforms += len(rows)
        u, v = (np.expm1(np.maximum(x[rows][:, used], 0)) for x in (y, p))
        u, v = (x / x.sum(axis=0) for x in (u, v))
        strengths = []
        for x in (u, v):
            strengths.append(0.0)
            for a, b in combinations(range(len(used)), 2):
                i, j = x[:, a].argmax(), x[:, b].argmax()
                strengths[-1] = max(strengths[-1], min(x[i, a] - x[j, a], x[j, b] - x[i, b]))
        labels.append(strengths[0] >= 0.1)
        scores.append(strengths[1])
        top += [u[:, a].argmax() == v[:, a].argmax() for a in range(len(used))]
        chance += [1 / len(rows)] * len(used)
        for a, b in combinations(range(len(used)), 2):
            pair = zip((u[:, a] - u[:, b]).tolist(), (v[:, a] - v[:, b]).tolist(), strict=True)
            differences.setdefault((used[a], used[b]), []).extend(pair)
    d = np.concatenate([np.array(x) for x in differences.values()])
    large = np.abs(d[:, 0]) >= 0.1
    return {
        "pearson": float(np.mean([np.corrcoef(np.array(x).T)[0, 1] for x in differences.values()])),
        "r2": 1 - ((d[:, 0] - d[:, 1]) ** 2).sum() / (d[:, 0] ** 2).sum(),
        "direction": float((1 + np.sign(d[large, 0]) * np.sign(d[large, 1])).mean() / 2),
        "top_isoform": float(np.mean(top)),
        "top_isoform_chance": float(np.mean(chance)),
        "switch_auroc": float(roc_auc_score(labels, scores)),
        "n_genes": len(labels),
        "n_isoforms": isoforms,
        "n_switching": sum(labels),
        "n_differences": int(large.sum()),
    }


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_their_definitions_written_out(seed: int) -> None:
    y, p, genes = study(seed)
    found, expected = differential_usage(y, p, genes).to_json(), written_out(y, p, genes)
    assert 10 < expected["n_switching"] < expected["n_genes"] < genes.max()
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-10)


def test_trainings_are_averaged() -> None:
    y, p, genes = study()
    other = study(seed=9)[1]
    both = differential_usage(y, np.stack([p, other]), genes)
    each = [differential_usage(y, x, genes) for x in (p, other)]
    for name in ("pearson", "r2", "direction", "top_isoform", "switch_auroc"):
        assert getattr(both, name) == pytest.approx(np.mean([getattr(x, name) for x in each]), abs=1e-12)
    assert repr(DifferentialUsage.from_json(both.to_json())) == repr(both)


def test_right_values_score_all() -> None:
    y, _, genes = study(gaps=False)
    found = differential_usage(y, y, genes)
    scores = [found.pearson, found.r2, found.direction, found.top_isoform, found.switch_auroc]
    np.testing.assert_allclose(scores, 1, atol=1e-12)


@pytest.mark.parametrize("what", ["genes by tissue", "isoforms", "nothing expressed"])
def test_no_usage_of_tissues_scores_as_chance(what: str) -> None:
    """DNA knows genes by tissue; isoform levels that are alike in all tissues tell none apart."""
    y, p, genes = study(gaps=False)
    level = {"genes by tissue": p[genes], "isoforms": np.repeat(p[:, :1], 5, axis=1), "nothing expressed": p - 100}
    found = differential_usage(y, level[what], genes)
    np.testing.assert_allclose([found.pearson, found.r2], 0, atol=1e-9)
    np.testing.assert_allclose([found.direction, found.switch_auroc], 0.5, atol=1e-12)
    if what != "isoforms":
        assert found.top_isoform == pytest.approx(found.top_isoform_chance)


def test_lone_isoforms_and_nan_predictions_have_no_score() -> None:
    y, p, genes = study()
    lone = differential_usage(y, p, np.arange(len(y)))
    assert (lone.n_genes, lone.n_isoforms, lone.n_differences) == (0, 0, 0)
    broken = differential_usage(y, np.full_like(p, np.nan), genes)
    for found in (lone, broken):
        scores = [found.pearson, found.r2, found.direction, found.top_isoform, found.switch_auroc]
        assert np.isnan(scores).all()
        assert found.to_json()["pearson"] is None
