"""Scores at their edges: what is counted, what is too little to be scored, and what one training lacks."""

import numpy as np
import pytest

from heads.calibration import Calibration, calibrate
from heads.metrics import mean_defined, r2_columns, score, spearman_columns, within_gene
from heads.statistics.crossed import Scored, compare_metrics
from heads.statistics.resample import Interval, draw_genes, draw_seeds, interval, mean_over_tissues, two_sided_p
from heads.statistics.significance import gene_contributions, sign_flip_p
from heads.statistics.sums import GeneSums

NAN = float("nan")


def test_rows_that_were_measured_somewhere_are_counted() -> None:
    y = np.array([[1.0, NAN], [NAN, NAN], [2.0, 5.0], [NAN, 7.0]])
    assert score(y, np.zeros((4, 2))).n_transcripts == 3
    found = compare_metrics(y, np.zeros((1, 4, 2)), np.ones((1, 4, 2)), np.arange(4), resamples=5)
    assert (found["r2"].n_transcripts, found["r2"].n_genes) == (3, 4)


def test_isoforms_that_count_in_one_tissue_are_counted() -> None:
    y = np.array([[1.0, NAN], [2.0, 1.0], [5.0, 1.0], [3.0, NAN], [NAN, NAN]])
    found = within_gene(y, y, np.array([0, 0, 1, 2, 2]))
    assert (found.n_genes, found.n_transcripts) == (1, 2), "gene 1 has one isoform, gene 2 one that was measured"
    assert (found.r2, found.kendall) == (1, 1)


@pytest.mark.parametrize("level", [0.3, 1e3, -7.1])
def test_values_that_differ_by_rounding_do_not_vary(level: float) -> None:
    rounded = np.array([[level], [np.nextafter(level, 9e9)], [level], [level]])
    assert np.isnan(r2_columns(rounded, np.zeros((4, 1)))).all()
    rounded[1] += 1e-3
    assert np.isfinite(r2_columns(rounded, np.zeros((4, 1)))).all()


def test_one_measured_row_has_no_score_and_none_at_all_neither() -> None:
    y = np.array([[1.0, 2.0], [NAN, 3.0], [NAN, 5.0]])
    p = np.array([[1.0, 2.0], [9.0, 3.0], [9.0, 5.0]])
    for scores in (r2_columns(y, p), spearman_columns(y, p)):
        assert np.isnan(scores[0])
        assert scores[1] == pytest.approx(1)
    empty = score(np.full((3, 2), NAN), np.zeros((3, 2)))
    assert empty.n_transcripts == 0
    assert np.isnan([empty.r2, empty.spearman, empty.mse, empty.r2_pooled, empty.spearman_pooled]).all()
    assert score(y[:0], p[:0]).n_transcripts == within_gene(y[:0], p[:0], np.zeros(0, np.int64)).n_genes == 0
    nothing = within_gene(np.full((3, 2), NAN), np.zeros((2, 3, 2)), np.zeros(3, np.int64))
    assert (nothing.n_genes, nothing.n_transcripts) == (0, 0)
    assert np.isnan([nothing.r2, nothing.spearman, nothing.kendall]).all()
    assert np.isnan(mean_defined(np.array([])))
    assert mean_defined(np.array([1.0, NAN, 3.0])) == 2


def test_several_trainings_are_scored_one_by_one() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.standard_normal((9, 2)), rng.standard_normal((3, 9, 2))
    np.testing.assert_array_equal(spearman_columns(y, p), [spearman_columns(y, one) for one in p])
    genes = np.repeat(np.arange(3), 3)
    for name in ("r2", "spearman", "kendall"):
        each = [getattr(within_gene(y, one, genes), name) for one in p]
        assert getattr(within_gene(y, p, genes), name) == pytest.approx(np.mean(each))


def scored(estimate: list[list[float]]) -> Scored:
    values = np.array(estimate)
    return Scored(values, np.repeat(values[None], 50, axis=0), 9, 0)


