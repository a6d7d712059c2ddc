from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError
from embedcache.splits import SPLITS, SplitError, SplitRule, check_splits, split_name

GENES = [f"g{i}" for i in range(100) for _ in range(1 + i % 3)]


@given(st.lists(st.text("abc", min_size=1, max_size=2), min_size=1), st.integers(0, 3), st.floats(0, 0.49))
def test_no_gene_is_in_two_splits(genes: list[str], seed: int, fraction: float) -> None:
    splits = SplitRule(validation_fraction=fraction, test_fraction=fraction, seed=seed).assign(genes)
    assert all(len({s for g, s in zip(genes, splits, strict=True) if g == gene}) == 1 for gene in genes)


@given(st.permutations(GENES[:40]))
def test_the_order_of_rows_changes_nothing(genes: list[str]) -> None:
    rule = SplitRule(seed=3)
    assert dict(zip(genes, rule.assign(genes), strict=True)) == dict(
        zip(GENES[:40], rule.assign(GENES[:40]), strict=True)
    )


def test_fractions_count_genes() -> None:
    splits = dict(zip(GENES, SplitRule(validation_fraction=0.1, test_fraction=0.25).assign(GENES), strict=True))
    assert {name: list(splits.values()).count(name) for name in SPLITS} == {"train": 65, "validation": 10, "test": 25}


def test_another_seed_gives_another_split() -> None:
    assert SplitRule(seed=0).assign(GENES) == SplitRule(seed=0).assign(GENES) != SplitRule(seed=1).assign(GENES)


def test_chromosomes_go_whole() -> None:
    rule = SplitRule(kind="chromosomes", validation_chromosomes=("chr2",), test_chromosomes=("chrX",))
    found = rule.assign(["a", "b", "c", "d"], chromosomes=["chr1", "chr2", "chrX", "chr1"])
    assert found == ["train", "validation", "test", "train"]


def test_a_gene_on_chromosomes_of_two_splits_is_refused() -> None:
    rule = SplitRule(kind="chromosomes", test_chromosomes=("chrY",))
    with pytest.raises(SplitError, match="'SHOX' is in two splits, train and test"):
        rule.assign(["SHOX", "SHOX"], chromosomes=["chrX", "chrY"])


@pytest.mark.parametrize("word", ["evaluation", "Validation", "valid", "val", " dev ", "EVAL"])
def test_other_words_for_validation_are_understood(word: str) -> None:
    assert split_name(word) == "validation"


def test_a_column_of_the_input_is_followed() -> None:
    rule = SplitRule(kind="column")
    assert rule.assign(["a", "a", "b"], column_values=["train", "train", "evaluation"])[2] == "validation"
    with pytest.raises(SplitError, match="'a' is in two splits"):
        rule.assign(["a", "a"], column_values=["train", "test"])


@pytest.mark.parametrize("gene", ["", None, float("nan")])
def test_a_row_without_gene_is_refused(gene: Any) -> None:
    with pytest.raises(SplitError, match="no gene ID"):
        check_splits(["a", gene], ["train", "train"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_fraction": 1.0}, "below 1"),
        ({"test_fraction": -0.1}, "from 0 on"),
        ({"kind": "chromosomes"}, "names none"),
        ({"validation_chromosomes": ("1",), "test_chromosomes": ("1",)}, "Name each once"),
    ],
    ids=["no-training", "negative", "no-chromosome", "twice"],
)
def test_a_rule_checks_itself(settings: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SplitRule(**settings)


@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        (SplitRule(kind="chromosomes", test_chromosomes=("chr9",)), {"chromosomes": ["9"]}, "chr9.*Choose from: 9"),
        (SplitRule(kind="chromosomes", test_chromosomes=("chr9",)), {}, "no chromosomes"),
        (SplitRule(kind="column", column="fold"), {}, "no column 'fold'"),
        (SplitRule(kind="column"), {"column_values": ["holdout"]}, "'holdout' names no split"),
    ],
    ids=["unknown-chromosome", "no-chromosomes", "no-column", "unknown-name"],
)
def test_input_that_a_rule_cannot_use_gives_one_line(rule: SplitRule, arguments: Any, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        rule.assign(["a"], **arguments)
