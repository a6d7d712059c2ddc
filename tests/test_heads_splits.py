from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.dataset import Dataset
from embedcache.dataset_write import write_dataset
from embedcache.errors import InvalidInputError, InvalidSettingError, MissingDependencyError, UnknownNameError
from embedcache.sequences import sequence_key
from heads.split_config import SplitConfig
from heads.splits import SplitError, fold_of_rows, rows_by_split, split_units, unit_of_rows
from heads.splits.describe import SplitReport, describe_split
from heads.splits.kmers import count_kmers
from heads.splits.text import format_report, write_rows

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


# --- similarity ---


def mutated(sequence: str, share: float, letters: str, rng: np.random.Generator) -> str:
    """A copy in which this share of the letters is drawn anew."""
    return "".join(rng.choice(list(letters)) if rng.random() < share else letter for letter in sequence)


RESIDUES, BASES = "ACDEFGHIKLMNPQRSTVWY", "ACGT"


def family_dataset(path: Path, proteins: list[str | None], rnas: list[str | None] | None = None) -> Dataset:
    """One gene a protein and RNA, named in order."""
    rnas = rnas or [None] * len(proteins)
    samples = pd.DataFrame({"transcript_id": [f"T{i:03}" for i in range(len(proteins))]})
    samples["gene_id"] = [f"G{i:03}" for i in range(len(proteins))]
    samples["split"] = ["train", "validation", "test", *["train"] * (len(proteins) - 3)]
    sequences = []
    for modality, letters in (("protein", proteins), ("rna", rnas)):
        keys = [None if one is None else sequence_key(one, modality) for one in letters]  # type: ignore[arg-type]
        if any(keys):
            samples[f"{modality}_key"] = keys
        sequences += [(modality, key, one) for key, one in dict(zip(keys, letters, strict=True)).items() if key]
    return write_dataset(path, info={}, samples=samples, targets=None, sequences=sequences)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """20 families of 3 proteins, 70 % alike, their RNAs unlike; two RNA genes that are alike; 10 without kin."""
    rng = np.random.default_rng(0)
    proteins: list[str | None] = []
    for _ in range(20):
        first = "".join(rng.choice(list(RESIDUES), 200))
        proteins += [first, mutated(first, 0.3, RESIDUES, rng), mutated(first, 0.3, RESIDUES, rng)]
    rnas: list[str | None] = ["".join(rng.choice(list(BASES), 500)) for _ in range(73)]
    rnas[60] = mutated(rnas[61] or "", 0.1, BASES, rng)
    return family_dataset(tmp_path_factory.mktemp("families") / "dataset", proteins + [None] * 13, rnas)


def test_genes_with_similar_proteins_or_rnas_are_one_unit_and_others_are_not(families: Dataset) -> None:
    units = split_units(families, SplitConfig(unit="similarity")).tolist()
    assert units == [i // 3 for i in range(60)] + [20, 20, *range(21, 32)]
    assert unit_of_rows(families, SplitConfig(unit="similarity")).tolist() == units
    assert len(set(split_units(families, SplitConfig(unit="similarity", similarity=0.95)).tolist())) == 73


def test_no_family_is_in_two_splits(families: Dataset) -> None:
    for fold in range(5):
        found = of_rows(families, SplitConfig(unit="similarity", fold=fold))
        splits = [found[f"T{i:03}"] for i in range(62)]
        assert all(len(set(splits[i : i + 3])) == 1 for i in range(0, 60, 3)) and splits[60] == splits[61]


def test_equal_sequences_are_one_unit_however_short_or_plain(tmp_path: Path) -> None:
    dataset = family_dataset(tmp_path / "d", ["MK", "MK", "QQQQQQQQQQQQ", "QQQQQQQQQQQQ", "QQQQQQQQQQQQQ", None])
    assert split_units(dataset, SplitConfig(unit="similarity")).tolist() == [0, 0, 1, 1, 2, 3]


def test_a_very_large_family_is_one_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    first = "".join(rng.choice(list(RESIDUES), 300))
    proteins = [mutated(first, 0.02, RESIDUES, rng) for _ in range(400)]
    others = ["".join(rng.choice(list(RESIDUES), 300)) for _ in range(20)]
    dataset = family_dataset(tmp_path / "d", [*proteins, *others])
    units = split_units(dataset, SplitConfig(unit="similarity"))
    assert (units[:400] == 0).all() and units[400:].tolist() == list(range(1, 21))


def test_a_dataset_without_rna_and_protein_cannot_be_split_by_similarity(tmp_path: Path) -> None:
    samples = pd.DataFrame({"transcript_id": ["a"], "gene_id": ["a"], "split": ["train"]})
    samples["dna_key"] = [sequence_key("ACGT", "dna")]
    sequences = [("dna", sequence_key("ACGT", "dna"), "ACGT")]
    dataset = write_dataset(tmp_path / "d", info={}, samples=samples, targets=None, sequences=sequences)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="neither RNAs nor proteins"):
        rows_by_split(dataset, SplitConfig(unit="similarity"))


