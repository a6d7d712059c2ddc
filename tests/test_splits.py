from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError
from embedcache.splits import SPLITS, SplitError, SplitRule, check_splits, split_name

VALIDATION = ["g1", "g15", "g16", "g19", "g20", "g3", "g52", "g58", "g91", "g94"]
TEST = ["g10", "g23", "g46", "g51", "g56", "g66", "g69", "g8", "g81", "g88"]
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
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "below 1"),
        ({"kind": "chromosomes"}, "names none"),
        (
            {"validation_chromosomes": ("3", "2", "1"), "test_chromosomes": ("2", "3")},
            "Chromosomes 2, 3 are in validation and test. Name each once",
        ),
    ],
    ids=["no-training", "negative", "nothing-left", "no-chromosome", "twice"],
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


# Splits that were made stay as they are


def test_genes_keep_their_splits_in_every_release() -> None:
    of_gene = dict(zip(GENES, SplitRule().assign(GENES), strict=True))
    found = {name: sorted(gene for gene, split in of_gene.items() if split == name) for name in ("validation", "test")}
    assert found == {"validation": VALIDATION, "test": TEST}
    assert SplitRule() == SplitRule(
        seed=0, validation_fraction=0.1, test_fraction=0.1, kind="fractions", column="split"
    )


@pytest.mark.parametrize("n_genes", [1, 2, 3, 5, 7, 99])
@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.0), (0.5, 0.49), (0.1, 0.2), (0.0, 0.9)])
def test_fractions_are_rounded_to_genes(n_genes: int, validation: float, test: float) -> None:
    genes = [f"g{i}" for i in range(n_genes)]
    splits = SplitRule(validation_fraction=validation, test_fraction=test).assign(genes)
    assert splits.count("validation") == round(validation * n_genes)
    assert splits.count("test") == min(round(test * n_genes), n_genes - round(validation * n_genes))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"seed": 4}, {"kind": "fractions", "validation_fraction": 0.1, "test_fraction": 0.1, "seed": 4}),
        (
            {"kind": "chromosomes", "test_chromosomes": ("1", "X")},
            {"kind": "chromosomes", "validation_chromosomes": [], "test_chromosomes": ["1", "X"]},
        ),
        ({"kind": "column", "column": "fold"}, {"kind": "column", "column": "fold"}),
    ],
    ids=["fractions", "chromosomes", "column"],
)
def test_a_dataset_keeps_the_options_that_made_its_splits(settings: Any, expected: dict[str, Any]) -> None:
    assert SplitRule(**settings).options() == expected


@pytest.mark.parametrize("word", ["train", " Training", "TEST", "testing ", "validation", "Dev"])
def test_a_split_has_several_words(word: str) -> None:
    assert (
        split_name(word)
        == {"tr": "train", "te": "test", "va": "validation", "de": "validation"}[word.strip().lower()[:2]]
    )


@pytest.mark.parametrize("value", [None, "", "tests", "train test", 1])
def test_what_names_no_split_is_told_with_its_place(value: Any) -> None:
    with pytest.raises(SplitError) as error:
        split_name(value, "t.csv, line 3: ")
    assert str(error.value).startswith(f"t.csv, line 3: {value!r} names no split. Write train, validation or test")


def test_a_split_that_is_none_of_ours_is_refused() -> None:
    check_splits([], [])
    check_splits(["a", "a", "b"], ["test", "test", "train"])
    with pytest.raises(SplitError, match=r"Gene 'b' has split 'fold1'\. Splits are train, validation and test"):
        check_splits(["a", "b"], ["train", "fold1"])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        check_splits(["a", "b"], ["train"])


def test_chromosomes_that_nobody_named_are_for_training() -> None:
    rule = SplitRule(kind="chromosomes", validation_chromosomes=("2",))
    assert rule.assign(["a", "b", "c"], chromosomes=[None, "2", "3"]) == ["train", "validation", "train"]
    with pytest.raises(SplitError, match=r"No transcript is on chromosome '2'\. Choose from: 1, 3\."):
        rule.assign(["a", "b", "c"], chromosomes=["3", None, "1"])
