"""What users and disks get wrong: told, with nothing half written and nothing taken silently."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fake_study import FakeStudy, make_dataset, make_study

from embedcache.dataset_write import write_dataset
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError
from heads import checkpoint
from heads import predict as predicting
from heads.checkpoint import CheckpointError
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import evaluate
from heads.inference import predict_finite
from heads.predict import predict
from heads.setup import open_study
from heads.train import TrainResult, train

MODEL = ModelConfig(heads=2)
CONFIG = TrainConfig(epochs=1, batch_size=16, device="cpu")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=24)


@pytest.fixture(scope="module")
def finished(study: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    go(study, run := tmp_path_factory.mktemp("runs") / "run")
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def go(study: FakeStudy, run: Path, model: ModelConfig = MODEL, **options: object) -> TrainResult:
    return train(dataset=study.dataset, cache=study.cache, run=run, model=model, config=CONFIG, **options)  # type: ignore[arg-type]


def change(study: FakeStudy, path: Path, targets: Callable[[pd.DataFrame, np.ndarray], pd.DataFrame]) -> FakeStudy:
    """The study with other targets; the function gets them and the splits."""
    from embedcache.dataset import read_dataset

    found = read_dataset(study.dataset)
    assert found.targets is not None
    write_dataset(
        path,
        info={"encoders": found.info["encoders"], "labels": found.labels},
        samples=found.samples,
        targets=targets(found.targets.copy(), found.samples["split"].to_numpy(dtype=object)),
        sequences=[(m, key, s) for m in found.modalities for key, s in found.sequences(m)],
    )
    return FakeStudy(path, study.cache)


# --- settings ---


def test_settings_that_no_model_can_have_leave_no_directory(study: FakeStudy, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="not a multiple of 3 heads"):
        go(study, tmp_path / "run", ModelConfig(heads=3))
    with pytest.raises(InvalidSettingError, match="named for rna, which is not read"):
        go(study, tmp_path / "run", ModelConfig(modalities=("dna",)), encoders={"rna": "tiny-rna"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [{"seed": 2**64}, {"data_seed": -1}, {"learning_rate": 1e38}, {"learning_rate": float("nan")},
     {"weight_decay": float("inf")}, {"batch_size": 0}],
    ids=str,
)  # fmt: skip
def test_training_settings_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(InvalidSettingError, match=next(iter(options))):
        TrainConfig(**options)  # type: ignore[arg-type]


def test_a_model_that_fits_no_memory_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="width is 100000000"):
        ModelConfig(width=100_000_000)


# --- datasets ---


def test_bytes_that_changed_after_writing_are_not_trained_on(study: FakeStudy, tmp_path: Path) -> None:
    copy = FakeStudy(Path(shutil.copytree(study.dataset, tmp_path / "dataset")), study.cache)
    file = copy.dataset / "sequences.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"sequences\.parquet has other bytes"):
        go(copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_endless_target_is_named(study: FakeStudy, tmp_path: Path, split: str) -> None:
    def endless(targets: pd.DataFrame, splits: np.ndarray) -> pd.DataFrame:
        targets.loc[np.flatnonzero(splits == split)[0], "Liver"] = np.inf
        return targets

    with pytest.raises(InvalidInputError, match=r"target of T\d+\.\d in 'Liver' is infinite"):
        changed = change(study, tmp_path / "dataset", endless)  # writing may refuse it as well
        open_study(changed.dataset, changed.cache, MODEL)


def test_a_tissue_without_test_cells_is_named_in_the_table(study: FakeStudy, tmp_path: Path) -> None:
    def unmeasured(targets: pd.DataFrame, splits: np.ndarray) -> pd.DataFrame:
        targets.loc[splits == "test", "Liver"] = np.nan
        return targets

    go(change(study, tmp_path / "dataset", unmeasured), tmp_path / "run")
    result = evaluate(tmp_path / "run", resamples=20)
    assert "left out of the means: Liver" in str(result)
    assert result.lacking["protein"] > 0 and f"{result.lacking['protein']} without protein" in str(result)


# --- files of a run ---


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model.safetensors"])
def test_one_wrong_bit_is_found(study: FakeStudy, run: Path, name: str) -> None:
    content = bytearray((run / name).read_bytes())
    content[-9] ^= 1
    (run / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum is wrong"):
        evaluate(run) if name.startswith("model") else go(study, run)


@pytest.mark.parametrize(
    ("key", "value"), [("labels", []), ("model", None), ("encoders", {}), ("tissues", ["Brain"]), ("training", "x")]
)
def test_an_edited_description_is_found(study: FakeStudy, run: Path, key: str, value: object) -> None:
    config = json.loads((run / "config.json").read_text()) | {key: value}
    (run / "config.json").write_text(json.dumps(config))
    for use in (lambda: evaluate(run), lambda: predict(run, study.dataset, study.cache, run / "p.parquet")):
        with pytest.raises(CheckpointError, match=r"config\.json is (damaged|not the one)"):
            use()
    with pytest.raises(CheckpointError, match=r"other settings|damaged"):
        go(study, run)
    assert not (run / "test.json").exists()


@pytest.mark.parametrize("text", ['{"format": "isoheads-test", "version": 1}', "[]", "{"])
def test_damaged_scores_are_one_line(run: Path, text: str) -> None:
    (run / "test.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"test\.json"):
        evaluate(run)
    assert (run / "test.json").read_text() == text


def test_a_finished_run_keeps_its_paths_when_it_is_called_from_elsewhere(
    study: FakeStudy, run: Path, tmp_path: Path
) -> None:
    (run / "model.safetensors").unlink()
    moved = FakeStudy(Path(shutil.copytree(study.dataset, tmp_path / "moved")), study.cache)
    go(moved, run)
    assert evaluate(run, resamples=20).computed


def test_leftovers_of_killed_writers_are_removed(study: FakeStudy, run: Path) -> None:
    for name in (".history.jsonl.01", ".config.json.01", ".model.safetensors.01"):
        (run / name).write_bytes(b"half")
    go(study, run)
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]


# --- disks ---


def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    study: FakeStudy, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "replace_file", full)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors cannot be written: No space left"):
        go(study, tmp_path / "new")
    monkeypatch.setattr("heads.evaluate.create_file", full)
    with pytest.raises(CheckpointError, match=r"test\.json cannot be written: No space left"):
        evaluate(run, resamples=20)
    monkeypatch.setattr(predicting, "replace_file", full)
    with pytest.raises(InvalidInputError, match="No space left"):
        predict(run, study.dataset, study.cache, tmp_path / "p.parquet")
    assert not list(tmp_path.glob("*.parquet*"))


def test_places_where_no_file_can_be(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "p.parquet", tmp_path):
        with pytest.raises(EmbedCacheError, match=r"cannot be written|is a directory"):
            predict(run, study.dataset, study.cache, output)
    assert (tmp_path / "file").read_bytes() == b""


# --- results ---


def test_predictions_that_are_no_numbers_are_not_handed_out(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    opened = open_study(study.dataset, study.cache, MODEL)
    from heads.trained import load_trained

    model = load_trained(run, "cpu").model
    model.head.bias.data[0] = float("nan")
    with pytest.raises(InvalidInputError, match=f"{len(opened.data)} of {len(opened.data)} transcripts"):
        predict_finite(model, opened.data, np.arange(len(opened.data)), CONFIG)


def test_predictions_carry_the_labels_of_both_datasets(study: FakeStudy, run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", n_genes=24, targets=False)
    info = json.loads((other.path / "dataset.json").read_text()) | {"labels": ["drawn by hand"], "sha256": None}
    (other.path / "dataset.json").write_text(json.dumps(info))
    result = predict(run, other.path, study.cache, tmp_path / "p.parquet")
    stored = json.loads(pq.read_schema(tmp_path / "p.parquet").metadata[b"isoheads"])["labels"]
    assert set(result.labels) == set(stored) >= {"simulated", "drawn by hand", "random encoder: rna tiny-rna"}