# --- programs for clusters ---


def put_on_path(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


FOUR: list[str | None] = ["MKVLAAGHWE", "MKVLAAGHWD", "WWYHHACDEF", "CDEFGHIKLM"]


def test_groups_of_mmseqs_are_taken_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = family_dataset(tmp_path / "d", FOUR)
    config = SplitConfig(unit="similarity", tool="mmseqs", similarity=0.6)
    script = (
        'echo "$@" > {0}/said; cp in.fasta {0}/; printf "s0\\ts0\\ns0\\ts2\\ns1\\ts1\\ns3\\ts3\\n" > out_cluster.tsv'
    )
    put_on_path(tmp_path / "bin", "mmseqs", script.format(tmp_path), monkeypatch)
    letters = dict(enumerate(sequence for _, sequence in dataset.sequences("protein")))
    first, second = sorted(FOUR.index(letters[number]) for number in (0, 2))
    units = split_units(dataset, config).tolist()
    assert units[first] == units[second] and len(set(units)) == 3
    assert "--min-seq-id 0.6" in (tmp_path / "said").read_text()
    assert (tmp_path / "in.fasta").read_text() == "".join(f">s{i}\n{one}\n" for i, one in letters.items())


def test_groups_of_cd_hit_are_taken_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = family_dataset(tmp_path / "d", FOUR[:2] + FOUR[2:] + ["MK"])
    lines = [">Cluster 0", "0\t10aa, >s1... *", "1\t9aa, >s3... at 91%", ">Cluster 1", "0\t9aa, >s0... *"]
    script = "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines) + " > out.clstr"
    put_on_path(tmp_path / "bin", "cd-hit", script, monkeypatch)
    letters = [sequence for _, sequence in dataset.sequences("protein")]
    proteins = [*FOUR, "MK"]
    units = split_units(dataset, SplitConfig(unit="similarity", tool="cd-hit")).tolist()
    assert units[proteins.index(letters[1])] == units[proteins.index(letters[3])] and len(set(units)) == 4
    with pytest.raises(InvalidSettingError, match="finds protein from"):
        split_units(dataset, SplitConfig(unit="similarity", tool="cd-hit", similarity=0.3))


def test_a_program_that_is_missing_or_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = family_dataset(tmp_path / "d", FOUR)
    config = SplitConfig(unit="similarity", tool="mmseqs", similarity=0.7)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="mmseqs is not on the PATH"):
        split_units(dataset, config)
    put_on_path(tmp_path / "bin", "mmseqs", "echo out of memory >&2; exit 3", monkeypatch)
    with pytest.raises(SplitError, match="mmseqs ended with code 3: out of memory"):
        split_units(dataset, config)
    put_on_path(tmp_path / "bin", "mmseqs", "exit 0", monkeypatch)
    with pytest.raises(SplitError, match=r"out_cluster.tsv was not written"):
        split_units(dataset, config)


# --- report ---


@pytest.fixture(scope="module")
def report_of(families: Dataset) -> Callable[..., SplitReport]:
    return lambda folds=False, **settings: describe_split(families, SplitConfig(**settings), folds=folds)


