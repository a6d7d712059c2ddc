"""Files of a run and what is read from them: tensors, predictions, devices, and random numbers."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fake_study import FakeStudy, fill_cache, make_dataset, make_study
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from torch import nn

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import InvalidSettingError
from heads.checkpoint import CheckpointError, nested, read_tensors, write_tensors
from heads.config import ModelConfig, TrainConfig
from heads.directory import RunDirectory
from heads.inference import choose_device, predict_rows
from heads.open_sources import open_source
from heads.predictions import read_predictions, write_predictions
from heads.rng import PrivateRng
from heads.run import Run
from heads.scaling import TissueScaler
from heads.setup import open_study
from heads.sources import AbsentSource
from heads.text import how_again
from heads.train import train
from heads.trained import load_trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("étude 1"), n_genes=24)


@pytest.fixture(scope="module")
def dataset(study: FakeStudy) -> Dataset:
    return read_dataset(study.dataset)


# --- tensors ---


def bits(one: torch.Tensor) -> torch.Tensor:
    return one.reshape(-1).view(torch.uint8)


def test_tensors_and_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "a.weights": torch.randn(3, 4).T, "a.none": torch.zeros(0, 5), "b": torch.tensor(3, dtype=torch.int64),
        "half": torch.randn(7).half(), "brain": torch.randn(7).bfloat16(), "mask": torch.tensor([True, False]),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
    }  # fmt: skip
    values = {"z": [0.1 + 0.2, None, "é"], "a": {"n": 2**53, "x": 1e-320}}
    write_tensors(tmp_path / "f", tensors, values)
    found, told = read_tensors(tmp_path / "f")
    assert told == {"version": 1, **values}
    assert list(told) == ["version", "z", "a"], "order is kept"
    assert set(found) == set(tensors)
    for name, one in tensors.items():
        assert found[name].dtype == one.dtype
        assert found[name].shape == one.shape
        assert torch.equal(bits(found[name]), bits(one)), name
    first = (tmp_path / "f").read_bytes()
    write_tensors(tmp_path / "f", dict(reversed(tensors.items())), values)
    assert (tmp_path / "f").read_bytes() == first, "equal runs have equal bytes"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b"not safetensors at all", "is damaged"),
        (None, "is lost. Remove .* and give the command again that trained it"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_tensors(tmp_path / "f")


def test_a_file_of_others_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for metadata in (None, {"isoheads": "{}"}, {"isoheads": '{"version": 2}'}, {"isoheads": "[1]"}):
        save_file({"a": torch.zeros(2)}, tmp_path / "f", metadata)
        with pytest.raises(CheckpointError, match="not a file of this version"):
            read_tensors(tmp_path / "f")
    save_file({"a": torch.zeros(2)}, tmp_path / "f", {"isoheads": '{"version": 1}'})
    with pytest.raises(CheckpointError, match="its checksum is wrong"):
        read_tensors(tmp_path / "f")


def test_names_below_a_prefix() -> None:
    one = torch.zeros(1)
    found = nested({"a.b": one, "a.b.c": one, "ab.c": one, "a": one}, "a")
    assert set(found) == {"b", "b.c"}


# --- predictions ---


def test_predictions_come_back_for_their_rows_only(dataset: Dataset, tmp_path: Path) -> None:
    rows = np.array([5, 2, 9])
    values = np.random.default_rng(0).standard_normal((3, 3))
    write_predictions(tmp_path / "new" / "p.parquet", dataset, rows, values, {"alpha": None, "é": 1})
    assert np.array_equal(read_predictions(tmp_path / "new" / "p.parquet", dataset, rows), values)
    story = json.loads(pq.read_schema(tmp_path / "new" / "p.parquet").metadata[b"isoheads-test-predictions"])
    assert story == {"version": 1, "scale": "z", "alpha": None, "é": 1}
    for other in (np.array([2, 5, 9]), rows[:2], np.array([], dtype=np.int64)):
        with pytest.raises(CheckpointError, match="predictions for other transcripts"):
            read_predictions(tmp_path / "new" / "p.parquet", dataset, other)


def test_predictions_that_cannot_be_read_are_told(dataset: Dataset, tmp_path: Path) -> None:
    path, rows = tmp_path / "p.parquet", np.array([0])
    ids = dataset.samples["transcript_id"].iloc[rows].tolist()
    pq.write_table(pa.table({"transcript_id": ids, "Brain": [0.1]}), tmp_path / "fewer")
    contents = (None, b"no table", (tmp_path / "fewer").read_bytes())
    for content in contents:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"p.parquet cannot be read: .*Remove it and run the sweep again"):
            read_predictions(path, dataset, rows)


# --- directories ---


def test_a_directory_of_a_run_tells_what_differs(tmp_path: Path, study: FakeStudy) -> None:
    config = TrainConfig(epochs=1, batch_size=16, device="cpu")
    model = ModelConfig(modalities=("rna",), aggregator="concat", hidden=4)
    train(dataset=study.dataset, cache=study.cache, run=tmp_path / "run", model=model, config=config)
    directory = RunDirectory(tmp_path / "run")
    described = directory.read_config()
    assert directory.settle(described) == described
    other = {**described, "training": {**described["training"], "epochs": 5}, "labels": ["real"]}
    with pytest.raises(CheckpointError, match=r"epochs: 1, now 5"):
        directory.settle(other)
    assert directory.settle({**described, "software": {"torch": "9"}, "cache": "elsewhere"}) == described


# --- devices and random numbers ---


@pytest.mark.parametrize("name", ["cuda:", "gpu", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_here_is_told(name: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"device is '{name}'"):
        choose_device(name)


def test_a_device_by_name() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")


def test_streams_of_random_numbers_do_not_disturb_each_other() -> None:
    torch.manual_seed(11)
    outer = torch.get_rng_state()
    one, two = PrivateRng(0, CPU), PrivateRng(1, CPU)

    def draw(rng: PrivateRng, n: int = 3) -> list[float]:
        with rng.active():
            return torch.rand(n).tolist()

    mixed = [draw(one), draw(two), draw(one), draw(two)]
    again = PrivateRng(0, CPU)
    assert [draw(again), draw(again)] == [mixed[0], mixed[2]]
    assert mixed[1] != mixed[0]
    kept = one.state()
    later = draw(one)
    one.load(kept)
    assert draw(one) == later
    one.begin(1)
    assert draw(one) == mixed[1]
    with pytest.raises(ZeroDivisionError), two.active():
        torch.rand(1)
        _ = 1 / 0
    assert torch.equal(torch.get_rng_state(), outer), "also after an error"


# --- scales ---


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 99))
def test_scales_are_those_of_scikit_learn(n: int, tissues: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((n, tissues)) * rng.uniform(0.1, 50, tissues) + rng.uniform(-5, 5, tissues)
    targets[1:][rng.random((n - 1, tissues)) < 0.2] = np.nan
    targets[:2, 0] = [1.0, 2.0]
    names = [f"t{i}" for i in range(tissues)]
    found, wanted = TissueScaler.fit(targets, names), StandardScaler().fit(targets)
    np.testing.assert_allclose(found.mean, wanted.mean_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.sd, wanted.scale_, rtol=1e-9)
    np.testing.assert_allclose(found.undo(found.apply(targets)), targets, rtol=1e-9, atol=1e-9)
    assert TissueScaler.from_json(json.loads(json.dumps(found.to_json()))) == found


# --- models on rows ---


@pytest.mark.parametrize(
    "model", [ModelConfig(heads=2), ModelConfig(aggregator="concat", hidden=8, dropout=0.5)], ids=["tokens", "dropout"]
)
def test_predictions_of_a_run_are_those_of_its_model_row_by_row(study: FakeStudy, model: ModelConfig) -> None:
    opened = open_study(study.dataset, study.cache, ModelConfig())
    config = TrainConfig(batch_size=7, max_tokens_per_batch=90, device="cpu")
    run = Run(model, config, study=opened, device=CPU)
    run.model.train()
    rows = np.random.default_rng(0).permutation(len(opened.data))[:15]
    state = torch.get_rng_state()
    found = predict_rows(run.model, opened.data, rows, config)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.dtype == np.float64
    with torch.no_grad():
        for row, one in zip(rows, found, strict=True):
            (batch,) = opened.data.batches([np.array([row])])
            np.testing.assert_allclose(run.model(batch.tokens)[0].double().numpy(), one, atol=1e-5)
    assert predict_rows(run.model, opened.data, rows[:0], config).shape == (0, 3)


def test_a_diverging_loss_or_patience_ends_a_run(study: FakeStudy) -> None:
    opened = open_study(study.dataset, study.cache, ModelConfig())
    config = TrainConfig(epochs=9, patience=2, device="cpu", batch_size=16)
    targets = np.array([[0.0], [1.0], [2.0]])

    def after(errors: list[float]) -> Run:
        run = Run(ModelConfig(modalities=("rna",), heads=2), config, study=opened, device=CPU)
        for error in errors:
            run._loss[:] = torch.tensor([error, 2.0])
            for parameter in run.model.parameters():
                nn.init.constant_(parameter, error)
            run.end_epoch(targets, targets + error)
        return run

    run = after([3.0, 1.0, 1.0, 2.0])
    assert (run.best_epoch, run.epoch, run.stopped) == (2, 4, "no better for 2 epochs")
    assert all(bool((one == 1.0).all()) for name, one in run.best.items() if name.startswith("head."))
    assert [one["validation_loss"] for one in run.history] == [9.0, 1.0, 1.0, 4.0]
    assert [one["train_loss"] for one in run.history] == [1.5, 0.5, 0.5, 1.0]
    lost = after([1.0, float("nan")])
    assert (lost.best_epoch, lost.stopped) == (1, "the loss is not a finite number")
    assert lost.history[1]["validation_loss"] is None
    whole = after([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert (whole.best_epoch, whole.stopped) == (9, "all 9 epochs done")
    assert not after([9.0, 8.0]).stopped


def test_a_modality_that_no_row_has_is_read_as_nothing(study: FakeStudy, tmp_path: Path) -> None:
    model = ModelConfig(modalities=("rna", "protein"), aggregator="concat", hidden=4)
    config = TrainConfig(epochs=1, batch_size=16, device="cpu")
    train(dataset=study.dataset, cache=study.cache, run=tmp_path / "run", model=model, config=config)
    bare = make_dataset(tmp_path / "bare", n_genes=4, modalities=("rna",), targets=False)
    fill_cache(tmp_path / "cache", bare)
    sources = load_trained(tmp_path / "run", "cpu").sources(bare, tmp_path / "cache")
    assert isinstance(sources["protein"], AbsentSource)
    assert (sources["protein"].width, len(sources["protein"].lengths)) == (12, len(bare.samples))
    assert open_source(bare, tmp_path / "cache", "rna", None).width == sources["rna"].width == 16


def test_what_trains_a_run_again_is_told_where_its_files_are_of_no_use_only(tmp_path: Path) -> None:
    assert how_again(Path("/run")) == "Remove /run and give the command again that trained it."
    for name in ("config.json", "model.safetensors"):  # a directory stands for what cannot be read and may be whole
        (tmp_path / name).mkdir()
    for read in (RunDirectory(tmp_path).read_config, lambda: read_tensors(tmp_path / "model.safetensors")):
        with pytest.raises(CheckpointError, match=r"cannot be read: .*\. Mend its permissions\.") as error:
            read()
        assert "Remove" not in str(error.value)
