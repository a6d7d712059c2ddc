"""How models and sweeps begin: scales before anything was seen, first weights, runs that were only planned."""

from pathlib import Path

import pytest
import torch
from fake_study import make_study

from embedcache.ragged import Ragged
from heads.config import ModelConfig, TrainConfig
from heads.frames import read_runs
from heads.outputs import LowRankHead, MlpHead, build_head
from heads.pooling import AttentionPool, MeanPool, Standardised, fitting
from heads.sweep.directory import SweepDirectory
from heads.train import train

ALL = torch.tensor([True, True, True])


def measured(values: torch.Tensor, present: torch.Tensor = ALL) -> Standardised:
    layer = Standardised(values.shape[1])
    with fitting(layer):
        layer.standardise(values, present)
    return layer


def test_one_sample_is_too_little_to_scale_by() -> None:
    layer = measured(torch.tensor([[5.0, 7.0], [1.0, 1.0], [2.0, 2.0]]), torch.tensor([True, False, False]))
    assert (layer.mean.tolist(), layer.scale.tolist()) == ([0, 0], [1, 1])


def test_a_channel_that_differs_by_rounding_is_not_stretched() -> None:
    values = torch.tensor([[1000.0, 1.0, 0.0], [1000.0001, 3.0, 0.0], [1000.0, 5.0, 1e-13]])
    layer = measured(values)
    assert layer.scale[0] == layer.scale[2] == 1
    assert float(layer.scale[1]) == pytest.approx(1 / values[:, 1].std(correction=0).item())
    torch.testing.assert_close(layer.mean, values.mean(0))


def test_measuring_again_begins_from_nothing() -> None:
    first = torch.tensor([[1.0, 10.0], [3.0, 30.0], [8.0, 80.0]])
    layer = measured(first)
    with fitting(layer):
        found = layer.standardise(first + 100, ALL)
        assert torch.equal(found.values, first + 100), "as it is until it is measured"
    torch.testing.assert_close(layer.mean, (first + 100).mean(0))
    again = layer.standardise(first + 100, ALL).values
    torch.testing.assert_close(again.std(0, correction=0), torch.ones(2))


def test_a_model_in_a_model_is_measured_too_and_gradients_are_not() -> None:
    model = torch.nn.ModuleDict({"a": MeanPool(2), "b": torch.nn.Sequential(AttentionPool(2, 1))})
    tokens = Ragged.from_list([torch.randn(n, 2, requires_grad=True) for n in (3, 4, 5)])
    with fitting(model):
        model["a"](tokens)
        model["b"](tokens)
    for layer in (model["a"], model["b"][0]):  # type: ignore[index]
        assert layer.sums is None
        assert bool((layer.scale != 1).all())
        assert not layer.mean.requires_grad


@pytest.mark.parametrize("features", [64, 4096])
def test_first_weights_of_a_head_are_small_whatever_its_inputs(features: int) -> None:
    torch.manual_seed(0)
    linear = build_head(ModelConfig(), features, 50)
    assert isinstance(linear, torch.nn.Linear)
    assert linear.weight.std().item() == pytest.approx(0.1 / features**0.5, rel=0.1)
    assert not linear.bias.any()
    low = build_head(ModelConfig(head="low-rank", rank=5), features, 50)
    assert isinstance(low, LowRankHead)
    assert low.down.weight.std().item() == pytest.approx(features**-0.5, rel=0.15)
    assert low.up.weight.std().item() == pytest.approx(0.1 / 5**0.5, rel=0.2)
    mlp = build_head(ModelConfig(head="mlp", hidden=32, dropout=0.25), features, 50)
    assert isinstance(mlp, MlpHead)
    assert mlp.out.weight.std().item() == pytest.approx(0.1 / 32**0.5, rel=0.15)
    assert mlp.dropout.p == 0.25
    inputs = torch.randn(200, features)
    for head in (linear, low, mlp):
        assert head.out_features == 50
        out = head(inputs)
        assert out.shape == (200, 50)
        assert out.abs().mean().item() < 0.3


def test_runs_that_are_only_planned_have_no_row_yet(tmp_path: Path) -> None:
    study = make_study(tmp_path, n_genes=24)
    sweep = SweepDirectory(tmp_path / "sweep")
    model = ModelConfig(modalities=("rna",), aggregator="concat", hidden=4)
    config = TrainConfig(epochs=1, batch_size=16, device="cpu")
    train(dataset=study.dataset, cache=study.cache, run=sweep.path / "runs" / "a", model=model, config=config)
    runs = [{"seed": seed, "fold": None, "directory": f"runs/{name}"} for seed, name in enumerate("ab")]
    sweep.write_plan({"name": "x", "arms": [{"name": "arm 1", "settings": {}, "runs": runs}]})
    found = read_runs(sweep.path)
    assert found[["run", "arm", "hidden", "finished", "epochs_done"]].values.tolist() == [
        ["runs/a", "arm 1", 4, True, 1],
    ]  # fmt: skip
