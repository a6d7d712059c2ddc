"""Splits by gene, chromosome and column: parts, units, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.dataset import Dataset
from embedcache.errors import InvalidSettingError, UnknownNameError
from heads.split_config import SplitConfig
from heads.splits import SplitError, fold_of_rows, rows_by_split, split_units, unit_of_rows

NAMES = ("train", "validation", "test")


def dataset_of(genes: list[str], chromosomes: list[Any] | None = None) -> Dataset:
    """A dataset in memory only, for units that need no sequences."""
    samples = pd.DataFrame({"transcript_id": [f"t{i}" for i in range(len(genes))], "gene_id": genes})
    samples["chromosome"] = chromosomes if chromosomes is not None else "chr1"
    return Dataset(path=Path("memory"), info={"files": {}}, samples=samples, targets=None)


def of_rows(dataset: Dataset, config: SplitConfig) -> dict[str, str]:
    """Split of each transcript; those of no split are missing."""
    ids = dataset.samples["transcript_id"]
    return {ids.iloc[row]: name for name, rows in rows_by_split(dataset, config).items() for row in rows}


GENES = st.lists(st.integers(1, 6), min_size=15, max_size=40).map(
    lambda counts: [f"g{gene}" for gene, count in enumerate(counts) for _ in range(count)]
)


# --- parts ---


@settings(max_examples=40, deadline=None)
@given(GENES, st.integers(0, 9), st.sampled_from([0, 3]), st.integers(0, 2))
def test_no_gene_is_in_two_splits(genes: list[str], seed: int, inner_folds: int, inner_fold: int) -> None:
    dataset = dataset_of(genes)
    config = SplitConfig(
        unit="gene", seed=seed, folds=3, inner_folds=inner_folds, inner_fold=inner_fold if inner_folds else 0
    )
    rows = rows_by_split(dataset, config)
    found = [set(dataset.samples["gene_id"].iloc[rows[name]]) for name in NAMES]
    assert all(found) and sum(map(len, found)) == len(set().union(*found))
    if not inner_folds:
        assert sorted(np.concatenate([*rows.values()])) == list(range(len(dataset.samples)))


@settings(max_examples=40, deadline=None)
@given(GENES, st.integers(0, 9), st.integers(2, 6))
def test_each_transcript_is_tested_in_exactly_one_fold(genes: list[str], seed: int, folds: int) -> None:
    dataset = dataset_of(genes)
    configs = [SplitConfig(unit="gene", folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    tests = [rows_by_split(dataset, config)["test"] for config in configs]
    assert sorted(np.concatenate(tests)) == list(range(len(dataset.samples)))
    fold = fold_of_rows(dataset, configs[0])
    assert all((fold[test] == i).all() for i, test in enumerate(tests))
    # The largest part goes beyond the smallest by no more than the largest gene.
    assert np.ptp([len(test) for test in tests]) <= dataset.samples["gene_id"].value_counts().max()


@settings(max_examples=40, deadline=None)
@given(GENES, st.integers(0, 9), st.integers(0, 2), st.randoms())
def test_the_order_of_rows_changes_nothing(genes: list[str], seed: int, inner_fold: int, random: Any) -> None:
    dataset = dataset_of(genes)
    order = list(range(len(dataset.samples)))
    random.shuffle(order)
    shuffled = replace(dataset, samples=dataset.samples.iloc[order].reset_index(drop=True))
    config = SplitConfig(unit="gene", seed=seed, inner_folds=3, inner_fold=inner_fold)
    assert of_rows(dataset, config) == of_rows(shuffled, config)


@settings(max_examples=40, deadline=None)
@given(GENES, st.integers(0, 3))
def test_nested_parts_are_disjoint_and_leave_the_outer_test_part_alone(genes: list[str], fold: int) -> None:
    dataset = dataset_of(genes)
    outer = SplitConfig(unit="gene", folds=4, fold=fold)
    tested = set(rows_by_split(dataset, outer)["test"].tolist())
    inner_tests = list[int]()
    for inner_fold in range(3):
        rows = rows_by_split(dataset, replace(outer, inner_folds=3, inner_fold=inner_fold))
        everything = np.concatenate([*rows.values()]).tolist()
        assert not tested & set(everything) and len(everything) == len(dataset.samples) - len(tested)
        inner_tests += rows["test"].tolist()
    assert sorted(inner_tests) == sorted(set(range(len(dataset.samples))) - tested)


def test_another_seed_is_another_draw() -> None:
    dataset = dataset_of([f"g{i}" for i in range(30)])
    drawn = [rows_by_split(dataset, SplitConfig(unit="gene", seed=seed))["test"].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_draw_is_that_of_earlier_releases() -> None:
    dataset = dataset_of([f"gene{i}" for i in range(20)])
    assert fold_of_rows(dataset, SplitConfig(unit="gene", folds=4)).tolist() == PROMISED


PROMISED = [2, 2, 0, 1, 0, 3, 3, 1, 0, 3, 3, 1, 2, 0, 0, 2, 2, 1, 3, 1]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3])
def test_validation_is_the_share_of_what_is_not_tested_on(fraction: float) -> None:
    dataset = dataset_of([f"g{i // 2}" for i in range(1000)])
    rows = rows_by_split(dataset, SplitConfig(unit="gene", validation_fraction=fraction))
    assert len(rows["test"]) == 200 and len(rows["validation"]) == pytest.approx(800 * fraction, abs=2)


# --- units ---


def test_genes_that_share_a_chromosome_stay_together() -> None:
    dataset = dataset_of(["a", "b", "c", "c", "d", "e"], ["1", "1", "2", "X", "X", "3"])
    config = SplitConfig(unit="chromosome")
    assert split_units(dataset, config).tolist() == [0, 0, 1, 1, 1, 2]  # c joins chromosomes 2 and X
    assert unit_of_rows(dataset, config).tolist() == [0, 1, 2, 2, 3, 4]
    found = of_rows(dataset, replace(config, folds=3, validation_fraction=0.4))
    assert sorted(found.values()) in (
        ["test"] * i + ["train"] * j + ["validation"] * (6 - i - j) for i in (1, 2, 3) for j in (1, 2, 3)
    )
    assert found["t2"] == found["t3"] == found["t4"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 9)), min_size=1, max_size=40))
def test_units_are_the_finest_that_cut_neither_genes_nor_labels(rows: list[tuple[int, int]]) -> None:
    dataset = dataset_of([f"g{gene}" for gene, _ in rows], [f"c{label}" for _, label in rows])
    units = split_units(dataset, SplitConfig(unit="column", column="chromosome")).tolist()
    group = dict(enumerate(range(len(rows))))  # joined one by one until nothing changes
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                if (one[0] == other[0] or one[1] == other[1]) and group[i] != group[j]:
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    assert all((units[i] == units[j]) == (group[i] == group[j]) for i, j in pairs)


def test_what_a_split_cannot_do_is_told_in_one_line() -> None:
    small = dataset_of(["a", "b", "b"], ["1", None, "2"])
    cases: list[tuple[SplitConfig, type[Exception], str]] = [
        (SplitConfig(unit="gene"), SplitError, "2 genes cannot be cut into 5 folds. Take at most 2"),
        (SplitConfig(unit="gene", folds=2), SplitError, "nothing for validation"),
        (SplitConfig(unit="gene", folds=2, inner_folds=2), SplitError, "1 remaining genes cannot be cut into 2"),
        (SplitConfig(unit="chromosome"), SplitError, "1 of 3 transcripts have no chromosome, the first is t1"),
        (SplitConfig(unit="column", column="family"), UnknownNameError, "Unknown column 'family'"),
    ]
    for config, error, message in cases:
        with pytest.raises(error, match=message):
            rows_by_split(small, config)
    with pytest.raises(SplitError, match="no gene ID"):
        rows_by_split(dataset_of(["a", ""]), SplitConfig(unit="gene"))


@pytest.mark.parametrize(
    "setting",
    [
        {"fold": 5},
        {"folds": 1},
        {"inner_folds": 1},
        {"inner_folds": 3, "inner_fold": 3},
        {"similarity": 0.0},
        {"validation_fraction": 1.0},
        {"column": "biotype"},
        {"unit": "column"},
        {"unit": "given", "fold": 1},
        {"unit": "given", "inner_folds": 2},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(setting: Any) -> None:
    with pytest.raises(InvalidSettingError):
        SplitConfig(**{"unit": "gene", **setting})