def test_relatives_on_both_sides_of_a_given_split_are_reported(report_of: Callable[..., SplitReport]) -> None:
    report = report_of()  # T001 and T002 are held out, their sister T000 is trained on
    assert [(part.name, part.transcripts) for part in report.parts] == [("train", 71), ("validation", 1), ("test", 1)]
    protein = {one.part: one for one in report.closeness if one.modality == "protein"}
    assert all(0.6 < one.median < 0.85 and one.share_alike == 1 for one in protein.values())
    assert {(pair.transcript_id, pair.trained_gene_id) for pair in report.closest} == {
        ("T001", "G000"),
        ("T002", "G000"),
    }
    assert report.share_alike == 1
    assert "Relatives leak: 100.0% of the transcripts held out" in format_report(report)


def test_a_split_by_similarity_leaves_no_relatives(report_of: Callable[..., SplitReport]) -> None:
    report = report_of(unit="similarity", folds=True)
    assert [part.name for part in report.parts] == [f"fold {fold}" for fold in range(5)]
    assert sum(part.transcripts for part in report.parts) == 73 and report.n_units == 32
    assert report.share_alike == 0 and "No transcript held out is alike" in format_report(report)
    by_gene = report_of(unit="gene", folds=True)
    assert by_gene.share_alike is not None and by_gene.share_alike > 0.5


def test_similarity_estimates_the_share_of_equal_letters(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    first = "".join(rng.choice(list(RESIDUES), 2000))
    for share in (0.1, 0.2, 0.3):
        other = mutated(first, share, RESIDUES, rng)
        equal = float(np.mean([a == b for a, b in zip(first, other, strict=True)]))
        dataset = family_dataset(tmp_path / f"{share}", [first, "MK", other])
        (pair,) = describe_split(dataset, SplitConfig()).closest
        assert pair.similarity == pytest.approx(equal, abs=0.04)


def test_a_kmer_sample_estimates_the_same_similarity() -> None:
    rng = np.random.default_rng(4)
    first = "".join(rng.choice(list(BASES), 30_000))
    records = [(bytes([i]), one) for i, one in enumerate([first, mutated(first, 0.05, BASES, rng)])]
    whole, sampled = count_kmers(records, "rna"), count_kmers(records, "rna", most=10_000)
    assert whole.every == 1 and sampled.every >= 8
    found = [one.matrix.shape[1] / (one.alone[0] + one.matrix.shape[1]) for one in (whole, sampled)]
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_the_matrix_of_kmers_is_that_of_sets() -> None:
    rng = np.random.default_rng(5)
    sequences = ["".join(rng.choice(list("ACDEX"), 300)) for _ in range(8)] + ["AC", "", "QQQQQQQQ"]
    found = count_kmers([(bytes([i]), one) for i, one in enumerate(sequences)], "protein")
    windows = [{one[i : i + 6] for i in range(len(one) - 5)} for one in sequences]
    sets = [{w for w in one if "X" not in w and len(set(w)) >= 4} for one in windows]
    common = (found.matrix @ found.matrix.T).toarray()
    for i, one in enumerate(sets):
        assert found.alone[i] + found.matrix[[i]].nnz == len(one)
        assert all(common[i, j] == len(one & other) for j, other in enumerate(sets) if j != i)


def test_rows_are_written_and_only_an_own_table_is_replaced(families: Dataset, tmp_path: Path) -> None:
    report = describe_split(families, SplitConfig(unit="similarity", fold=1, inner_folds=3))
    output = tmp_path / "new" / "rows.tsv"
    for _ in range(2):
        write_rows(report, families, output)
    table = pd.read_csv(output, sep="\t", keep_default_na=False)
    assert list(table.columns) == ["transcript_id", "gene_id", "unit", "part"]
    assert table["part"].tolist() == list(report.part_of_row) and "" in set(table["part"])
    assert table["unit"].tolist()[:4] == ["G000", "G000", "G000", "G003"]
    output.write_text("precious\n")
    with pytest.raises(InvalidInputError, match="no table of a split"):
        write_rows(report, families, output)
    assert output.read_text() == "precious\n"
