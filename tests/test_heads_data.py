"""Batches, splits and scaling: every row once, absent modalities, nothing learnt from validation or test rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fake_study import FakeStudy, fill_cache, make_dataset, make_study
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from embedcache.dataset import read_dataset
from embedcache.errors import CacheIncompleteError, InvalidInputError, UnknownNameError
from embedcache.sequences import MODALITIES
from heads.config import ModelConfig
from heads.data import CachedDataset, collate, cut, epoch_order
from heads.open_sources import open_sources
from heads.scaling import TissueScaler
from heads.setup import open_study
from heads.sources import AbsentSource
from heads.splits import SplitError, rows_by_split, split_by_gene


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def data(study: FakeStudy) -> CachedDataset:
    return open_study(study.dataset, study.cache, ModelConfig()).data


def test_batches_hold_the_rows_asked_for(data: CachedDataset) -> None:
    parts = cut(np.random.default_rng(0).permutation(len(data)), data.lengths, 7)
    for rows, batch in zip(parts, data.batches(parts), strict=True):
        assert batch.rows.tolist() == rows.tolist()
        for i, row in enumerate(rows):
            sample = data[int(row)]
            for modality in MODALITIES:
                assert torch.equal(batch.tokens[modality].to_list()[i], sample.tokens[modality].float())
            assert torch.equal(batch.targets[i], sample.targets.nan_to_num(0))
            assert batch.measured[i].tolist() == (~sample.targets.isnan()).tolist()
    protein = data.dataset.keys("protein")
    assert [length == 0 for length in data.sources["protein"].lengths] == [key is None for key in protein]


def test_a_torch_loader_gives_the_same_batches(data: CachedDataset) -> None:
    rows = np.arange(12)
    (mine,) = data.batches([rows])
    theirs = next(iter(DataLoader(data, batch_size=12, collate_fn=collate, generator=torch.Generator())))
    assert torch.equal(mine.targets, theirs.targets)
    assert torch.equal(mine.measured, theirs.measured)
    for modality in MODALITIES:
        assert all(map(torch.equal, mine.tokens[modality], theirs.tokens[modality]))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_torch_loader_read_int8(study: FakeStudy, tmp_path: Path, context: str) -> None:
    dataset = read_dataset(study.dataset)
    fill_cache(tmp_path, dataset, store_dtype="int8")
    data = CachedDataset(dataset, open_sources(dataset, tmp_path, MODALITIES))
    options = {"batch_size": 40, "collate_fn": collate, "num_workers": 1, "multiprocessing_context": context}
    parts = np.split(np.arange(len(data)), range(40, len(data), 40))
    for mine, theirs in zip(data.batches(parts), DataLoader(data, **options), strict=True):
        for modality in MODALITIES:
            assert all(map(torch.equal, mine.tokens[modality], theirs.tokens[modality]))


def test_means_are_those_of_the_tokens_and_do_not_depend_on_the_batch(data: CachedDataset) -> None:
    rows = np.arange(len(data))[::-1].copy()
    (tokens,), (means,) = data.batches([rows]), data.batches([rows], reads="means")
    for modality in MODALITIES:
        for whole, mean in zip(tokens.tokens[modality].to_list(), means.tokens[modality].to_list(), strict=True):
            assert len(mean) == min(len(whole), 1)
            torch.testing.assert_close(mean, whole.mean(0, keepdim=True)[: len(mean)])


def test_means_survive_the_reuse_of_memory(tmp_path: Path) -> None:
    """float32 stores with one token a sequence are not copied on the way."""
    dataset = make_dataset(tmp_path / "dataset", modalities=("dna",))
    fill_cache(tmp_path / "cache", dataset, store_dtype="float32")
    source = open_sources(dataset, tmp_path / "cache", ["dna"])["dna"]
    source.store.lengths[:] = 1
    source.lengths[:] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heads.sources._POOL_TOKENS", 2)
        means = source.means()
    first = torch.stack([source.packed(np.array([row])).values[0] for row in range(len(means))])
    assert torch.equal(means, first)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 9), st.none() | st.integers(1, 60))
def test_parts_cover_every_row_once_in_order(lengths: list[int], size: int, budget: int | None) -> None:
    rows = np.random.default_rng(0).permutation(len(lengths))
    parts = cut(rows, np.array(lengths, dtype=np.int64), size, budget)
    assert [row for part in parts for row in part] == rows.tolist()
    for part in parts:
        assert 1 <= len(part) <= size
        assert budget is None or len(part) == 1 or sum(lengths[row] for row in part) <= budget


def test_order_depends_on_data_seed_and_epoch_only() -> None:
    rows = np.arange(20)
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    first = epoch_order(rows, 3, 5)
    np.random.seed(2)  # noqa: NPY002
    assert (epoch_order(rows, 3, 5) == first).all()
    assert (epoch_order(rows, 3, 6) != first).any()
    assert (epoch_order(rows, 4, 5) != first).any()
    assert sorted(first) == rows.tolist()


def test_a_store_that_lacks_sequences_says_how_many_and_what_to_run(study: FakeStudy, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", seed=5)
    rna = len({key for key in other.keys("rna") if key})
    with pytest.raises(CacheIncompleteError) as caught:
        open_sources(other, study.cache, ["rna"])
    text = str(caught.value)
    assert f"lacks {rna} of {rna} rna sequences" in text
    assert f"embedcache build --modality rna --encoder tiny-rna --dataset {other.path} --cache {study.cache}" in text


def test_wrong_modalities_and_encoders(study: FakeStudy, tmp_path: Path) -> None:
    without = make_dataset(tmp_path / "without", modalities=("rna", "protein"))
    with pytest.raises(InvalidInputError, match=r"has no dna sequences.*--modalities rna,protein"):
        open_sources(without, study.cache, ["dna", "rna", "protein"])
    dataset = read_dataset(study.dataset)
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny-rna'"):
        open_sources(dataset, study.cache, ["rna"], {"rna": "tiny-rn"})
    with pytest.raises(InvalidInputError, match="protein, which is not read"):
        open_sources(dataset, study.cache, ["rna"], {"protein": "tiny-protein"})


def test_a_modality_that_no_row_has_gives_no_tokens(study: FakeStudy) -> None:
    dataset = read_dataset(study.dataset)
    data = CachedDataset(dataset, {"dna": AbsentSource(8, len(dataset.samples))})
    for reads in ("tokens", "means"):
        (batch,) = data.batches([np.arange(4)], reads=reads)  # type: ignore[arg-type]
        assert batch.tokens["dna"].values.shape == (0, 8)
        assert batch.tokens["dna"].lengths.tolist() == [0] * 4


# --- splits and scaling ---


@settings(max_examples=30)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 5))
def test_no_gene_is_in_two_splits(genes: list[int], seed: int) -> None:
    ids = [f"g{gene}" for gene in genes]
    splits = split_by_gene(ids, validation_fraction=0.3, test_fraction=0.3, seed=seed)
    assert all(len({s for g, s in zip(ids, splits, strict=True) if g == gene}) == 1 for gene in set(ids))
    assert splits[::-1] == split_by_gene(ids[::-1], validation_fraction=0.3, test_fraction=0.3, seed=seed)


def test_a_gene_in_two_splits_is_refused_when_training(study: FakeStudy) -> None:
    dataset = read_dataset(study.dataset)
    twin = dataset.samples["gene_id"].duplicated(keep=False).to_numpy()
    row = next(int(r) for r in rows_by_split(dataset)["train"] if twin[r])
    dataset.samples.loc[row, "split"] = "test"
    with pytest.raises(SplitError, match="in two splits"):
        rows_by_split(dataset)


def test_the_scaler_sees_measured_training_rows_only(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_study(study.dataset, study.cache, ModelConfig())
    poisoned = read_dataset(study.dataset)
    assert poisoned.targets is not None
    rows = np.concatenate([before.rows["validation"], before.rows["test"]])
    poisoned.targets.iloc[rows] = 1e6
    monkeypatch.setattr("heads.setup.read_dataset", lambda _: poisoned)
    after = open_study(study.dataset, study.cache, ModelConfig())
    assert after.scaler == before.scaler
    train = before.data.targets[before.rows["train"]]
    np.testing.assert_allclose(np.nanmean(train, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(train, axis=0), 1, atol=1e-12)
    restored = before.scaler.undo(before.data.targets)
    measured = read_dataset(study.dataset).targets
    np.testing.assert_allclose(restored, pd.DataFrame(measured).to_numpy(), atol=1e-12)


def test_tissues_that_cannot_be_scaled() -> None:
    targets = np.array([[0.1, 1.0, np.nan], [0.1, 2.0, np.nan], [0.1, np.nan, np.nan]])
    scaler = TissueScaler.fit(targets[:, :2], ["flat", "good"])
    assert scaler.constant == ("flat",)
    assert scaler.sd == (1.0, 0.5)
    assert TissueScaler.from_json(scaler.to_json()) == scaler
    with pytest.raises(InvalidInputError, match="'empty' has no measured training row"):
        TissueScaler.fit(targets, ["flat", "good", "empty"])
    with pytest.raises(InvalidInputError, match="No tissue varies"):
        TissueScaler.fit(targets[:, :1], ["flat"])
    with pytest.raises(InvalidInputError, match="too large to scale, up to inf"):
        TissueScaler.fit(np.array([[np.inf], [1.0]]), ["wild"])


def test_a_dataset_without_targets_is_not_trained_on(study: FakeStudy, tmp_path: Path) -> None:
    make_dataset(tmp_path / "bare", targets=False)
    with pytest.raises(InvalidInputError, match="has no targets"):
        open_study(tmp_path / "bare", study.cache, ModelConfig())
