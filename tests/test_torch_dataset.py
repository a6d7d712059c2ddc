import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_study import FakeStudy, make_study
from fakes import FakeEncoder, random_records
from torch.utils.data import ConcatDataset, DataLoader, Subset

from embedcache.build import build_cache
from embedcache.dataset import read_dataset
from embedcache.errors import CacheError, CacheIncompleteError, EmbedCacheError, InvalidInputError, UnknownNameError
from embedcache.ragged import Ragged
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore
from embedcache.torch_dataset import EmbeddingDataset, Padded, TokenBatch, collate, collate_padded

RECORDS = random_records(40)
CONTEXTS = ["fork", "spawn"]


def built(place: str | Path, store_dtype: str = "float16") -> EmbeddingStore:
    build_cache(RECORDS, FakeEncoder(store_dtype=store_dtype), place, tokens_per_batch=200)
    return EmbeddingStore(place)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return built(tmp_path / "s")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"))


def check(batches: list[TokenBatch], store: EmbeddingStore, keys: list[bytes | None]) -> None:
    """Every row once, with its own tokens."""
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(len(keys)))
    for batch in batches:
        tokens = batch.tokens["protein"]
        assert isinstance(tokens, Ragged)
        for row, found in zip(batch.rows.tolist(), tokens.to_list(), strict=True):
            key = keys[row]
            wanted = np.zeros((0, 12)) if key is None else store[key]
            assert np.array_equal(found.float().numpy(), np.asarray(wanted, "f4"))


@pytest.mark.parametrize("store_dtype", ["float16", "bfloat16", "float32", "int8"])
def test_a_batch_has_the_numbers_of_the_store(tmp_path: Path, store_dtype: str) -> None:
    store = built(tmp_path / "s", store_dtype)
    keys = [*store, None, next(iter(store))]
    loader = DataLoader(EmbeddingDataset(store, keys), batch_size=7, shuffle=True, collate_fn=collate)
    batches = list(loader)
    check(batches, store, keys)
    dtype = torch.float32 if store_dtype == "int8" else getattr(torch, store_dtype)
    assert {batch.tokens["protein"].values.dtype for batch in batches} == {dtype}
    kept = batches[0].tokens["protein"].values.clone()
    batches[0].tokens["protein"].values.zero_()  # memory of its own, not a map of the file
    again = EmbeddingDataset(store, keys).__getitems__(batches[0].rows.tolist())
    assert torch.equal(again.tokens["protein"].values, kept)


def test_forked_workers_read_a_store_that_their_parent_has_mapped(store: EmbeddingStore) -> None:
    keys: list[bytes | None] = [*store, None]
    data = EmbeddingDataset(store, keys)
    assert data[0].tokens["protein"].shape == store[next(iter(store))].shape  # maps are open before the fork
    loader = DataLoader(data, batch_size=16, collate_fn=collate, num_workers=2, multiprocessing_context="fork")
    check(list(loader), store, keys)


@pytest.mark.parametrize("context", CONTEXTS)
def test_workers_that_stay_give_each_epoch_whole_and_in_its_own_order(store: EmbeddingStore, context: str) -> None:
    keys: list[bytes | None] = [*store, None, *store]
    orders = []
    for _ in range(2):
        loader = DataLoader(
            EmbeddingDataset(store, keys),
            batch_size=16,
            shuffle=True,
            generator=torch.Generator().manual_seed(3),
            collate_fn=collate,
            num_workers=2 if context == "fork" else 1,
            persistent_workers=True,
            multiprocessing_context=context,
        )
        for _ in range(3):
            batches = list(loader)  # all held at once: no batch lies in memory that another one reuses
            check(batches, store, keys)
            orders.append([row for batch in batches for row in batch.rows.tolist()])
        if context == "spawn":
            break
    assert len({*map(tuple, orders)}) == 3 and (context == "spawn" or orders[:3] == orders[3:])


