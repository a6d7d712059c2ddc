from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.dataset import Dataset
from embedcache.errors import EmbedCacheError
from embedcache.prepare.simulate import SHARES, prepare_simulate
from embedcache.prepare.simulated_genes import gc_share, residue_score


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare_simulate(output=tmp_path_factory.mktemp("simulated") / "d")


def of_samples(dataset: Dataset, modality: Any) -> list[str | None]:
    sequences = dict(dataset.sequences(modality))
    return [None if key is None else sequences[key] for key in dataset.keys(modality)]


def features(dataset: Dataset) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Planted features, measured again on the sequences that came out of preparing."""
    dna, rna, protein = (of_samples(dataset, modality) for modality in ("dna", "rna", "protein"))
    columns = [[gc_share(s or "N") for s in dna], [gc_share(s or "N") for s in rna]]
    columns.append([residue_score(s) if s else np.nan for s in protein])
    table = np.array(columns).T
    return np.nan_to_num(table - np.nanmean(table, axis=0))


def r2(columns: Any, targets: Any) -> float:
    design = np.column_stack([np.ones(len(columns)), columns])
    fitted = design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    return float(np.mean(1 - ((targets - fitted) ** 2).mean(axis=0) / targets.var(axis=0)))


@pytest.mark.parametrize(
    ("name", "columns"), [("dna", [0]), ("rna", [1, 2]), ("protein", [2]), ("dna+rna+protein", [0, 1, 2])]
)
def test_the_truth_holds_on_the_prepared_dataset(study: Dataset, name: str, columns: list[int]) -> None:
    truth = study.info["truth"]
    assert study.targets is not None
    found = r2(features(study)[:, columns], study.targets.to_numpy())
    assert found == pytest.approx(truth["realised_r2"][name], abs=1e-3)
    assert found == pytest.approx(truth["explainable_r2"][name], abs=0.08)


def test_modalities_explain_in_the_planted_order(study: Dataset) -> None:
    for kind in ("explainable_r2", "realised_r2"):
        value = study.info["truth"][kind]
        assert value["protein"] < value["dna"] < value["rna"] < value["dna+rna+protein"] - 0.2


def test_composition_of_the_sequences_shows_what_was_planted(study: Dataset) -> None:
    assert study.targets is not None
    letters = [[(s or "").count(letter) / len(s or "x") for letter in "ACG"] for s in of_samples(study, "rna")]
    bound = study.info["truth"]["realised_r2"]["rna"]
    assert 0.6 * bound < r2(np.array(letters), study.targets.to_numpy()) < 1.05 * bound


def test_a_simulated_study_is_labelled_and_complete(study: Dataset) -> None:
    assert study.labels == ["simulated"]
    assert [study.encoder(modality) for modality in study.modalities] == [f"mini-{m}" for m in study.modalities]
    assert (len(study.samples), len(study.tissues)) == (900, 6)
    assert study.samples["biotype"].value_counts().to_dict() == {"protein_coding": 765, "lncRNA": 135}
    assert (study.samples["protein_key"].notna() == (study.samples["biotype"] == "protein_coding")).all()
    assert set(study.samples["strand"]) == {"+", "-"}
    assert study.info["left_out"] == {}
    assert {file.name for file in (study.path / "study").iterdir()} == {
        "genome.fa", "annotation.gtf", "transcript_tpm.gct.gz", "sample_attributes.tsv",
    }  # fmt: skip


def test_isoforms_share_their_window_and_differ_in_rna(study: Dataset) -> None:
    genes = study.samples.groupby("gene_id")
    assert (genes["dna_key"].nunique() == 1).all()
    assert (genes["rna_key"].nunique() == 3).all()


def test_the_same_seed_gives_the_same_dataset(tmp_path: Path) -> None:
    one, same, other = (
        prepare_simulate(output=tmp_path / name, n_genes=20, n_tissues=2, seed=seed)
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert one.digest == same.digest != other.digest
    assert one.info["inputs"] == same.info["inputs"]
    assert prepare_simulate(output=tmp_path / "a", n_genes=20, n_tissues=2, seed=5).digest == one.digest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_genes": 3}, "at least 10 genes"),
        ({"isoforms_per_gene": 9}, "1 to 4 isoforms"),
        ({"shares": {"dna": 0.5, "rna": 0.5, "protein": 0.1}}, "0.9 in sum"),
        ({"shares": {"dna": 0.5}}, "Give dna, rna and protein"),
        ({"shares": {"dna": 0.3, "rna": float("nan"), "protein": 0.1}}, "0.9 in sum"),
        ({"dna_length": 0}, "0 bp"),
    ],
    ids=["genes", "isoforms", "sum", "names", "nan", "length"],
)
def test_settings_out_of_range_give_one_line(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(EmbedCacheError, match=message):
        prepare_simulate(output=tmp_path / "d", **settings)
    assert list(tmp_path.iterdir()) == []


def test_shares_leave_room_for_noise() -> None:
    assert sum(SHARES.values()) < 1


def test_the_summary_says_that_it_is_simulated_and_what_can_be_explained(tmp_path: Path) -> None:
    summary = prepare_simulate(output=tmp_path / "d", n_genes=20).summary()
    assert "(simulated)" in summary.splitlines()[0] and "rna 0.45, protein 0.10" in summary
