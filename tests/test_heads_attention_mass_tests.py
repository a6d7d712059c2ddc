"""Tests of attention by region: genes are the observations, and p-values are corrected over the whole comparison."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from heads.interpret.attention.scores import RegionScores, mask_absent
from heads.interpret.attention.significance import adjusted, compare_to_before, compare_to_uniform

REGIONS = ("5'UTR", "CDS", "3'UTR")


def make_scores(
    n: int = 60, *, seed: int = 0, shift: float = 0.0, isoforms: int = 3, spread: float = 0.05, absent: float = 0.0
) -> RegionScores:
    """Masses of 2 layers x 3 heads around the uniform share; isoforms of a gene share most of their deviation."""
    rng = np.random.default_rng(seed)
    uniform = rng.dirichlet([2, 10, 5], n)
    genes = np.arange(n) // isoforms
    by_gene = rng.normal(0, spread, (n, 2, 3, 3))[genes]
    mass = uniform[:, None, None] + by_gene + rng.normal(0, spread / 10, (n, 2, 3, 3))
    mass[:, 1, 2, 0] += shift
    uniform[rng.random(uniform.shape) < absent] = 0
    names = np.array([f"G{gene}" for gene in genes])
    return mask_absent(RegionScores(regions=REGIONS, mass=mass, uniform=uniform, genes=names, rows=np.arange(n)))


def take(scores: RegionScores, rows: np.ndarray) -> RegionScores:
    return RegionScores(
        regions=scores.regions,
        mass=scores.mass[rows],
        uniform=scores.uniform[rows],
        genes=scores.genes[rows],
        rows=scores.rows[rows],
    )


@pytest.mark.parametrize("absent", [0.0, 0.3], ids=["complete", "regions missing"])
def test_it_is_the_paired_t_test_on_means_of_genes(absent: float) -> None:
    scores = make_scores(absent=absent)
    found = compare_to_uniform(scores)
    for at in np.ndindex(2, 3, 3):
        pairs = []
        for gene in dict.fromkeys(scores.genes):
            mine = (scores.genes == gene) & ~np.isnan(scores.uniform[:, at[2]])
            if mine.any():
                pairs.append((scores.mass[mine][:, *at].mean(), scores.uniform[mine, at[2]].mean()))
        mass, uniform = np.array(pairs).T
        assert found.p[at] == pytest.approx(stats.ttest_rel(mass, uniform).pvalue)
        assert found.mass[at] == pytest.approx(mass.mean()) and found.uniform[at] == pytest.approx(uniform.mean())
        difference = mass - uniform
        assert found.difference[at] == pytest.approx(difference.mean())
        assert found.effect_size[at] == pytest.approx(difference.mean() / difference.std(ddof=1))
        assert found.genes[at] == len(pairs)
        assert found.transcripts[at] == (~np.isnan(scores.uniform[:, at[2]])).sum()


def test_a_head_that_differs_is_found_and_others_are_not() -> None:
    found = compare_to_uniform(make_scores(300, shift=0.05))
    assert np.argwhere(found.significant).tolist() == [[1, 2, 0]]


def test_more_isoforms_of_the_same_genes_give_no_more_certainty() -> None:
    few, many = make_scores(40, isoforms=1), make_scores(40, isoforms=1)
    many = take(many, np.repeat(np.arange(40), 5))
    once, often = compare_to_uniform(few), compare_to_uniform(many)
    assert np.allclose(once.p, often.p) and np.array_equal(once.genes, often.genes)
    assert (often.transcripts == 5 * once.transcripts).all()


def test_without_a_difference_few_are_called_different() -> None:
    p = np.stack([compare_to_uniform(make_scores(90, seed=seed)).p for seed in range(60)])
    assert 0.03 < (p < 0.05).mean() < 0.07  # transcripts as observations would give 0.3
    assert np.mean([compare_to_uniform(make_scores(90, seed=seed)).significant.any() for seed in range(60)]) < 0.12


def test_the_order_of_transcripts_changes_nothing() -> None:
    scores = make_scores(absent=0.2)
    order = np.random.default_rng(1).permutation(len(scores.mass))
    once, again = compare_to_uniform(scores), compare_to_uniform(take(scores, order))
    assert np.allclose(once.p, again.p) and np.allclose(once.effect_size, again.effect_size)


def test_after_is_compared_with_before_pair_by_pair() -> None:
    before, after = make_scores(), make_scores()
    after.mass[:, 0, 1, 1] += 0.02 + np.random.default_rng(0).normal(0, 0.001, len(after.mass))
    found = compare_to_before(after, before)
    assert found.difference[0, 1, 1] == pytest.approx(0.02, abs=1e-3) and found.p_adjusted[0, 1, 1] < 1e-9
    assert np.array_equal(found.mass, compare_to_uniform(after).mass)
    others = np.ones(found.p.shape, dtype=bool)
    others[0, 1, 1] = False
    assert np.isnan(found.p[others]).all() and (found.difference[others] == 0).all()  # nothing varies: not tested


def test_transcripts_without_a_region_are_no_pairs() -> None:
    before, after = make_scores(absent=0.3), make_scores(absent=0.3, shift=0.1)
    found = compare_to_before(after, before)
    assert np.array_equal(found.transcripts, compare_to_uniform(before).transcripts)
    assert found.transcripts.max() < 60 and found.difference[1, 2, 0] == pytest.approx(0.1)


@pytest.mark.parametrize("n", [1, 3], ids=["one transcript", "one gene"])
def test_one_gene_is_not_tested(n: int) -> None:
    found = compare_to_uniform(make_scores(n, isoforms=3))
    assert np.isnan(found.p).all() and np.isnan(found.p_adjusted).all() and not found.significant.any()
    assert not np.isnan(found.mass).any() and (found.genes == 1).all()


def test_regions_that_no_transcript_has_are_left_out() -> None:
    whole = make_scores()
    uniform = whole.uniform.copy()
    uniform[:, 1] = 0
    left = mask_absent(
        RegionScores(regions=REGIONS, mass=whole.mass, uniform=uniform, genes=whole.genes, rows=whole.rows)
    )
    assert left.regions == ("5'UTR", "3'UTR") and left.mass.shape[-1] == left.uniform.shape[-1] == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=30))
def test_benjamini_hochberg_by_its_definition(p_values: list[float]) -> None:
    p = np.array(p_values)
    found = adjusted(p.reshape(1, -1))[0]
    known = sorted(x for x in p_values if not np.isnan(x))
    for x, y in zip(p_values, found, strict=True):
        if np.isnan(x):
            assert np.isnan(y)
            continue
        wanted = min(min(1.0, q * len(known) / (rank + 1)) for rank, q in enumerate(known) if q >= x)
        assert y == pytest.approx(wanted)