@pytest.mark.parametrize("store_dtype", ["float16", "bfloat16", "int8"])
def test_a_worker_fills_memory_that_it_can_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_dtype: str
) -> None:
    store = built(tmp_path / "s", store_dtype)
    data = EmbeddingDataset(store, [*store, None])
    here = data.__getitems__([3, len(store), 0])
    monkeypatch.setattr(torch.utils.data, "get_worker_info", object)
    there = data.__getitems__([3, len(store), 0])
    assert all(map(torch.equal, here.tokens["protein"], there.tokens["protein"]))
    assert not here.tokens["protein"].values.is_shared()
    assert there.tokens["protein"].values.is_shared() == (store_dtype != "int8")
    assert data.__getitems__([len(store)]).tokens["protein"].values.shape == (0, 12)


@pytest.mark.parametrize("store_dtype", ["float16", "int8"])
def test_batches_read_ahead_are_those_of_a_loader(tmp_path: Path, store_dtype: str) -> None:
    store = built(tmp_path / "s", store_dtype)
    keys = {"one": [*store, None], "other": [None, *reversed(list(store))]}
    data = EmbeddingDataset({"one": store, "other": store}, keys, np.arange(len(store) + 1.0)[:, None])
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    parts = [order[i : i + 7] for i in range(0, len(order), 7)]
    found = 0
    for part, batch in zip(parts, data.batches(parts), strict=True):
        wanted = data.__getitems__(part)
        assert torch.equal(batch.rows, wanted.rows) and torch.equal(batch.targets, wanted.targets)
        assert set(batch.tokens) == {"one", "other"}
        for name in keys:
            assert all(map(torch.equal, batch.tokens[name], wanted.tokens[name]))
        found += 1
    assert found == len(parts) > 3 and list(data.batches([])) == []


def test_rows_travel_by_key_for_a_store_may_grow(tmp_path: Path) -> None:
    build_cache(RECORDS[:10], FakeEncoder(), tmp_path / "s")
    data = EmbeddingDataset(tmp_path / "s", RECORDS[:10])
    packed = pickle.dumps(data)
    assert len(packed) < 5000  # places and keys, no embeddings
    build_cache(RECORDS, FakeEncoder(), tmp_path / "s")
    copy = pickle.loads(packed)
    assert all(torch.equal(copy[i].tokens["protein"], data[i].tokens["protein"]) for i in range(10))


def test_padded_batches_have_a_mask(store: EmbeddingStore) -> None:
    keys = [*store, None]
    loader = DataLoader(EmbeddingDataset(store, keys), batch_size=9, collate_fn=collate_padded)
    for batch in loader:
        padded = batch.tokens["protein"]
        assert isinstance(padded, Padded) and padded.mask.dtype == torch.bool
        assert padded.values.shape[:2] == padded.mask.shape
        assert not padded.values[~padded.mask].any()
        for i, row in enumerate(batch.rows.tolist()):
            wanted = np.zeros((0, 12)) if keys[row] is None else store[keys[row]]
            assert np.array_equal(padded.values[i][padded.mask[i]].numpy(), wanted)


def test_records_subsets_and_concatenations(store: EmbeddingStore) -> None:
    data = EmbeddingDataset(store, RECORDS, targets=np.arange(2.0 * len(RECORDS)).reshape(-1, 2))
    assert data.ids[:2] == ["p0", "p1"] and len(data) == len(RECORDS)
    keys = [sequence_key(record.sequence, "protein") for record in RECORDS]
    assert all(torch.equal(data[i].tokens["protein"], torch.from_numpy(np.array(store[keys[i]]))) for i in (0, 5, -1))
    (batch,) = DataLoader(Subset(data, [3, 1]), batch_size=2, collate_fn=collate)
    assert batch.rows.tolist() == [3, 1] and batch.targets.tolist() == [[6, 7], [2, 3]]
    (both,) = DataLoader(ConcatDataset([data, data]), batch_size=2 * len(data), collate_fn=collate)
    assert both.rows.tolist() == 2 * list(range(len(data)))
    direct = data.__getitems__(range(len(data))).tokens["protein"]
    assert torch.equal(both.tokens["protein"].values, torch.cat([direct.values] * 2))
    with pytest.raises(IndexError):
        data[len(data)]
    assert len(list(data)) == len(data)  # a plain loop ends


