"""A run with its encoders in place of the cache gives what the cache gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_study import make_study
from live_study import build_minis, letters, make_live

from embedcache.encoders.registry import load_encoder
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import InvalidSequenceError, InvalidSettingError, UnknownNameError
from embedcache.store import EmbeddingStore, list_stores
from heads.checkpoint import CheckpointError
from heads.config import ModelConfig, TrainConfig
from heads.interpret.explain import live_model
from heads.interpret.explain.live_model import open_live
from heads.predict import predict
from heads.train import train


@pytest.fixture(autouse=True)
def one_thread(set_threads: Any) -> None:
    set_threads(1)


def by_cache(path: Path) -> np.ndarray:
    predict(path / "run", path / "dataset", path / "cache", path / "p.parquet", device="cpu")
    return pd.read_parquet(path / "p.parquet").iloc[:, 2:].to_numpy()


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, {"aggregator": "concat"}),
        ({}, {"aggregator": "concat", "bins": 4}),
        ({}, {"aggregator": "concat", "pooling": "max-mean", "lengths": True}),
        ({"pooling": "adaptive-8"}, {"aggregator": "cross-attention", "heads": 2}),
        (
            {"max_tokens": 10, "crop": "windows", "overlap": 3},
            {"aggregator": "cross-attention", "heads": 2, "modalities": ("dna", "protein")},
        ),
        ({"max_tokens": 12, "crop": "keep-5-prime", "layer": 1}, {"aggregator": "perceiver", "heads": 2}),
    ],
    ids=["means", "bins", "max-means", "pooled", "windows", "cropped-layer"],
)
def test_predictions_are_those_from_a_float32_store_bit_for_bit(
    tmp_path: Path, options: dict[str, Any], model: dict[str, Any]
) -> None:
    dataset, run = make_live(tmp_path, options, **model)
    live = open_live(run, "cpu")
    np.testing.assert_array_equal(live.predict(letters(dataset)), by_cache(tmp_path))


def test_a_float16_store_differs_by_its_rounding(tmp_path: Path) -> None:
    dataset, run = make_live(tmp_path, {"store_dtype": "float16"}, aggregator="cross-attention", heads=2)
    found, cached = open_live(run, "cpu").predict(letters(dataset)), by_cache(tmp_path)
    assert 0 < np.abs(found - cached).max() < 5e-3


def test_layers_joined_by_plus(tmp_path: Path) -> None:
    dataset, _ = make_live(tmp_path, {"layer": 1}, modalities=("rna",), aggregator="concat")
    rna = load_encoder("mini-rna", "rna", store_dtype="float32")
    build_minis(tmp_path / "cache", dataset, ["rna"], store_dtype="float32")
    first, last = (place.name for place in list_stores(tmp_path / "cache", "rna"))
    assert {EmbeddingStore(p).spec.layer for p in list_stores(tmp_path / "cache", "rna")} == {1, rna.spec.layer}
    train(
        dataset=dataset.path,
        cache=tmp_path / "cache",
        run=tmp_path / "two",
        model=ModelConfig(modalities=("rna",), aggregator="concat", pooling="max-mean"),
        config=TrainConfig(epochs=1, device="cpu"),
        encoders={"rna": f"{first}+{last}"},
    )
    predict(tmp_path / "two", dataset.path, tmp_path / "cache", tmp_path / "p.parquet", device="cpu")
    cached = pd.read_parquet(tmp_path / "p.parquet").iloc[:, 2:].to_numpy()
    np.testing.assert_array_equal(open_live(tmp_path / "two", "cpu").predict(letters(dataset)), cached)


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "adaptive-8"}, {"pooling": "mean"}, {"max_tokens": 10, "crop": "windows", "overlap": 3}],
    ids=["tokens", "adaptive", "mean", "windows"],
)
def test_embeddings_open_to_gradients_are_the_same_up_to_rounding(tmp_path: Path, options: dict[str, Any]) -> None:
    dataset, run = make_live(tmp_path, options, aggregator="concat", modalities=("dna",))
    live = open_live(run, "cpu")
    sequences = [None, *(one["dna"] for one in letters(dataset)[:5]), None]
    found = live.embed("dna", sequences)
    with torch.no_grad():
        exact = live.embed("dna", sequences)
    assert torch.equal(found.offsets, exact.offsets)
    assert found.lengths[0] == found.lengths[-1] == 0
    torch.testing.assert_close(found.values, exact.values, rtol=1e-4, atol=1e-4)
    found.values.sum().backward()
    encoder = live.tokens["dna"].encoders[0]
    inner = encoder.encoder if isinstance(encoder, WindowedEncoder) else encoder
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in inner.model.parameters())


def test_forward_is_predict(tmp_path: Path) -> None:
    dataset, run = make_live(tmp_path, aggregator="cross-attention", heads=2)
    live, inputs = open_live(run, "cpu"), letters(dataset)[:7]
    tokens = {m: live.embed(m, [one[m] for one in inputs]) for m in live.modalities}
    np.testing.assert_allclose(live.forward(tokens).detach().numpy(), live.predict(inputs), atol=1e-4)


def test_each_distinct_sequence_is_embedded_once_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, run = make_live(tmp_path, aggregator="cross-attention", heads=2)
    live, inputs = open_live(run, "cpu"), letters(dataset)
    seen: list[str] = []
    encoder = live.tokens["rna"].encoders[0]
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda sequences: seen.extend(sequences) or encode(sequences))
    live.predict([*inputs, *inputs])
    assert sorted(seen) == sorted({one["rna"] for one in inputs})


def test_one_function_chooses_the_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = make_live(tmp_path, aggregator="concat", modalities=("rna",))
    chosen: list[str] = []

    def tuned(trained: Any, spec: Any, **_: Any) -> Any:
        chosen.append(spec.name)
        return load_encoder("mini-rna", "rna", store_dtype="float32")

    monkeypatch.setattr(live_model, "tuned_or_frozen", tuned)
    open_live(run, "cpu")
    assert chosen == ["mini-rna"]


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    _, run = make_live(tmp_path, {"max_tokens": 60, "crop": "error"}, aggregator="concat", modalities=("rna",))
    live = open_live(run, "cpu")
    with pytest.raises(UnknownNameError, match=r"Unknown tissue 'liver'\. Did you mean 'Liver'"):
        live.columns(["liver"])
    with pytest.raises(InvalidSequenceError, match="Choose a crop"):
        live.predict([{"rna": "ACGT" * 400}])
    with pytest.raises(InvalidSettingError, match="Weights are given for dna"):
        open_live(run, "cpu", {"dna": tmp_path})
    with pytest.raises(CheckpointError, match="none"):
        open_live(tmp_path / "none", "cpu")
    assert live.predict([]).shape == (0, 3)
    assert np.isfinite(live.predict([{}])).all()


def test_a_run_without_specs_or_encoders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path)
    model = ModelConfig(modalities=("rna",), aggregator="concat")
    config = TrainConfig(epochs=1, device="cpu")
    train(dataset=study.dataset, cache=study.cache, run=tmp_path / "run", model=model, config=config)
    with pytest.raises(UnknownNameError, match="tiny-rna"):
        open_live(tmp_path / "run", "cpu")
    loaded = live_model.load_trained(tmp_path / "run", "cpu")
    description = json.loads(json.dumps(loaded.description))
    description.pop("specs")
    monkeypatch.setattr(live_model, "load_trained", lambda *_: live_model.TrainedRun(
        directory=loaded.directory, description=description, model=loaded.model, config=loaded.config,
        split=loaded.split, scaler=loaded.scaler, best_epoch=loaded.best_epoch,
    ))  # fmt: skip
    with pytest.raises(CheckpointError, match="does not say how its encoders were run"):
        open_live(tmp_path / "run", "cpu")
