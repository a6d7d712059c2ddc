"""Sums, draws, intervals and tests against scikit-learn, scipy, closed forms and all cases counted one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import r2_score

from heads.statistics import (
    GeneSums,
    Metric,
    TargetSums,
    centred_ranks,
    compare,
    cross,
    difference_by_gene,
    draw_genes,
    draw_seeds,
    gene_contributions,
    holm,
    interval,
    score_resamples,
    sign_flip_p,
    two_sided_p,
)
from heads.statistics.resample import draw_blocks

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def simulate(
    seed: int, genes: int = 40, seeds: int = 2, tissues: int = 3, gain: float = 0.1
) -> tuple[Array, Array, Array, Ints]:
    """Targets, predictions of A and of B, genes: all correlate 0.6 within a gene; errors differ by seed."""
    rng = np.random.default_rng(seed)
    gene = np.repeat(np.arange(genes), np.clip(rng.geometric(0.22, genes), 1, 40))

    def clustered(*shape: int) -> Array:
        shared = rng.standard_normal((*shape, genes, tissues))[..., gene, :]
        return np.asarray(np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.standard_normal((*shape, len(gene), tissues)))

    y = clustered()
    base = 0.6 * y + 0.55 * clustered()
    noise = 0.30 + 0.025 * rng.standard_normal((2, seeds, 1, 1))
    a = base + noise[0] * clustered(seeds)
    b = base + (noise[1] - 0.08 * (gain > 0)) * clustered(seeds) + gain * (y - base)
    return y, a, b, gene.astype(np.int64)


def with_gaps(y: Array, seed: int = 0) -> Array:
    return np.where(np.random.default_rng(seed).random(y.shape) < 0.3, np.nan, y)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_ranks_are_those_of_scipy(seed: int, ties: bool, gaps: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rng.integers(1, 30), 4))
    x = with_gaps(x.round() if ties else x, seed) if gaps else x
    expected = stats.rankdata(x, axis=0, nan_policy="omit")
    expected -= (1 + (~np.isnan(x)).sum(axis=0)) / 2
    np.testing.assert_allclose(centred_ranks(x), expected, atol=1e-12)


@pytest.mark.parametrize("gaps", [True, False], ids=["gaps", "all measured"])
def test_a_resample_by_counts_equals_its_rows(gaps: bool) -> None:
    y, a, _, gene = simulate(0)
    y = with_gaps(y) if gaps else y
    rows = [np.flatnonzero(gene == g) for g in range(40)]
    r2, spearman = (GeneSums.collect(metric, y, a, gene) for metric in ("r2", "spearman"))
    ranked_y, ranked_a = centred_ranks(y), np.stack([centred_ranks(np.where(np.isnan(y), np.nan, p)) for p in a])
    rng = np.random.default_rng(0)
    for repeat, seed, k in product(range(8), range(2), range(3)):
        drawn = rng.integers(40, size=40) if repeat else np.arange(40)
        weights = np.bincount(drawn, minlength=40)[None].astype(float)
        index = np.concatenate([rows[g] for g in drawn])
        index = index[~np.isnan(y[index, k])]
        np.testing.assert_allclose(r2.score(weights)[0, seed, k], r2_score(y[index, k], a[seed, index, k]), atol=1e-10)
        expected = stats.pearsonr(ranked_y[index, k], ranked_a[seed, index, k])[0]
        np.testing.assert_allclose(spearman.score(weights)[0, seed, k], expected, atol=1e-10)
        if repeat == 0:  # every gene once: Spearman itself
            np.testing.assert_allclose(expected, stats.spearmanr(y[index, k], a[seed, index, k])[0], atol=1e-12)


def test_a_resample_that_does_not_vary_has_no_score() -> None:
    rng = np.random.default_rng(0)
    y, gene = rng.standard_normal((50, 1)), np.arange(50)
    once = 7.0 * np.eye(50)  # the same row seven times
    for metric in ("r2", "spearman"):
        assert np.isnan(GeneSums.collect(metric, y, 2 * y, gene).score(once)).all()  # type: ignore[arg-type]


def test_draws_do_not_depend_on_their_blocks_and_are_uniform() -> None:
    together = draw_genes(30, 600, seed=3)
    np.testing.assert_array_equal(together[:300], draw_genes(30, 300, seed=3))
    assert [len(block) for block in draw_blocks(30, 600, 3)] == [256, 256, 88]
    assert (together.sum(axis=1) == 30).all()
    often = np.bincount(np.minimum(together[:, 0], 3).astype(int), minlength=4)  # of one gene: 0, 1, 2, 3 or more
    p = stats.binom(30, 1 / 30).pmf(np.arange(3))
    assert stats.chisquare(often, 600 * np.append(p, 1 - p.sum())).pvalue > 1e-3
    shares = draw_seeds(5, 4000, seed=1)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares.mean(axis=0), 0.2, atol=0.01)
    assert not np.array_equal(shares[:, :3], draw_seeds(3, 4000, seed=1))


def test_genes_alone_give_the_interval_of_scipy() -> None:
    y, a, b, gene = simulate(1, genes=60, seeds=1, tissues=1)
    rows = [np.flatnonzero(gene == g) for g in range(60)]

    def difference(drawn: Ints) -> float:
        index = np.concatenate([rows[g] for g in drawn])
        return float(r2_score(y[index], b[0][index]) - r2_score(y[index], a[0][index]))

    theirs = stats.bootstrap(
        (np.arange(60),),
        difference,
        n_resamples=1000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = compare("r2", y, b, a, gene, resamples=20_000).mean
    assert max(abs(ours.low - theirs.low), abs(ours.high - theirs.high)) < 0.1 * (ours.high - ours.low)
    alone = difference_by_gene("r2", y, b[0], a[0], gene, resamples=20_000)
    assert alone == ours


def test_with_genes_alike_only_trainings_vary() -> None:
    """The bootstrap variance of a mean of S is (S - 1) / S of the unbiased one, and divided by S."""
    seeds, copies = 6, 400
    y = np.tile([[-1.0], [1.0]], (copies, 1))  # every gene has the same two rows
    gene = np.repeat(np.arange(copies), 2)
    a = np.broadcast_to(0.5 * y, (seeds, *y.shape))
    b = y * (0.6 + 0.05 * np.random.default_rng(0).standard_normal((seeds, 1, 1)))
    exact = [r2_score(y, b[s]) - r2_score(y, a[s]) for s in range(seeds)]
    found = compare("r2", y, b, a, gene, resamples=20_000)
    np.testing.assert_allclose(found.mean.estimate, np.mean(exact), atol=1e-12)
    assert abs((found.mean.high - found.mean.low) / (2 * 1.96 * np.std(exact) / np.sqrt(seeds)) - 1) < 0.1
    one = compare("r2", y, b[:1], a[:1], gene, resamples=200)
    assert one.mean.high - one.mean.low < 1e-12
    assert "variation between trainings not included" in str(one)
    assert "6 paired seeds" in str(found)


def test_the_spread_of_both_adds_up() -> None:
    """Variance with genes and trainings drawn is near the sum of the variances of either."""
    y, a, b, gene = simulate(2, genes=300, seeds=5, tissues=2)
    shared = TargetSums.collect("r2", y, gene)
    (ours,), (theirs,) = score_resamples([[GeneSums.of(shared, p)] for p in (b, a)], resamples=4000)
    draws = (ours.draws - theirs.draws).mean(axis=2)  # (R, S)
    genes_only = draws.mean(axis=1).var()
    seeds_only = (ours.estimate - theirs.estimate).mean(axis=1).var() / 5
    both = cross(draws[:, :, None]).var()
    assert both > 1.1 * max(genes_only, seeds_only)
    assert 0.9 < both / (genes_only + seeds_only) < 1.5  # more by what genes and trainings do together


def test_sign_flips_equal_all_flips_and_scipy() -> None:
    y, a, b, gene = simulate(3, genes=12, gain=0.02)
    ours, theirs = (GeneSums.collect("r2", y, p, gene) for p in (b, a))
    contributions = gene_contributions(ours, theirs)
    estimate = compare("r2", y, b, a, gene, resamples=9).mean.estimate
    np.testing.assert_allclose(contributions.sum(), estimate, atol=1e-12)
    exact = stats.permutation_test(
        (contributions, np.zeros(12)), lambda u, v, axis: (u - v).sum(axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    ).pvalue  # fmt: skip
    flips = np.array(list(product((-1, 1), repeat=12)))
    by_hand = np.mean(np.abs(flips @ contributions) >= abs(contributions.sum()) * (1 - 1e-12))
    np.testing.assert_allclose([exact, sign_flip_p(contributions, flips=50_000)], by_hand, atol=0.01)
    assert sign_flip_p(np.ones(40)) == 1 / 10_000
    assert sign_flip_p(np.zeros(40)) == 1


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.6, 0.7]), [0.03, np.nan, 1, 1])
    assert holm([]) == []


def test_p_values_count_resamples_on_the_other_side() -> None:
    draws = np.array([-1.0, *range(1, 20)])
    assert two_sided_p(draws, 5) == 2 * 2 / 21
    assert two_sided_p(np.zeros(20), 5) == 1
    assert np.isnan(two_sided_p(draws, 1))
    mostly_undefined = np.where(np.arange(20) < 11, np.nan, draws)
    assert np.isnan([two_sided_p(mostly_undefined, 5), interval(1.0, mostly_undefined, 5).low]).all()


@pytest.mark.parametrize("metric", ["r2", "spearman"])
def test_a_model_has_the_same_scores_in_any_company(metric: Metric) -> None:
    y, a, b, gene = simulate(4, seeds=3)
    shared = TargetSums.collect(metric, with_gaps(y), gene)
    one, other = ([GeneSums.of(shared, p)] for p in (a, b))
    ((alone,),) = score_resamples([one], resamples=300)
    for company, place in (([one, other], 0), ([other, one, other], 1)):
        (found,) = score_resamples(company, resamples=300)[place]
        np.testing.assert_array_equal(found.draws, alone.draws)


@pytest.mark.parametrize("metric", ["r2", "spearman"])
def test_a_tissue_counts_only_where_both_have_a_score(metric: Metric) -> None:
    y, a, b, gene = simulate(5)
    y[:, 1] = np.nan
    y[1:, 2] = np.nan
    found = compare(metric, y, b, a, gene, resamples=100)
    assert found.mean.estimate == found.by_tissue[0].estimate
    assert np.isnan([x.low for x in found.by_tissue[1:]]).all()
    assert np.isnan(found.p_by_tissue[1:]).all()
    assert found.p == found.p_by_tissue[0]


def test_only_common_trainings_are_paired() -> None:
    y, a, b, gene = simulate(6, seeds=4)
    uneven = compare("r2", y, b, a[:2], gene, resamples=200)
    assert uneven == compare("r2", y, b[:2], a[:2], gene, resamples=200)
    assert uneven.n_seeds == 2


@pytest.mark.slow
def test_only_genes_and_trainings_together_hold_the_truth_as_often_as_they_say() -> None:
    """How often nominal 95% intervals hold the true difference in R2 of 300 simulated studies."""
    big = [simulate(10_000 + i, 3000, 2, 1, 0.12) for i in range(60)]
    truth = np.mean([compare("r2", y, b, a, gene, resamples=1).mean.estimate for y, a, b, gene in big])
    hits = {"rows": 0, "genes": 0, "crossed": 0}
    studies = 300
    for study in range(studies):
        y, a, b, gene = simulate(study, 500, 5, 1, 0.12)
        found = {
            "rows": compare("r2", y, b[:1], a[:1], np.arange(len(y)), resamples=400).mean,
            "genes": compare("r2", y, b[:1], a[:1], gene, resamples=400).mean,
            "crossed": compare("r2", y, b, a, gene, resamples=400).mean,
        }
        for name, x in found.items():
            hits[name] += x.low <= truth <= x.high
    coverage = {name: count / studies for name, count in hits.items()}
    assert coverage["rows"] < 0.75, coverage
    assert coverage["rows"] < coverage["genes"] < 0.92 < coverage["crossed"], coverage
