"""Encoders trained in the loop of the head: from a frozen run's score on, in three ways, killed and gone on with."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tuned_study import ENCODERS, TunedStudy, build_store, make_tuned_study

from embedcache.dataset import read_dataset
from embedcache.errors import EmbedCacheError, InvalidSettingError
from heads.checkpoint import CheckpointError, read_tensors
from heads.config import ModelConfig
from heads.directory import RunDirectory
from heads.evaluate import evaluate
from heads.finetune.config import FinetuneConfig
from heads.finetune.run import TunedRun
from heads.finetune.setup import Start, open_tuned
from heads.finetune.start import no_better_than_start
from heads.fit import predict_cohort
from heads.predict import predict
from heads.setup import open_study
from heads.team import Alone
from heads.train import train
from heads.trained import load_trained

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("tuned"))


def opened(study: TunedStudy, start: Start) -> tuple[TunedRun, np.ndarray]:
    """A run before its first step, and its predictions of the validation rows."""
    assert start.frozen is not None
    model = start.frozen.model.config
    whole = open_study(study.dataset, study.cache, model, ENCODERS)
    run, tuned = open_tuned(model, study.config, study=whole, device=torch.device("cpu"), start=start)
    return run, predict_cohort([run], tuned.data, tuned.rows["validation"])[0]


def frozen_predictions(study: TunedStudy) -> np.ndarray:
    trained = load_trained(study.frozen, "cpu")
    whole = trained.study()
    run = open_run(trained.model.config, study, whole)
    run.model.load_state_dict(trained.model.state_dict())
    return predict_cohort([run], whole.data, whole.rows["validation"])[0]


def open_run(model: ModelConfig, study: TunedStudy, whole):
    from heads.run import Run

    return Run(model, study.config, study=whole, device=torch.device("cpu"))


@pytest.mark.parametrize("method", ["full", "last:2"])
def test_before_the_first_step_predictions_are_those_of_the_frozen_run_bit_for_bit(
    study: TunedStudy, method: str
) -> None:
    _, found = opened(study, study.start(method, ("rna", "protein")))
    np.testing.assert_array_equal(found, frozen_predictions(study))


def test_adapters_begin_with_nothing_to_add(study: TunedStudy) -> None:
    run, found = opened(study, study.start("lora"))
    np.testing.assert_allclose(found, frozen_predictions(study), rtol=0, atol=2e-6)
    names = set(run.encoders["rna"].trained)
    assert len(names) == 16 and all("lora_" in name for name in names)


@pytest.mark.parametrize("pooling", ["mean", "adaptive-4"])
@pytest.mark.parametrize("aggregator", ["concat", "cross-attention"])
def test_pooled_stores_and_heads_of_summaries_start_at_the_score_of_the_frozen_run(
    tmp_path: Path, pooling: str, aggregator: str
) -> None:
    model = ModelConfig(modalities=("rna", "protein"), aggregator=aggregator, width=8, heads=2, hidden=8, lengths=True)
    pooled = make_tuned_study(tmp_path, model, pooling=pooling)
    run, found = opened(pooled, pooled.start("full"))
    np.testing.assert_allclose(found, frozen_predictions(pooled), rtol=0, atol=2e-6)
    assert run.reads == ("means" if aggregator == "concat" else "tokens")


@pytest.mark.parametrize("method", ["full", "lora", "last:1"])
def test_what_a_method_trains_changes_and_nothing_else(study: TunedStudy, tmp_path: Path, method: str) -> None:
    start = study.start(method, learning_rate=1e-3)
    before = {name: one.clone() for name, one in opened(study, start)[0].encoders["rna"].model.state_dict().items()}
    result = study.tune(tmp_path / "run", start)
    assert "fine-tuned" in str(result) and result.epochs == 2
    tensors, values = read_tensors(tmp_path / "run" / "model.safetensors")
    learned = {name.removeprefix("encoder.rna."): one for name, one in tensors.items() if name.startswith("encoder.")}
    shares = {
        "full": before,
        "lora": {n for n in before if "lora_" in n},
        "last:1": ("encoder.layer.3.", "encoder.emb_"),
    }
    if method == "last:1":
        assert all(name.startswith(shares[method]) for name in learned)
    else:
        assert set(learned) <= set(shares[method])
    assert values["config"]["finetune"]["parameters"]["rna"] == sum(one.numel() for one in learned.values())
    changed = [name for name, one in learned.items() if not torch.equal(one, before[name])]
    assert len(changed) > len(learned) / 3
    after = load_trained(tmp_path / "run", "cpu").encoder("rna").model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items() if name not in learned)


def test_blocks_behind_an_inner_store_train_to_the_same_losses(tmp_path: Path) -> None:
    live = make_tuned_study(tmp_path)
    start = live.start("last:2", ("rna", "protein"))
    live.tune(tmp_path / "live", start)
    for modality, dtype in product(("rna", "protein"), ("int8", "float32", "float16")):
        build_store(read_dataset(live.dataset), live.cache, modality, layer=2, keep_special=True, store_dtype=dtype)
    run, found = opened(live, start)
    assert set(run.inner) == {"rna", "protein"} and not run.live
    assert {source.store.spec.store_dtype for source in run.inner.values()} == {"float32"}, "the most exact one"
    np.testing.assert_array_equal(found, frozen_predictions(live))
    live.tune(tmp_path / "inner", start)
    losses = [
        [(one["train_loss"], one["validation_loss"]) for one in map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "live" / "history.jsonl", tmp_path / "inner" / "history.jsonl")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    saved = json.loads((tmp_path / "inner" / "config.json").read_text())["finetune"]["inner"]
    assert set(saved) == {"rna", "protein"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_stopped_in_the_middle_of_an_epoch_ends_with_the_same_bytes(
    study: TunedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    start = study.start(method, lora_dropout=0.2, ema=0.8)
    study.tune(tmp_path / "whole", start)
    update, count = TunedRun.update, 0

    class StoppedError(Exception):
        pass

    def stop_now(run: TunedRun, team: Alone) -> None:
        nonlocal count
        update(run, team)
        count += 1
        if count == 3:
            from heads.train import save

            save(run, RunDirectory(tmp_path / "killed"))
            raise StoppedError

    monkeypatch.setattr(TunedRun, "update", stop_now)
    with pytest.raises(StoppedError):
        study.tune(tmp_path / "killed", start)
    monkeypatch.setattr(TunedRun, "update", update)
    result = study.tune(tmp_path / "killed", start)
    assert result.resumed_epoch == 0
    for name in ("model.safetensors", "history.jsonl", "checkpoint.safetensors", "start.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_parts_of_a_batch_and_blocks_run_again_change_rounding_only(study: TunedStudy, tmp_path: Path) -> None:
    whole = study.tune(tmp_path / "whole", study.start())
    parts = study.tune(tmp_path / "parts", study.start(checkpointing=True), max_tokens_per_batch=40)
    for name in ("validation_loss", "r2"):
        assert parts.validation[name] == pytest.approx(whole.validation[name], rel=1e-4)


def test_the_moving_average_is_what_is_scored_and_kept(study: TunedStudy) -> None:
    start = study.start("last:1", ema=0.9)
    run, _ = opened(study, start)
    name, parameter = next(iter(run.named_parameters()))
    first = parameter.detach().clone()
    run.update()
    with torch.no_grad():
        parameter.add_(1.0)
    run.update()
    torch.testing.assert_close(run.average[name], first * 0.9 + (first + 1) * 0.1)
    with run.scoring():
        torch.testing.assert_close(run.trained()[name], first * 0.9 + (first + 1) * 0.1)
    torch.testing.assert_close(parameter.detach(), first + 1)


def test_a_tuned_run_is_scored_and_used_with_its_own_encoders(study: TunedStudy, tmp_path: Path) -> None:
    result = study.tune(tmp_path / "run", study.start("lora", learning_rate=3e-3))
    frozen, tuned = (predict(run, study.dataset, study.cache, tmp_path / f"{run.name}.parquet", device="cpu")
                     for run in (study.frozen, tmp_path / "run"))  # fmt: skip
    one, other = (pd.read_parquet(found.output) for found in (frozen, tuned))
    assert not np.allclose(one["Brain"], other["Brain"], atol=1e-3)
    evaluation = evaluate(tmp_path / "run", device="cpu", resamples=100)
    assert any("fine-tuned (lora): rna" in label for label in (*evaluation.labels, *tuned.labels, *result.labels))
    data = read_dataset(study.dataset)
    kept = pd.read_parquet(tmp_path / "run" / "test_predictions.parquet").set_index("transcript_id")
    scaler = load_trained(tmp_path / "run", "cpu").scaler
    by_id = other.set_index("transcript_id").loc[kept.index, data.tissues].to_numpy()
    found = kept[data.tissues].to_numpy()
    assert np.allclose(found, by_id, atol=1e-4) or np.allclose(scaler.undo(found), by_id, atol=1e-4)


def test_a_new_head_can_be_trained_with_live_encoders(study: TunedStudy, tmp_path: Path) -> None:
    result = train(
        dataset=study.dataset, cache=study.cache, run=tmp_path / "run", encoders=ENCODERS,
        model=ModelConfig(modalities=("rna", "protein"), aggregator="concat", hidden=8),
        config=replace(study.config, epochs=1), start=Start(finetune=FinetuneConfig(modalities=("protein",))),
    )  # fmt: skip
    assert result.epochs == 1 and not (tmp_path / "run" / "start.json").exists()


def test_a_head_on_other_encoders_than_its_own_is_told(
    study: TunedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = study.start()
    open_it = open_tuned

    def spoilt(*args, **options):
        run, tuned = open_it(*args, **options)
        with torch.no_grad():
            for one in run.model.parameters():  # a head normalises what it reads: encoders alone may change little
                one.mul_(10)
        return run, tuned

    monkeypatch.setattr("heads.train.open_tuned", spoilt)
    with pytest.raises(CheckpointError, match="they are not the encoders of its cache"):
        study.tune(tmp_path / "run", start)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "some"}, "method is 'some'. Give full, lora, or last:K"),
        ({"method": "last:0"}, "method is 'last:0'"),
        ({"learning_rate": 0.0}, "encoder_learning_rate is 0.0"),
        ({"ema": 1.0}, "ema is 1.0. Give a number from 0 on, below 1"),
        ({"modalities": ()}, "Name at least one modality"),
        ({"modalities": "rna"}, r"the text 'rna'\. Give a list"),
        ({"modalities": ("rna", "RNA")}, "RNA"),
        ({"lora_rank": 0}, "lora_rank is 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(EmbedCacheError, match=message):
        FinetuneConfig(**{"modalities": ("rna",), **changes})


def test_what_cannot_be_trained_is_refused_before_anything_is_written(study: TunedStudy, tmp_path: Path) -> None:
    for start, message in (
        (study.start("last:5"), "runs 4 blocks, fewer than --method last:5 trains"),
        (study.start("full", ("dna",)), "--finetune names dna, which is not read"),
    ):
        with pytest.raises(InvalidSettingError, match=message):
            study.tune(tmp_path / "run", start)
    assert not (tmp_path / "run").exists()


def test_another_method_in_the_same_directory_is_refused(study: TunedStudy, tmp_path: Path) -> None:
    study.tune(tmp_path / "run", study.start("last:1"), epochs=1)
    with pytest.raises(CheckpointError, match="method: last:1, now last:2"):
        study.tune(tmp_path / "run", study.start("last:2"), epochs=1)
    assert not study.tune(tmp_path / "run", study.start("last:1"), epochs=1).computed


def test_a_training_that_made_it_worse_says_so(study: TunedStudy, tmp_path: Path) -> None:
    worse = study.tune(tmp_path / "worse", study.start("last:1"), epochs=1, learning_rate=0.3)
    assert "\nnote: no epoch was better than the run it came from (validation loss" in str(worse)
    assert no_better_than_start(RunDirectory(tmp_path / "worse"), 0.001) == ""
    assert no_better_than_start(RunDirectory(study.frozen), 9.0) == "", "a frozen run began with nothing"
