"""The table of arms: each number against its own definition, and what the arms must not do to each other."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.arms import ArmScores, arms_table
from heads.calibration import Calibration, calibrate
from heads.metrics import within_gene
from heads.statistics import Metric, compare_metrics, holm

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def study(seed: int = 0, n: int = 150) -> tuple[Array, dict[str, Array], Ints]:
    """Targets with gaps, three arms with 3, 3 and 2 trainings, genes."""
    rng = np.random.default_rng(seed)
    genes = np.unique(rng.integers(0, n // 3, n), return_inverse=True)[1].astype(np.int64)
    y = rng.standard_normal((n, 3)) + rng.standard_normal((n, 3))[genes]
    arms = {
        name: 0.7 * y + noise * rng.standard_normal((seeds, *y.shape))
        for name, noise, seeds in (("rna", 1.0, 3), ("all", 0.6, 3), ("dna", 1.3, 2))
    }
    y[rng.random(y.shape) < 0.2] = np.nan
    return y, arms, genes


def test_every_number_by_its_definition() -> None:
    y, arms, genes = study()
    table = {arm.name: arm for arm in arms_table(y, arms, genes, reference="rna", resamples=200)}
    assert list(table) == list(arms)
    m = ~np.isnan(y)
    for name, p in arms.items():
        arm = table[name]
        r2 = [[r2_score(y[m[:, k], k], x[m[:, k], k]) for k in range(3)] for x in p]
        rho = [[stats.spearmanr(y[m[:, k], k], x[m[:, k], k])[0] for k in range(3)] for x in p]
        np.testing.assert_allclose([arm.r2.estimate, arm.spearman.estimate], [np.mean(r2), np.mean(rho)], atol=1e-12)
        np.testing.assert_allclose([x.estimate for x in arm.r2_by_tissue], np.mean(r2, axis=0), atol=1e-12)
        np.testing.assert_allclose([x.estimate for x in arm.spearman_by_tissue], np.mean(rho, axis=0), atol=1e-12)
        np.testing.assert_allclose(arm.r2_seed_sd, np.std(np.mean(r2, axis=1), ddof=1), atol=1e-12)
        np.testing.assert_allclose(arm.spearman_seed_sd, np.std(np.mean(rho, axis=1), ddof=1), atol=1e-12)
        np.testing.assert_allclose(arm.r2_pooled, np.mean([r2_score(y[m], x[m]) for x in p]), atol=1e-12)
        pooled = np.mean([stats.spearmanr(y[m], x[m])[0] for x in p])
        np.testing.assert_allclose(arm.spearman_pooled, pooled, atol=1e-12)
        taus = [within_gene(y, x, genes).kendall for x in p]
        np.testing.assert_allclose(arm.within_gene.kendall, np.mean(taus), atol=1e-12)
        assert arm.r2.low < arm.r2.estimate < arm.r2.high
        assert arm.n_seeds == len(p)


def test_differences_are_paired_and_corrected_together() -> None:
    y, arms, genes = study()
    table = {arm.name: arm for arm in arms_table(y, arms, genes, reference="rna", resamples=200)}
    assert table["rna"].difference is None
    metrics: tuple[Metric, ...] = ("r2", "spearman")
    for metric in metrics:
        found = {name: getattr(table[name].difference, metric) for name in ("all", "dna")}
        expected = {name: compare_metrics(y, arms[name], arms["rna"], genes, resamples=200)[metric] for name in found}
        for name, x in found.items():
            mean = expected[name].mean
            assert (x.estimate, x.low, x.high, x.p) == (mean.estimate, mean.low, mean.high, expected[name].p)
        assert [x.p_holm for x in found.values()] == holm([x.p for x in expected.values()])
    assert [table[name].difference.n_seeds for name in ("all", "dna")] == [3, 2]  # type: ignore[union-attr]
    assert table["all"].difference.r2.p_sign_flip < 0.01  # type: ignore[union-attr, operator]


def test_json_has_exactly_the_promised_keys_and_comes_back() -> None:
    y, arms, genes = study()
    arms["constant"] = np.zeros((1, *y.shape))
    for arm in arms_table(y, arms, genes, reference="rna", resamples=50):
        written = json.loads(json.dumps(arm.to_json(), allow_nan=False))
        assert list(written) == [
            "name", "n_seeds", "r2", "spearman", "r2_pooled", "spearman_pooled", "r2_seed_sd", "spearman_seed_sd",
            "r2_by_tissue", "spearman_by_tissue", "within_gene", "calibration", "difference",
        ]  # fmt: skip
        assert set(written["r2"]) == {"estimate", "low", "high"} == set(written["spearman_by_tissue"][0])
        assert set(written["within_gene"]) == {"r2", "spearman", "kendall", "n_genes", "n_transcripts"}
        assert set(written["calibration"]) == {"slope", "intercept", "bins"}
        assert set(written["calibration"]["bins"][0]) == {"predicted", "measured", "n"}
        if arm.name != "rna":
            tested = {"estimate", "low", "high", "p", "p_holm"}
            assert set(written["difference"]["r2"]) == tested | {"p_sign_flip"}
            assert set(written["difference"]["spearman"]) == tested
        assert repr(ArmScores.from_json(written)) == repr(arm)
        assert ArmScores.from_json(written).to_json() == arm.to_json()
    assert written["name"] == "constant"
    assert written["r2_seed_sd"] is written["spearman"]["estimate"] is written["difference"]["spearman"]["p"] is None
    assert written["calibration"]["slope"] is None


def test_an_arm_has_the_same_numbers_in_any_company_and_order() -> None:
    y, arms, genes = study()
    whole = {arm.name: arm.to_json() for arm in arms_table(y, arms, genes, reference="rna", resamples=100)}
    turned = arms_table(y, dict(reversed(arms.items())), genes, reference="rna", resamples=100)
    assert {arm.name: arm.to_json() for arm in turned} == whole
    (alone,) = arms_table(y, {"all": arms["all"]}, genes, resamples=100)
    assert alone.to_json() == whole["all"] | {"difference": None}
    numbered_otherwise = arms_table(y, arms, 7 * genes + 3, reference="rna", resamples=100)
    assert {arm.name: arm.to_json() for arm in numbered_otherwise} == whole


def test_groups_are_drawn_and_genes_hold_isoforms() -> None:
    y, arms, genes = study()
    wide = arms_table(y, arms, genes // 4, genes=genes, resamples=400)
    narrow = arms_table(y, arms, genes, resamples=400)
    for a, b in zip(wide, narrow, strict=True):
        assert a.within_gene == b.within_gene
        assert a.r2.estimate == pytest.approx(b.r2.estimate, abs=1e-12)
        assert a.r2.low != b.r2.low


def test_one_gene_has_no_interval_and_one_seed_no_spread() -> None:
    y, arms, _ = study()
    table = arms_table(y, {name: p[:1] for name, p in arms.items()}, np.zeros(len(y), np.int64), reference="rna")
    for arm in table:
        assert np.isnan([arm.r2.low, arm.spearman.high, arm.r2_seed_sd]).all()
        assert np.isfinite([arm.r2.estimate, arm.r2_pooled]).all()
    assert np.isnan([table[1].difference.r2.p, table[1].difference.r2.p_sign_flip]).all()  # type: ignore[union-attr]


def test_an_arm_against_itself_differs_by_nothing() -> None:
    y, arms, genes = study()
    table = arms_table(y, {"a": arms["rna"], "b": arms["rna"].copy()}, genes, reference="a", resamples=100)
    found = table[1].difference
    assert found is not None
    assert (found.r2.estimate, found.r2.low, found.r2.high, found.r2.p, found.r2.p_sign_flip) == (0, 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"reference": "rns"}, UnknownNameError, "Did you mean 'rna'"),
        ({"resamples": 0}, InvalidSettingError, "resamples is 0"),
        ({"groups": np.zeros(3, np.int64)}, InvalidInputError, "3 group numbers"),
        ({"targets": np.full((150, 3), np.nan)}, InvalidInputError, "nothing to score"),
        ({"arms": {"rna": np.zeros((150, 3))}}, InvalidInputError, r"shape \(150, 3\)"),
        ({"arms": {"rna": np.full((2, 150, 3), np.nan)}}, InvalidInputError, "seed number 0 of 2"),
    ],
)
def test_wrong_input_is_said_in_one_line(change: dict[str, object], error: type[Exception], text: str) -> None:
    y, arms, genes = study()
    given = {"targets": y, "arms": arms, "groups": genes, "reference": "rna"} | change
    with pytest.raises(error, match=text) as raised:
        arms_table(**given)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_calibration_is_least_squares_and_bins_hold_every_cell() -> None:
    y, arms, _ = study()
    p = arms["dna"]
    m = ~np.isnan(y)
    stacked, cells = p[:, m].ravel(), np.tile(y[m], 2)
    line = LinearRegression().fit(stacked[:, None], cells)
    found = calibrate(y, p)
    np.testing.assert_allclose([found.slope, found.intercept], [line.coef_[0], line.intercept_], atol=1e-12)
    bins = pd.DataFrame({"p": stacked, "y": cells}).groupby(pd.qcut(stacked, 10), observed=True)
    np.testing.assert_array_equal([x.n for x in found.bins], bins.size())
    np.testing.assert_allclose([[x.predicted, x.measured] for x in found.bins], bins.mean(), atol=1e-12)
    assert sum(x.n for x in found.bins) == len(stacked)
    perfect = calibrate(y, np.nan_to_num(y))
    np.testing.assert_allclose([perfect.slope, perfect.intercept], [1, 0], atol=1e-12)
    assert Calibration.from_json(found.to_json()) == found


def test_equal_predictions_share_a_bin() -> None:
    y = np.arange(10.0)[:, None]
    found = calibrate(y, np.repeat([0.0, 1.0], 5)[:, None])
    assert [(x.predicted, x.measured, x.n) for x in found.bins] == [(0, 2, 5), (1, 7, 5)]
    constant = calibrate(y, np.ones((10, 1)))
    assert np.isnan(constant.slope)
    assert [(x.predicted, x.measured, x.n) for x in constant.bins] == [(1, 4.5, 10)]
    assert calibrate(np.full((2, 1), np.nan), np.ones((2, 1))).bins == ()
