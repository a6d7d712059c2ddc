"""Splits by similarity: families that stay together, the programs that find them, and what leaks otherwise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedcache.dataset import Dataset
from embedcache.dataset_write import write_dataset
from embedcache.errors import InvalidInputError, InvalidSettingError, MissingDependencyError
from embedcache.sequences import sequence_key
from heads.split_config import SplitConfig
from heads.splits import SplitError, rows_by_split, split_units, unit_of_rows
from heads.splits.describe import SplitReport, describe_split
from heads.splits.kmers import count_kmers
from heads.splits.text import format_report, write_rows


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
        ids, divided = (
            families.samples["transcript_id"],
            rows_by_split(families, SplitConfig(unit="similarity", fold=fold)),
        )
        found = {ids.iloc[row]: name for name, rows in divided.items() for row in rows}
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
