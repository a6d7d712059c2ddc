"""What users of fine-tuning do wrong, or what happens to them: kills, moved runs, options that do nothing."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_study import records_of
from tuned_study import TunedStudy, build_store, make_tuned_study
from typer.testing import CliRunner

from embedcache.build import build_cache
from embedcache.dataset import read_dataset
from embedcache.encoders.registry import load_encoder
from embedcache.errors import InvalidSettingError
from embedcache.store import EmbeddingStore, list_stores, store_path
from heads.checkpoint import CheckpointError, read_tensors, write_tensors
from heads.commands import app
from heads.finetune.config import FinetuneConfig
from heads.finetune.encoder import TunedEncoder
from heads.finetune.export import export_run
from heads.finetune.run import TunedRun
from heads.metrics import Array
from heads.predict import predict
from heads.train import save, train
from heads.trained import load_trained

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("tuned"))


def test_adapters_begin_with_their_dropout_switched_off(study: TunedStudy) -> None:
    spec = load_trained(study.frozen, "cpu").study().sources["rna"].store.spec
    config = FinetuneConfig(modalities=("rna",), method="lora", lora_dropout=0.5)
    encoder = TunedEncoder(spec, config, torch.device("cpu"))
    assert not [name for name, part in encoder.model.named_modules() if part.training]


def test_a_process_alone_has_nobody_to_share_weights_with(study: TunedStudy, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="--shard shares weights out among processes, and this one is alone"):
        study.tune(tmp_path / "run", replace(study.start("lora"), shard=True))
    assert not (tmp_path / "run").exists()
    words = ["train", "--from", str(study.frozen), "--finetune", "rna", "--shard", "--run", str(tmp_path / "run")]
    with pytest.raises(InvalidSettingError, match="this one is alone"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_run_killed_between_the_last_step_of_an_epoch_and_its_score_ends_with_the_same_bytes(
    study: TunedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = study.start("lora", lora_dropout=0.5, learning_rate=3e-3)
    study.tune(tmp_path / "whole", start)
    end_epoch = TunedRun.end_epoch

    class KilledError(Exception):
        pass

    def kill(run: TunedRun, targets: Array, predictions: Array) -> None:
        from heads.directory import RunDirectory

        save(run, RunDirectory(tmp_path / "killed"))
        raise KilledError

    monkeypatch.setattr(TunedRun, "end_epoch", kill)
    with pytest.raises(KilledError):
        study.tune(tmp_path / "killed", start)
    monkeypatch.setattr(TunedRun, "end_epoch", end_epoch)
    study.tune(tmp_path / "killed", start)
    for name in ("model.safetensors", "history.jsonl", "checkpoint.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_goes_on_where_the_run_it_comes_from_is_said_or_lies_elsewhere(study: TunedStudy, tmp_path: Path) -> None:
    study.tune(tmp_path / "run", study.start("last:1"), epochs=1)
    copied = tmp_path / "copied"
    shutil.copytree(study.frozen, copied)
    there = replace(study, frozen=copied)
    assert not there.tune(tmp_path / "run", there.start("last:1"), epochs=1).computed


def test_a_run_does_not_go_on_from_another_head_at_the_same_place(study: TunedStudy, tmp_path: Path) -> None:
    study.tune(tmp_path / "run", study.start("last:1"), epochs=1)
    tensors, values = read_tensors(study.frozen / "model.safetensors")
    other = tmp_path / "other"
    shutil.copytree(study.frozen, other)
    write_tensors(other / "model.safetensors", {name: one + 1 for name, one in tensors.items()}, values)
    there = replace(study, frozen=other)
    with pytest.raises(CheckpointError, match="holds a run with other settings: from:"):
        there.tune(tmp_path / "run", there.start("last:1"), epochs=1)


def test_the_score_before_the_first_step_is_never_that_of_a_later_one(study: TunedStudy, tmp_path: Path) -> None:
    start = study.start("last:1", learning_rate=3e-3)
    study.tune(tmp_path / "run", start, epochs=1)
    for name in ("start.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    assert study.tune(tmp_path / "run", start, epochs=1).computed
    assert not (tmp_path / "run" / "start.json").exists()


def test_options_of_lora_are_refused_without_it(study: TunedStudy, tmp_path: Path) -> None:
    words = ["train", "--finetune", "rna", "--method", "full", "--lora-rank", "4", "--from", str(study.frozen)]
    with pytest.raises(InvalidSettingError, match="--lora-rank is for --method lora, and it is full"):
        CliRunner().invoke(app, [*words, "--run", str(tmp_path / "run")], catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def frozen_on(study: TunedStudy, encoder: str, folder: Path, **options: Any) -> TunedStudy:
    """A frozen run on a store of another RNA encoder."""
    built = load_encoder(encoder, "rna", store_dtype="float32", **options)
    build_cache(records_of(read_dataset(study.dataset), "rna"), built, store_path(folder / "cache", built.spec))
    build_store(read_dataset(study.dataset), folder / "cache", "protein")
    train(
        dataset=study.dataset, cache=folder / "cache", run=folder / "frozen", config=replace(study.config, epochs=1),
        model=load_trained(study.frozen, "cpu").model.config,
        encoders={"rna": built.spec.directory, "protein": "mini-protein"},
    )  # fmt: skip
    return TunedStudy(study.dataset, folder / "cache", folder / "frozen", study.config)


def heads_command(*words: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which knows no encoder that another one has registered."""
    code = "import torch; torch.set_num_threads(1); from cli import heads; heads()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_runs_on_weights_of_a_directory_are_scored_and_exported_without_saying_it_again(
    study: TunedStudy, tmp_path: Path
) -> None:
    study.tune(tmp_path / "first", study.start("full", learning_rate=3e-3), epochs=1)
    export_run(tmp_path / "first", tmp_path / "out")
    weights = tmp_path / "out" / "encoders" / "rna"
    other = frozen_on(study, "mini-rna", tmp_path, weights=weights)
    start = replace(other.start("lora"), weights={"rna": weights})
    train(
        dataset=other.dataset, cache=other.cache, run=tmp_path / "second", model=start.frozen.model.config,
        config=replace(other.config, epochs=1), start=start,
        encoders={"rna": "mini-rna", "protein": "mini-protein"},
    )  # fmt: skip
    assert predict(tmp_path / "second", other.dataset, other.cache, tmp_path / "p.parquet", device="cpu").n_tissues == 3
    assert export_run(tmp_path / "second", tmp_path / "again").encoders == ("rna",)