def test_a_directory_gives_modalities_targets_and_splits(study: FakeStudy) -> None:
    dataset = read_dataset(study.dataset)
    data = EmbeddingDataset.from_directory(study.dataset, study.cache)
    assert data.ids == dataset.samples["transcript_id"].tolist() and set(data.stores) == {"dna", "rna", "protein"}
    assert dataset.targets is not None
    batch = data.__getitems__(range(len(data)))
    assert np.array_equal(batch.targets.numpy(), dataset.targets.to_numpy("f4"), equal_nan=True)
    for modality in dataset.modalities:
        lacks = torch.tensor([key is None for key in dataset.keys(modality)])
        assert torch.equal(batch.tokens[modality].lengths == 0, lacks)
    train = EmbeddingDataset.from_directory(study.dataset, study.cache, ["rna"], split="train")
    wanted = dataset.samples["transcript_id"][dataset.samples["split"] == "train"].tolist()
    assert train.ids == wanted and set(train.stores) == {"rna"}
    two = EmbeddingDataset.from_directory(study.dataset, study.cache, transcripts=[data.ids[4], data.ids[2]])
    assert two.ids == [data.ids[4], data.ids[2]]
    for i, row in enumerate((4, 2)):
        assert all(torch.equal(two[i].tokens[m], data[row].tokens[m]) for m in dataset.modalities)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        pytest.param(InvalidInputError, "no sequence key", {"keys": ["T1.1"]}, id="an ID"),
        pytest.param(InvalidInputError, "Rows do not match", {"targets": np.zeros((3, 1))}, id="targets"),
        pytest.param(InvalidInputError, "targets \\(1,\\)", {"targets": np.zeros(1)}, id="a vector of targets"),
        pytest.param(InvalidInputError, "Rows do not match", {"ids": ["a", "b"]}, id="ids"),
        pytest.param(CacheIncompleteError, "lacks 1 of 1", {"keys": [b"n" * 16]}, id="absent"),
        pytest.param(InvalidInputError, "under the same name", {"keys": {"rna": []}}, id="names"),
    ],
)
def test_what_does_not_fit_is_refused(
    store: EmbeddingStore, error: type[EmbedCacheError], message: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(error, match=message):
        EmbeddingDataset(**{"stores": store, "keys": [next(iter(store))], **arguments})


def test_unknown_names_of_a_directory_are_refused(study: FakeStudy) -> None:
    with pytest.raises(UnknownNameError, match="transcript 'T0'"):
        EmbeddingDataset.from_directory(study.dataset, study.cache, transcripts=["T0"])
    with pytest.raises(UnknownNameError, match="Did you mean 'test'"):
        EmbeddingDataset.from_directory(study.dataset, study.cache, split="tests")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="named for 'dna', read are rna"):
        EmbeddingDataset.from_directory(study.dataset, study.cache, ["rna"], encoders={"dna": "tiny-dna"})
    with pytest.raises(InvalidInputError, match="'rma'"):
        EmbeddingDataset.from_directory(study.dataset, study.cache, ["rma"])  # type: ignore[list-item]


def test_a_batch_is_made_of_what_pinning_goes_into(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.data_ptr()) or self.clone())
    batch = EmbeddingDataset(store, list(store)).__getitems__([0, 1])
    copy = pin_memory(batch)
    assert isinstance(copy, TokenBatch) and isinstance(copy.tokens["protein"], Ragged) and len(pinned) == 4
    assert torch.equal(copy.tokens["protein"].values, batch.tokens["protein"].values)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, embedcache, embedcache.store.read; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stdout == "False\n"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")
    from fake_s3 import s3_server

    with s3_server("loader-tests") as url:
        yield url


def test_spawned_workers_read_an_object_store_and_forked_ones_say_why_not(bucket: str) -> None:
    store = built(f"{bucket}/s")
    keys: list[bytes | None] = [*store, None]
    data = EmbeddingDataset(f"{bucket}/s", keys)
    assert len(data[0].tokens["protein"])  # the threads of its client run before the fork
    options = {"batch_size": 16, "collate_fn": collate, "num_workers": 1}
    with pytest.raises(CacheError, match="multiprocessing_context='spawn'") as caught:
        list(DataLoader(data, multiprocessing_context="fork", timeout=30, **options))
    assert "\n" not in str(caught.value)
    check(list(DataLoader(data, multiprocessing_context="spawn", **options)), store, keys)
