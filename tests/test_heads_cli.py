"""What is typed reaches the function behind it: every option of ``heads``, and what a command refuses before it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_study import make_dataset
from test_heads_settings import OTHER
from typer.testing import CliRunner

from embedcache.dataset import Dataset
from embedcache.errors import EmbedCacheError, InvalidSettingError, UnknownNameError
from heads.commands import app
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.finetune.command import TUNING
from heads.finetune.config import FinetuneConfig
from heads.settings import FIELDS, RunSettings

GRID = 'seeds = 2\n[base]\nepochs = 1\n[grid]\nmodalities = ["rna", "dna"]\n'


class Recorder:
    """Stands for a public function: keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *arguments: Any, **named: Any) -> "Recorder":
        self.calls.append((arguments, named))
        return self

    @property
    def only(self) -> dict[str, Any]:
        ((arguments, named),) = self.calls
        assert not arguments
        return named

    def to_json(self) -> dict[str, str]:
        return {"said": "json"}

    def __str__(self) -> str:
        return "said in words"


def invoke(*words: object, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False, env=env)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object) -> str:
    """Wrong usage: exit code 2."""
    result = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return result.output


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("heads.train.train", recorder)
    return recorder


def typed(name: str, value: Any) -> list[str]:
    """A setting as it is typed."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag]
    if isinstance(value, dict):
        return [word for one, weight in value.items() for word in ("--tissue-weight", f"{one}={weight}")]
    if name.startswith("encoder."):
        return ["--encoder", f"{name.removeprefix('encoder.')}={value}"]
    return [flag, str(value)]


# --- train ---


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_of_a_run_is_an_option_of_train(trained: Recorder, name: str) -> None:
    """One at a time, with what it needs beside it; all others keep their defaults."""
    needs: dict[str, dict[str, Any]] = {
        "fold": {"split": "gene"}, "folds": {"split": "gene"}, "inner_folds": {"split": "gene"},
        "inner_fold": {"split": "gene", "inner_folds": 3}, "split": {"split_column": "famille"},
        "split_column": {"split": "column"}, "bins": {"aggregator": "concat"}, "encoder.protein": {},
    }  # fmt: skip
    value = {"bins": 4, "heads": 4}.get(name, OTHER[name])
    values = {name: value, **needs.get(name, {})}
    words = [word for one, x in values.items() for word in typed(one, x)]
    assert "said in words" in invoke("train", *words)
    expected, found = RunSettings.from_flat(values), trained.only
    assert found["model"] == expected.model
    assert found["config"] == expected.training
    assert found["split"] == expected.split
    assert found["encoders"] == ({name.partition(".")[2]: value} if name.startswith("encoder.") else {})
    assert RunSettings(model=found["model"], training=found["config"], split=found["split"]) != RunSettings() or (
        name.startswith("encoder.")
    )


def test_without_options_a_run_has_the_defaults_of_its_settings(trained: Recorder) -> None:
    invoke("train")
    assert trained.only == {
        "dataset": Path("dataset"), "cache": "cache", "run": Path("runs/run"), "model": ModelConfig(),
        "config": TrainConfig(), "encoders": {}, "split": SplitConfig(),
    }  # fmt: skip


def test_places_come_from_the_environment_and_options_go_before_it(trained: Recorder) -> None:
    env = {"EMBEDCACHE_DATASET": "d", "EMBEDCACHE_CACHE": "s3://b/c", "HEADS_RUN": "r"}
    invoke("train", env=env)
    invoke("train", "--run", "mine", "--cache", "here", env=env)
    first, second = (named for _, named in trained.calls)
    assert (first["dataset"], first["cache"], first["run"]) == (Path("d"), "s3://b/c", Path("r"))
    assert (second["dataset"], second["cache"], second["run"]) == (Path("d"), "here", Path("mine"))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--modalities", "rna,dnaa"], UnknownNameError, "Did you mean 'dna'"),
        (["--modalities", " , "], InvalidSettingError, "Name at least one"),
        (["--tissue-weight", "Liver=much"], InvalidSettingError, r"--tissue-weight: .*Give a number, as in"),
        (["--tissue-weight", "Liver"], EmbedCacheError, "Liver"),
        (["--encoder", "nt"], EmbedCacheError, "--encoder"),
        (["--encoder", "lipid=nt"], EmbedCacheError, "lipid"),
        (["--aggregator", "concaat"], UnknownNameError, "Did you mean 'concat'"),
        (["--device", "gpu"], InvalidSettingError, "device is 'gpu'"),
        *((word, InvalidSettingError, f"{word[0]} is for fine-tuning. Add --finetune") for word in (
            ["--method", "lora"], ["--ema", "0.9"], ["--checkpointing"], ["--from", "runs/a"], ["--weights", "rna=d"],
            ["--encoder-learning-rate", "1e-4"], ["--lora-alpha", "1"], ["--encoder-weight-decay", "0.1"],
            ["--shard"],
        )),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)  # fmt: skip
def test_what_train_refuses(trained: Recorder, words: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        invoke("train", *words)
    assert not trained.calls


@pytest.mark.parametrize(
    "words",
    [["--heads", 0], ["--epochs", 0], ["--dropout", 1.5], ["--fold", -1], ["--folds", 1], ["--schedule", "zigzag"],
     ["--loss", "mae"], ["--heads", "two"], ["--colour", "red"], ["--seed", -1], ["--warmup", 2]],
    ids=str,
)  # fmt: skip
def test_wrong_usage_of_train_ends_with_code_2(trained: Recorder, words: list[object]) -> None:
    assert str(words[0]) in refused("train", *words)
    assert not trained.calls


# --- fine-tuning ---


@pytest.mark.parametrize("option", TUNING)
def test_each_setting_of_fine_tuning_is_an_option(trained: Recorder, option: str) -> None:
    other: dict[str, Any] = {
        "method": "lora", "encoder_learning_rate": 1e-4, "encoder_weight_decay": 0.2, "lora_rank": 2,
        "lora_alpha": 4.0, "lora_dropout": 0.3, "ema": 0.9, "checkpointing": True,
    }  # fmt: skip
    lora = {"method": "lora"} if option.startswith("lora") else {}
    words = [word for one, x in {option: other[option], **lora}.items() for word in typed(one, x)]
    invoke("train", "--finetune", "protein, rna", *words, "--weights", "rna=published", "--encoder", "rna=nt")
    found = trained.only
    changes = {TUNING[option]: other[option], **lora}
    assert found["start"].finetune == FinetuneConfig(modalities=("rna", "protein"), **changes)
    assert found["start"].finetune != FinetuneConfig(modalities=("rna", "protein"))
    assert found["start"].frozen is None
    assert found["start"].weights == {"rna": Path("published")}
    assert (found["encoders"], found["dataset"], found["run"]) == ({"rna": "nt"}, Path("dataset"), Path("runs/run"))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--finetune", "rma"], UnknownNameError, "Did you mean 'rna'"),
        (["--finetune", ","], InvalidSettingError, "at least one modality"),
        (["--finetune", "rna", "--lora-alpha", "8"], InvalidSettingError, "--lora-alpha is for --method lora"),
        (["--finetune", "rna", "--method", "last"], InvalidSettingError, "method is 'last'"),
        (["--finetune", "rna", "--weights", "dna=d"], InvalidSettingError, "--weights names dna, which is not in"),
    ],
)
def test_what_fine_tuning_refuses(trained: Recorder, words: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        invoke("train", *words)
    assert not trained.calls


# --- sweep, evaluate, predict, export ---


def test_a_sweep_is_launched_with_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = Recorder()
    monkeypatch.setattr("heads.sweep.launch.launch_sweep", launched)
    (tmp_path / "mine.toml").write_text(GRID)
    launched.table = {"a": 1}  # type: ignore[attr-defined]
    assert json.loads(invoke("sweep", tmp_path / "mine.toml", "--json")) == {"a": 1}
    words = ("--dataset", "d", "--cache", "c", "--output", "o", "--device", "cpu", "--engine", "slurm")
    more = ("--workers", 3, "--engine-option", "partition=gpu", "--engine-option", "time=5", "--resamples", 500)
    assert "said in words" in invoke("sweep", tmp_path / "mine.toml", *words, *more)
    ((first,), _), ((second,), options) = launched.calls
    assert (first.output, first.dataset, first.cache, first.device) == (
        Path("runs/mine"), Path("dataset"), "cache", "auto",
    )  # fmt: skip
    assert [arm.name for arm in first.grid.arms] == ["rna", "dna"]
    assert (second.output, second.dataset, second.cache, second.device) == (Path("o"), Path("d"), "c", "cpu")
    assert options == {
        "engine": "slurm", "workers": 3, "options": {"partition": "gpu", "time": "5"}, "resamples": 500,
    }  # fmt: skip


def test_a_dry_run_launches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = Recorder()
    monkeypatch.setattr("heads.sweep.launch.estimate_sweep", estimated)
    monkeypatch.setattr("heads.sweep.launch.launch_sweep", None)
    (tmp_path / "mine.toml").write_text(GRID)
    assert "said in words" in invoke("sweep", tmp_path / "mine.toml", "--dry-run")
    assert json.loads(invoke("sweep", tmp_path / "mine.toml", "--dry-run", "--json")) == {"said": "json"}
    words = ("--engine", "slurm", "--workers", 3, "--engine-option", "partition=gpu")
    invoke("sweep", tmp_path / "mine.toml", "--dry-run", *words)
    assert [call[0][0].workers for call in estimated.calls] == [1, 1, 3]
    with pytest.raises(InvalidSettingError, match="no option 'partitoin'"):
        invoke("sweep", tmp_path / "mine.toml", "--dry-run", *words[:-1], "partitoin=gpu")


def test_evaluate_predict_and_export_pass_on_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    scored, predicted, exported = Recorder(), Recorder(), Recorder()
    monkeypatch.setattr("heads.evaluate.evaluate", scored)
    monkeypatch.setattr("heads.predict.predict", predicted)
    monkeypatch.setattr("heads.finetune.export.export_run", exported)
    invoke("evaluate", "--run", "a", "--dataset", "d", "--cache", "c", "--device", "cpu", "--resamples", 150)
    assert json.loads(invoke("evaluate", "--json")) == {"said": "json"}
    assert scored.calls == [
        ((Path("a"),), {"dataset": Path("d"), "cache": "c", "device": "cpu", "resamples": 150}),
        ((Path("runs/run"),), {"dataset": None, "cache": None, "device": "auto", "resamples": 2000}),
    ]
    invoke("predict", "--run", "a", "--dataset", "d", "--cache", "c", "--output", "p", "--device", "cpu")
    invoke("predict", "--by", "kernel")
    assert predicted.calls == [
        ((Path("a"), Path("d"), "c", Path("p")), {"device": "cpu", "by": "run"}),
        (
            (Path("runs/run"), Path("dataset"), "cache", Path("predictions.parquet")),
            {"device": "auto", "by": "kernel"},
        ),
    ]
    invoke("export", "--run", "a", "--output", "o")
    assert exported.calls == [((Path("a"), Path("o")), {})]
    assert "--resamples" in refused("evaluate", "--resamples", 99)


# --- splits ---


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("study") / "dataset", n_genes=30, modalities=("dna",))


def test_a_split_is_shown_and_written_as_it_was_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    place = ("splits", "--dataset", dataset.path)
    given = json.loads(invoke(*place, "--json"))
    assert (given["unit"], [part["name"] for part in given["parts"]]) == ("given", ["train", "validation", "test"])
    folds = json.loads(invoke(*place, "--by", "gene", "--folds", 4, "--seed", 3, "--json"))
    assert [part["name"] for part in folds["parts"]] == [f"fold {i}" for i in range(4)]
    assert (folds["config"]["folds"], folds["config"]["seed"]) == (4, 3)
    inner = ("--fold", 1, "--inner-folds", 3, "--inner-fold", 2, "--validation-fraction", 0.3)
    text = invoke(*place, "--by", "gene", *inner, "--output", tmp_path / "rows.tsv")
    assert "5 folds, tested on fold 1, inner fold 2 of 3" in text
    assert "Nothing to compare" in text
    rows = pd.read_csv(tmp_path / "rows.tsv", sep="\t", keep_default_na=False)
    assert set(rows["part"]) == {"train", "validation", "test", ""}
    kept = (rows["part"] == "").sum()
    assert f"{kept:,} transcripts of the outer test part are in none" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fold", 1], "--fold is for a drawn split"),
        (["--by", "gene", "--inner-folds", 3], "--inner-folds 3 cuts what a test part leaves"),
        (["--by", "gene", "--fold", 7], "fold is 7"),
        (["--by", "gene", "--similarity", 2], "similarity is 2"),
        (["--column", "gene_name", "--by", "gene"], "Name a column for unit column only"),
        (["--column", "biotype", "--folds", 2], "cannot be cut into 2 folds"),
        (["--column", "colour"], "Unknown column 'colour'"),
    ],
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)
def test_what_splits_refuses(dataset: Dataset, words: list[object], message: str) -> None:
    with pytest.raises(EmbedCacheError, match=message):
        invoke("splits", "--dataset", dataset.path, *words)
