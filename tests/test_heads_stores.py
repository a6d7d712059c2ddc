"""Heads on stores of every kind: number formats, pooling, layers, windows, object stores."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_study import WIDTHS, fill_cache, make_dataset, records_of, store_name
from fakes import FakeEncoder
from numpy.typing import NDArray

from embedcache.build import build_cache
from embedcache.dataset import Dataset
from embedcache.encoders.cards import TINY_ENCODERS
from embedcache.encoders.spec import EncoderSpec
from embedcache.job import BuildJob, run_job
from embedcache.prepare.simulate import prepare_simulate
from embedcache.ragged import Ragged
from embedcache.sequences import Modality, sequence_key
from embedcache.splits import SplitRule
from embedcache.store import EmbeddingStore, list_stores, store_path
from heads.config import ModelConfig, TrainConfig
from heads.data import CachedDataset
from heads.evaluate import evaluate
from heads.open_sources import open_sources
from heads.predict import predict
from heads.setup import open_study
from heads.train import train

MODALITIES: tuple[Modality, ...] = ("rna", "protein")
MODEL = ModelConfig(modalities=MODALITIES, heads=2)
CONCAT = ModelConfig(modalities=MODALITIES, aggregator="concat", hidden=8)
CONFIG = TrainConfig(epochs=2, batch_size=8, device="cpu", max_tokens_per_batch=300)
WINDOWS = {"crop": "windows", "max_tokens": 9, "overlap": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("study") / "dataset", n_genes=16, modalities=MODALITIES)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")
    from fake_s3 import s3_server

    with s3_server("heads-tests") as url:
        yield url


def history(run: Path) -> bytes:
    return (run / "history.jsonl").read_bytes()


KINDS: dict[str, dict[str, Any]] = {
    "float32": {"store_dtype": "float32"},
    "float16": {"store_dtype": "float16"},
    "bfloat16": {"store_dtype": "bfloat16"},
    "int8": {"store_dtype": "int8"},
    "means": {"pooling": "mean", "store_dtype": "float32"},
    "means as int8": {"pooling": "mean", "store_dtype": "int8"},
    "adaptive": {"pooling": "adaptive-4"},
    "adaptive as int8": {"pooling": "adaptive-4", "store_dtype": "int8"},
    "a layer": {"layer": 1},
    "windows": WINDOWS,
    "windows as bfloat16": {**WINDOWS, "store_dtype": "bfloat16"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_train_evaluate_and_predict_with_a_store_of_any_kind(dataset: Dataset, tmp_path: Path, kind: str) -> None:
    cache = fill_cache(tmp_path / "cache", dataset, **KINDS[kind])
    check_numbers(dataset, cache)
    result = train(dataset=dataset.path, cache=cache, run=tmp_path / "run", model=MODEL, config=CONFIG)
    assert result.epochs == 2 and np.isfinite(result.validation["validation_loss"])
    assert evaluate(tmp_path / "run", resamples=20).n_transcripts > 0
    table = pd.read_parquet(predict(tmp_path / "run", dataset.path, cache, tmp_path / "p.parquet").output)
    assert len(table) == len(dataset.samples) and np.isfinite(table.iloc[:, 2:].to_numpy()).all()
    assert np.ptp(table.iloc[:, 2:].to_numpy(), axis=0).min() > 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for modality in MODALITIES:
        (place,) = list_stores(cache, modality)
        assert config["encoders"][modality]["directory"] == place.name
        assert EncoderSpec.from_json(config["specs"][modality]) == EmbeddingStore(place).spec


def check_numbers(dataset: Dataset, cache: Path | str) -> None:
    """Batches, samples and means have the numbers of the store, bit for bit."""
    data = CachedDataset(dataset, open_sources(dataset, cache, MODALITIES))
    parts = np.array_split(np.random.default_rng(0).permutation(len(data)), 3)
    rows = np.concatenate(parts)
    tokens: dict[str, list[torch.Tensor]] = {m: [] for m in MODALITIES}
    for batch in data.batches(parts):  # valid until the next
        for m in MODALITIES:
            tokens[m] += [part.clone() for part in batch.tokens[m].to_list()]
    (means,) = data.batches([rows], reads="means")
    for modality in MODALITIES:
        store, keys = data.sources[modality].store, dataset.keys(modality)  # type: ignore[attr-defined]
        pooled = iter(means.tokens[modality].values)
        for row, found in zip(rows.tolist(), tokens[modality], strict=True):
            key = keys[row]
            wanted = torch.zeros(0, store.width) if key is None else torch.from_numpy(store[key].copy()).float()
            assert found.dtype == torch.float32 and torch.equal(found, wanted)
            assert torch.equal(data[row].tokens[modality].float(), wanted)
            if key is not None:
                torch.testing.assert_close(next(pooled), wanted.mean(0))


# --- int8 ---


class Decoded(FakeEncoder):
    """Gives the numbers that another store holds."""

    source: EmbeddingStore

    def rows(self, sequence: str) -> NDArray[np.float32]:
        key = sequence_key(sequence, self.spec.modality)
        return self.source[key] if key in self.source else super().rows(sequence)  # a sequence of the self-test


@pytest.mark.parametrize("model", [MODEL, CONCAT], ids=["tokens", "means"])
def test_training_on_int8_is_bitwise_training_on_what_it_decodes_to(
    dataset: Dataset, tmp_path: Path, model: ModelConfig
) -> None:
    fill_cache(tmp_path / "int8", dataset, store_dtype="int8")
    for modality in MODALITIES:
        encoder = Decoded(name=f"tiny-{modality}", modality=modality, width=WIDTHS[modality], store_dtype="float32")
        (place,) = list_stores(tmp_path / "int8", modality)
        encoder.source = EmbeddingStore(place)
        build_cache(records_of(dataset, modality), encoder, store_path(tmp_path / "float32", encoder.spec))
    for name in ("int8", "float32"):
        train(dataset=dataset.path, cache=tmp_path / name, run=tmp_path / f"run-{name}", model=model, config=CONFIG)
    assert history(tmp_path / "run-int8") == history(tmp_path / "run-float32")


def test_int8_stays_int8_in_memory_and_on_the_way_to_the_device(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}
    rows = np.arange(len(dataset.samples))
    for dtype in ("float32", "int8"):
        encoder = FakeEncoder(name="tiny-rna", modality="rna", width=320, store_dtype=dtype)
        build_cache(records_of(dataset, "rna"), encoder, store_path(tmp_path / dtype, encoder.spec))
        source = open_sources(dataset, tmp_path / dtype, ["rna"])["rna"]
        (streamed,) = source.stream([rows])
        assert streamed.values.dtype == getattr(torch, dtype) == source.packed(rows).values.dtype
        sizes[dtype] = streamed.values.nbytes
    assert sizes["int8"] / sizes["float32"] == 324 / 1280  # a byte a number and four for the scale
    sent: list[torch.dtype] = []
    to = Ragged.to

    def watched(self: Ragged, device: Any, dtype: Any = None) -> Ragged:
        sent.append(self.values.dtype)
        return to(self, device, dtype)

    monkeypatch.setattr(Ragged, "to", watched)
    (batch,) = CachedDataset(dataset, {"rna": source}).batches([rows])
    assert sent == [torch.int8] and batch.tokens["rna"].values.dtype == torch.float32
    assert batch.tokens["rna"].values.shape[1] == 320


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_a_gpu_decodes_to_the_numbers_of_the_cpu(dataset: Dataset, tmp_path: Path, dtype: str) -> None:
    data = CachedDataset(dataset, open_sources(dataset, fill_cache(tmp_path, dataset, store_dtype=dtype), MODALITIES))
    rows = np.arange(len(data))
    (here,), (there,) = data.batches([rows]), data.batches([rows], device="cuda")
    for modality in MODALITIES:
        assert there.tokens[modality].values.is_cuda
        assert torch.equal(here.tokens[modality].values, there.tokens[modality].values.cpu())


# --- object stores ---


@pytest.mark.parametrize("kind", ["float16", "int8", "adaptive as int8"])
def test_a_cache_in_an_object_store_gives_the_same_run(
    dataset: Dataset, tmp_path: Path, bucket: str, kind: str
) -> None:
    remote = f"{bucket}/{kind.replace(' ', '-')}"
    for cache in (tmp_path / "cache", remote):
        fill_cache(cache, dataset, **KINDS[kind])
    check_numbers(dataset, remote)
    for name, cache in (("here", tmp_path / "cache"), ("there", remote)):
        train(dataset=dataset.path, cache=cache, run=tmp_path / name, model=MODEL, config=CONFIG)
    assert history(tmp_path / "here") == history(tmp_path / "there")
    assert json.loads((tmp_path / "there" / "config.json").read_text())["cache"] == remote
    scores = [evaluate(tmp_path / name, resamples=20).to_json()["models"] for name in ("here", "there")]
    assert scores[0] == scores[1]
    predict(tmp_path / "here", dataset.path, remote, tmp_path / "p.parquet")
    predict(tmp_path / "there", dataset.path, tmp_path / "cache", tmp_path / "q.parquet")
    assert pd.read_parquet(tmp_path / "p.parquet").equals(pd.read_parquet(tmp_path / "q.parquet"))


# --- what rounding costs ---


@pytest.mark.slow
def test_smaller_stores_explain_nearly_as_much(tmp_path: Path) -> None:
    dataset, cache = tmp_path / "dataset", tmp_path / "cache"
    shares: dict[Modality, float] = {"protein": 0.05, "dna": 0.25, "rna": 0.45}
    splits = SplitRule(validation_fraction=0.2, test_fraction=0.3)
    prepare_simulate(
        output=dataset,
        n_genes=160,
        dna_length=768,
        noncoding_share=0,
        shares=shares,
        splits=splits,
        encoders=TINY_ENCODERS,
    )
    model, config = ModelConfig(modalities=("rna",), heads=2), TrainConfig(epochs=50, batch_size=16, device="cpu")
    reached = {}
    for dtype in ("float32", "int8", "bfloat16", "float16"):
        run_job(BuildJob(dataset=dataset, cache=cache, modality="rna", options={"store_dtype": dtype}))
        encoders: dict[Modality, str] = {"rna": store_name(cache, "rna", store_dtype=dtype)}
        run = tmp_path / dtype
        result = train(dataset=dataset, cache=cache, run=run, model=model, config=config, encoders=encoders)
        reached[dtype] = result.validation["r2"], evaluate(run, resamples=100).models[0].overall.r2
    assert min(reached["float32"]) > 0.2
    for dtype in ("int8", "bfloat16", "float16"):
        assert reached[dtype] == pytest.approx(reached["float32"], abs=0.005), reached
    assert open_study(dataset, cache, model, encoders).widths == {"rna": 64}
