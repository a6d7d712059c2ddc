"""What users of fine-tuning do wrong, or what happens to them: kills, moved runs, options that do nothing."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tuned_study import TunedStudy, make_tuned_study
from typer.testing import CliRunner

from embedcache.errors import InvalidSettingError
from heads.checkpoint import CheckpointError, read_tensors, write_tensors
from heads.commands import app
from heads.finetune.config import FinetuneConfig
from heads.finetune.encoder import TunedEncoder
from heads.finetune.run import TunedRun
from heads.metrics import Array
from heads.train import save
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