def test_an_encoder_of_a_run_is_trained_on_by_the_directory_of_that_run(study: TunedStudy, tmp_path: Path) -> None:
    first, second = tmp_path / "before", tmp_path / "second"
    study.tune(first, study.start("last:1"), epochs=1)
    other = frozen_on(study, f"run:{first}", tmp_path)
    words = ["train", "--finetune", "rna", "--from", other.frozen, "--run", second, "--epochs", 1]
    refused = heads_command(*words)
    assert (
        refused.returncode == 2 and "Give the directory of the run as its weights: --weights rna=RUN." in refused.stderr
    )
    done = heads_command(*words, "--weights", f"rna={first}")
    assert done.returncode == 0, done.stderr
    rows = ["--dataset", study.dataset, "--output", tmp_path / "p.parquet"]
    used = heads_command("predict", "--run", second, "--cache", other.cache, *rows)
    assert used.returncode == 0, used.stderr
    lacking = heads_command("predict", "--run", other.frozen, "--cache", tmp_path / "none", *rows)
    assert "embedcache build --modality rna --from-run RUN --store-dtype float32" in lacking.stderr


@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
def test_batches_without_any_sequence_of_a_store_are_read(study: TunedStudy, tmp_path: Path, store_dtype: str) -> None:
    build_store(read_dataset(study.dataset), tmp_path, "protein", store_dtype=store_dtype)
    (place,) = list_stores(tmp_path, "protein")
    none = np.full(2, -1, np.int64)
    for found in EmbeddingStore.open(place).prefetch([none, none]):
        assert found.values.shape == (0, 160) and found.lengths.tolist() == [0, 0]


def test_weights_of_an_encoder_that_is_not_trained_are_refused(study: TunedStudy, tmp_path: Path) -> None:
    words = ["train", "--finetune", "rna", "--weights", f"protein={tmp_path}", "--from", str(study.frozen)]
    with pytest.raises(InvalidSettingError, match="--weights names protein, which is not in --finetune"):
        CliRunner().invoke(app, [*words, "--run", str(tmp_path / "run")], catch_exceptions=False)


def test_what_is_no_description_of_a_fine_tuning_is_told(study: TunedStudy, tmp_path: Path) -> None:
    study.tune(tmp_path / "run", study.start("last:1"), epochs=1)
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "finetune": [1]}))
    with pytest.raises(CheckpointError, match="is damaged: finetune is not there"):
        study.tune(tmp_path / "run", study.start("last:1"), epochs=1)
