"""Trained encoders as encoders of a build: their stores hold what the run computes live."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_study import records_of
from tuned_study import TunedStudy, make_tuned_study

from embedcache.build import build_cache
from embedcache.dataset import read_dataset
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError
from embedcache.job import BuildJob, prepare_job
from embedcache.store import EmbeddingStore, store_path
from heads.labels import labels_of
from heads.predict import predict
from heads.train import train
from heads.trained import load_trained

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("tuned"))


@pytest.mark.parametrize(("method", "tolerance"), [("full", 0.0), ("last:2", 0.0), ("lora", 1e-4)])
def test_a_store_of_a_trained_encoder_holds_what_its_run_reads(
    study: TunedStudy, tmp_path: Path, method: str, tolerance: float
) -> None:
    run = tmp_path / method.replace(":", "")
    study.tune(run, study.start(method, learning_rate=3e-3), epochs=1)
    encoder = load_encoder(f"run:{run}", "rna", store_dtype="float32")
    assert encoder.spec.name == f"tuned-{run.name}" and encoder.spec.is_tuned and encoder.spec.is_small
    dataset = read_dataset(study.dataset)
    build_cache(records_of(dataset, "rna"), encoder, root := store_path(tmp_path / "cache", encoder.spec))
    store = EmbeddingStore.open(root)
    source: Any = load_trained(run, "cpu").live_source(dataset, "rna")
    rows = np.arange(len(dataset.samples))
    live = source.packed(rows).values
    stored = store.packed(store.find([key for key in dataset.keys("rna") if key is not None])).values
    np.testing.assert_allclose(live.numpy(), stored.numpy(), rtol=0, atol=tolerance)
    frozen = load_encoder("mini-rna", "rna").encode(["ACGTTGCA" * 5])[0]
    assert np.abs(frozen - encoder.encode(["ACGTTGCA" * 5])[0]).max() > 0.01


def test_ablations_go_on_from_a_trained_encoder(study: TunedStudy, tmp_path: Path) -> None:
    study.tune(tmp_path / "first", study.start("last:1"), epochs=1)
    encoder = load_encoder(f"run:{tmp_path / 'first'}", "rna", store_dtype="float32")
    dataset = read_dataset(study.dataset)
    build_cache(records_of(dataset, "rna"), encoder, store_path(study.cache, encoder.spec))
    frozen = load_trained(study.frozen, "cpu")
    result = train(
        dataset=study.dataset, cache=study.cache, run=tmp_path / "second", model=frozen.model.config,
        config=replace(study.config, epochs=1), encoders={"rna": "tuned-first", "protein": "mini-protein"},
    )  # fmt: skip
    assert "fine-tuned encoder: rna tuned-first" in result.labels
    assert predict(tmp_path / "second", study.dataset, study.cache, tmp_path / "p.parquet", device="cpu").n_tissues == 3


def test_workers_are_told_of_it_by_its_whole_path(
    study: TunedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.tune(tmp_path / "third", study.start("last:1"), epochs=1)
    monkeypatch.chdir(tmp_path)
    job = BuildJob(dataset=study.dataset, cache=tmp_path / "c", modality="rna", encoder="run:third")
    assert prepare_job(job).encoder == f"run:{tmp_path / 'third'}"


def test_what_no_run_has_trained_is_refused(study: TunedStudy, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="trained no encoder: it has those of its cache"):
        load_encoder(f"run:{study.frozen}", "rna")
    study.tune(tmp_path / "other", study.start("last:1"), epochs=1)
    with pytest.raises(InvalidInputError, match="reads rna, not protein"):
        load_encoder(f"run:{tmp_path / 'other'}", "protein")
    with pytest.raises(InvalidSettingError, match="has weights of its own"):
        load_encoder(f"run:{tmp_path / 'other'}", "rna", random_init=0)
    with pytest.raises(EmbedCacheError, match="There is no run at"):
        load_encoder(f"run:{tmp_path / 'none'}", "rna")


def test_an_encoder_trained_from_drawn_weights_is_labelled_as_both() -> None:
    drawn = encoder_spec("tiny-random-rna", "rna")
    assert labels_of(drawn) == ["random encoder: rna tiny-random-rna"]
    tuned = replace(drawn, name="tuned-a", adapter=f"tuned/{drawn.adapter}", weights="blake2b:1")
    assert labels_of(tuned) == ["fine-tuned encoder: rna tuned-a", "random encoder: rna tuned-a"]
    mini = encoder_spec("mini-rna", "rna")
    assert labels_of(replace(mini, adapter="tuned/mini/1"))[1:] == labels_of(mini) == ["small encoder: rna mini-rna"]
    assert labels_of(replace(drawn, weights="blake2b:1", model_id="lab/model")) == []
    assert labels_of(replace(drawn, adapter="imported/1")) == ["imported embeddings: rna tiny-random-rna"]
