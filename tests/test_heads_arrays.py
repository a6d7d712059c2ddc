"""Rows that are no whole dataset: by number or name, with groups held out, and datasets that have little."""

from pathlib import Path

import numpy as np
import pytest
from fake_study import FakeStudy, make_dataset, make_study

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import CacheError, InvalidInputError, UnknownNameError
from heads.arrays import row_numbers, study_of
from heads.data import CachedDataset
from heads.features import composition_features, length_features
from heads.open_sources import open_sources
from heads.scaling import TissueScaler
from heads.sources import AbsentSource


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=24)


@pytest.fixture(scope="module")
def dataset(study: FakeStudy) -> Dataset:
    return read_dataset(study.dataset)


def test_rows_by_number_and_by_name_are_the_same(dataset: Dataset) -> None:
    ids = dataset.samples["transcript_id"].tolist()
    wanted = [4, 0, 4]
    for given_rows in ([4, 0, 4], np.array([[4], [0], [4]]), np.array([4, 0, 4], np.uint8), [ids[i] for i in wanted],
                       np.array([[ids[i]] for i in wanted], dtype=object)):  # fmt: skip
        assert row_numbers(dataset, given_rows).tolist() == wanted
    wrong = (([0.5], "type float64"), ([[1, 2]], r"shape \(1, 2\)"), ([], "shape"), ([-1], "rows -1 to -1"),
             ([len(ids)], f"has 0 to {len(ids) - 1}"), (["T0.0", "Té"], "'Té' is no transcript of"))  # fmt: skip
    for given_rows, words in wrong:
        with pytest.raises(InvalidInputError, match=words):
            row_numbers(dataset, given_rows)


def test_rows_to_learn_are_measured_and_whole_groups_are_held_out(study: FakeStudy, dataset: Dataset) -> None:
    sources = open_sources(dataset, study.cache, ["rna"])
    targets = dataset.targets.astype(np.float64)  # type: ignore[union-attr]
    targets.iloc[3] = np.nan
    groups = dataset.samples["gene_id"].tolist()
    made = study_of(sources, targets, groups, validation_fraction=0.3, seed=1)
    train_rows, validation = made.rows["train"], made.rows["validation"]
    measured = np.flatnonzero(~targets.isna().all(axis=1))
    assert sorted([*train_rows, *validation]) == measured.tolist()
    assert 3 not in measured and not len(made.rows["test"])
    assert not {groups[i] for i in train_rows} & {groups[i] for i in validation}
    assert made.scaler == TissueScaler.fit(targets.to_numpy()[train_rows], list(targets.columns))
    assert 0.1 < len(validation) / len(measured) <= 0.3
    with pytest.raises(InvalidInputError, match="rows are in 1 groups, expected at least 2"):
        study_of(sources, targets, ["a"] * len(groups), validation_fraction=0.3, seed=1)


def test_what_no_row_has_gives_no_features(tmp_path: Path) -> None:
    bare = make_dataset(tmp_path / "d", n_genes=3, modalities=("dna",))
    bare.samples["cds_start"] = bare.samples["cds_end"] = None
    assert length_features(bare).shape == (len(bare.samples), 0)
    assert composition_features(bare).shape == (len(bare.samples), 256)
    assert len(CachedDataset(bare, {"dna": AbsentSource(3, len(bare.samples))})) == len(bare.samples)


def test_an_encoder_that_is_not_there_is_told(study: FakeStudy, dataset: Dataset) -> None:
    with pytest.raises(UnknownNameError, match="Unknown modality 'lipid'"):
        open_sources(dataset, study.cache, ["rna"], {"lipid": "x"})  # type: ignore[dict-item]
    with pytest.raises((CacheError, UnknownNameError), match="nothing"):
        open_sources(dataset, study.cache, ["rna"], {"rna": "nothing"})