def test_a_tissue_that_one_training_lacks_is_left_out_for_all() -> None:
    found = scored([[1.0, NAN], [3.0, 50.0]])
    assert found.seed_sd() == pytest.approx(np.sqrt(2))
    assert found.mean().estimate == 2
    first, second = (one.estimate for one in found.by_tissue())
    assert first == 2
    assert np.isnan(second)
    assert np.isnan(scored([[NAN], [3.0]]).seed_sd())
    assert np.isnan(scored([[3.0, 4.0]]).seed_sd())


def test_half_of_the_resamples_must_have_a_score() -> None:
    for undefined, is_known in ((10, True), (11, False), (20, False)):
        draws = np.where(np.arange(20) < undefined, NAN, np.arange(20.0))
        found = interval(1.0, draws, 5)
        assert np.isfinite(found.low) == np.isfinite(found.high) == is_known
        assert np.isfinite(two_sided_p(draws, 5)) == is_known
    assert np.isnan(interval(NAN, np.arange(20.0), 5).low)
    assert np.isnan(interval(1.0, np.arange(20.0), 1).low)
    whole = interval(0.5, np.arange(101.0), 5)
    assert (whole.low, whole.high) == (2.5, 97.5)
    assert str(Interval(estimate=0.5, low=-0.25, high=1)) == "0.500 [-0.250, 1.000]"


def test_means_over_tissues_leave_out_what_is_not_defined() -> None:
    found = mean_over_tissues(np.array([[1.0, NAN, 3.0], [NAN, NAN, NAN]]))
    assert found[0] == 2
    assert np.isnan(found[1])


# --- draws and flips ---


def test_trainings_are_not_drawn_with_the_numbers_that_genes_are_drawn_with() -> None:
    assert not np.array_equal(draw_genes(5, 200, seed=3) / 5, draw_seeds(5, 200, seed=3))
    assert not np.array_equal(draw_seeds(5, 200, seed=3), draw_seeds(5, 200, seed=4))
    np.testing.assert_array_equal(draw_seeds(5, 200, seed=3), draw_seeds(5, 200, seed=3))
    np.testing.assert_array_equal(draw_seeds(1, 4, seed=3), np.ones((4, 1)))


@pytest.mark.parametrize(("contributions", "p"), [([0.1, 0.2, 0.3], 0.25), ([0.1] * 4, 0.125), ([-0.7, -0.1], 0.5)])
def test_flips_that_give_the_sum_itself_count_whatever_their_rounding(contributions: list[float], p: float) -> None:
    assert sign_flip_p(np.array(contributions)) == pytest.approx(p, abs=0.02)
    assert np.isnan(sign_flip_p(np.array([0.1, NAN])))
    assert np.isnan(sign_flip_p(np.array([0.1])))


def test_what_genes_add_leaves_out_a_tissue_without_a_score() -> None:
    rng = np.random.default_rng(0)
    y, ours, theirs = (rng.standard_normal((12, 2)) for _ in range(3))
    genes = np.repeat(np.arange(6), 2)
    ours[3, 1] = NAN
    sums = [GeneSums.collect("r2", y, one[None], genes) for one in (ours, theirs)]
    found = gene_contributions(*sums)
    alone = r2_columns(y[:, :1], ours[:, :1]) - r2_columns(y[:, :1], theirs[:, :1])
    assert found.sum() == pytest.approx(float(alone[0]))


# --- calibration ---


def test_predictions_that_are_equal_but_for_rounding_have_no_slope() -> None:
    y = np.arange(4.0)[:, None]
    p = np.array([[0.3], [0.1 + 0.2], [0.3], [0.3]])
    found = calibrate(y, p)
    assert np.isnan([found.slope, found.intercept]).all()
    assert sum(one.n for one in found.bins) == 4


def test_a_bin_may_hold_one_cell_and_none_is_empty() -> None:
    p = np.array([[0.0], [1.0], [2.0], [3.0]])
    found = calibrate(2 * p + 1, p, bins=4)
    assert [(one.predicted, one.measured, one.n) for one in found.bins] == [(x, 2 * x + 1, 1) for x in (0.0, 1, 2, 3)]
    assert (found.slope, found.intercept) == (2, 1)
    nothing = calibrate(np.full((2, 1), NAN), p[:2])
    assert nothing.bins == ()
    assert repr(Calibration.from_json(nothing.to_json())) == repr(nothing)
