"""Losses: against torch, against log-likelihoods of scipy, finite far out, and weighted by tissue."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.config import TrainConfig
from heads.losses import Criterion
from heads.scaling import TissueScaler

TISSUES = ("brain", "liver", "testis")
COUNT_LOSSES = ["poisson", "negative-binomial"]


def log1p_tpm(n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.log1p(rng.negative_binomial(2, 0.05, (n, 3)) * np.array([1.0, 0.1, 10.0]))
    values[rng.random((n, 3)) < 0.1] = np.nan
    return values


def criterion_of(loss: str, weights: tuple[tuple[str, float], ...] = ()) -> tuple[Criterion, TissueScaler, np.ndarray]:
    targets = log1p_tpm()
    scaler = TissueScaler.fit(targets, TISSUES)
    config = TrainConfig(loss=loss, tissue_weights=weights)  # type: ignore[arg-type]
    return Criterion(config, scaler, scaler.apply(targets)), scaler, scaler.apply(targets)


def batch_of(scaled: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    targets = torch.from_numpy(scaled).float()
    predicted = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    return predicted, targets.nan_to_num(0.0), ~targets.isnan()


@pytest.mark.parametrize(("loss", "function"), [("mse", F.mse_loss), ("huber", F.huber_loss)], ids=["mse", "huber"])
def test_errors_on_the_z_scale_are_those_of_torch(loss: str, function: Callable[..., torch.Tensor]) -> None:
    criterion, _, scaled = criterion_of(loss)
    predicted, targets, measured = batch_of(scaled)
    expected = function(3 * predicted[measured], targets[measured], reduction="sum")
    torch.testing.assert_close(criterion(3 * predicted, targets, measured), expected)


def cells(criterion: Criterion, eta: np.ndarray, log_y: np.ndarray, scaler: TissueScaler) -> np.ndarray:
    """Loss of single cells of the second tissue, given on the log1p scale."""
    found = []
    for e, y in zip(eta, log_y, strict=True):
        predicted, targets = (torch.from_numpy(scaler.apply(np.full((1, 3), x))) for x in (e, y))
        found.append(float(criterion(predicted, targets, torch.tensor([[False, True, False]]))))
    return np.array(found)


def test_poisson_is_the_log_likelihood_of_scipy() -> None:
    criterion, scaler, scaled = criterion_of("poisson")
    y = np.array([1, 2, 5, 9, 12])
    eta = np.array([0.2, 1.0, 3.0, 0.5, 2.4])
    c = np.nanmean(np.exp(scaler.undo(scaled)), axis=0)[1]
    expected = (stats.poisson.logpmf(y, y) - stats.poisson.logpmf(y, np.exp(eta))) / c
    np.testing.assert_allclose(cells(criterion, eta, np.log(y), scaler), expected, rtol=1e-5, atol=1e-6)


def test_negative_binomial_is_the_log_likelihood_of_scipy() -> None:
    criterion, scaler, scaled = criterion_of("negative-binomial")
    y = np.array([1, 2, 5, 9, 12])
    eta = np.array([0.2, 1.0, 3.0, 0.5, 2.4])
    values = np.exp(scaler.undo(scaled))
    c, variance = np.nanmean(values, axis=0)[1], np.nanvar(values, axis=0)[1]
    r = c**2 / (variance - c)
    assert 0.1 < r < 100

    def log_likelihood(mu: np.ndarray) -> np.ndarray:
        return stats.nbinom.logpmf(y, r, r / (r + mu))

    expected = (log_likelihood(y) - log_likelihood(np.exp(eta))) * (1 + c / r) / c
    np.testing.assert_allclose(cells(criterion, eta, np.log(y), scaler), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", COUNT_LOSSES)
def test_a_perfect_fit_costs_nothing_and_every_error_something(loss: str) -> None:
    criterion, scaler, scaled = criterion_of(loss)
    log_y = np.linspace(0, np.nanmax(scaler.undo(scaled)[:, 1]), 9)
    np.testing.assert_allclose(cells(criterion, log_y, log_y, scaler), 0, atol=1e-9)
    assert (cells(criterion, log_y + 0.5, log_y, scaler) > 1e-3).all()
    assert (cells(criterion, log_y - 0.5, log_y, scaler) > 1e-3).all()


@pytest.mark.parametrize("loss", COUNT_LOSSES)
def test_gradients_far_out_are_finite_and_point_back(loss: str) -> None:
    criterion, _, scaled = criterion_of(loss)
    largest = torch.from_numpy(np.nanmax(scaled, axis=0)).float()[None]
    for far, sign in ((1e4, 1), (200.0, 1), (-1e4, -1)):
        predicted = torch.full((1, 3), far, requires_grad=True)
        value = criterion(predicted, largest, torch.ones(1, 3, dtype=torch.bool))
        value.backward()
        assert math.isfinite(value.item())
        assert predicted.grad is not None
        assert bool((predicted.grad * sign > 1e-3).all())
        assert bool(torch.isfinite(predicted.grad).all())


def test_poisson_is_smooth_where_its_tangent_begins() -> None:
    criterion, scaler, _ = criterion_of("poisson")
    top = float(criterion.top[1])
    eta = top + np.array([-2e-3, -1e-3, 0.0, 1e-3, 2e-3])
    slopes = np.diff(cells(criterion, eta, np.full(5, 1.0), scaler)) / 1e-3
    np.testing.assert_allclose(slopes, slopes.mean(), rtol=5e-3)


@pytest.mark.parametrize("loss", COUNT_LOSSES)
def test_tissues_weigh_alike(loss: str) -> None:
    """Counts of one tissue are a hundred times those of another; the curvature at its mean must not be."""
    criterion, scaler, scaled = criterion_of(loss)
    log_c = np.log(np.nanmean(np.exp(scaler.undo(scaled)), axis=0))
    targets = torch.from_numpy(scaler.apply(log_c[None]))
    eta = targets.clone().requires_grad_()
    value = criterion(eta.float(), targets.float(), torch.ones(1, 3, dtype=torch.bool))
    (slope,) = torch.autograd.grad(value, eta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), eta)
    np.testing.assert_allclose(curvature[0].numpy(), np.square(scaler.sd), rtol=1e-3)  # d eta = sd dz


@pytest.mark.parametrize("loss", ["mse", "huber", *COUNT_LOSSES])
def test_weights_of_tissues(loss: str) -> None:
    plain, _, scaled = criterion_of(loss)
    weighted, _, _ = criterion_of(loss, (("liver", 0.0), ("testis", 2.5)))
    predicted, targets, measured = batch_of(scaled)
    alone = [plain(predicted, targets, measured & (torch.arange(3) == k)) for k in range(3)]
    torch.testing.assert_close(weighted(predicted, targets, measured), alone[0] + 2.5 * alone[2])
    torch.testing.assert_close(plain(predicted, targets, measured), sum(alone))


@pytest.mark.parametrize("loss", ["mse", "huber", *COUNT_LOSSES])
def test_cells_that_were_not_measured_give_no_gradient(loss: str) -> None:
    criterion, _, _ = criterion_of(loss)
    predicted = torch.tensor([[1.0, math.inf, 0.3]], requires_grad=True)
    value = criterion(predicted, torch.tensor([[0.2, math.nan, 0.0]]), torch.tensor([[True, False, False]]))
    value.backward()
    assert math.isfinite(value.item())
    assert predicted.grad is not None
    assert predicted.grad[0, 1:].tolist() == [0, 0]
    assert predicted.grad[0, 0] != 0


def test_an_unknown_tissue_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"'brian'\. Did you mean 'brain'"):
        criterion_of("mse", (("brian", 2.0),))


@pytest.mark.parametrize("loss", COUNT_LOSSES)
def test_targets_that_are_no_log1p_tpm(loss: str) -> None:
    for wrong in (np.array([[-3.0], [2.0]]), np.array([[1.0], [400.0]])):
        scaler = TissueScaler.fit(wrong, ("brain",))
        with pytest.raises(InvalidInputError, match="expected log1p of TPM"):
            Criterion(TrainConfig(loss=loss), scaler, scaler.apply(wrong))  # type: ignore[arg-type]


def test_a_tissue_less_dispersed_than_poisson_is_poisson() -> None:
    values = np.log1p(np.array([[9.0], [10.0], [11.0], [10.0]]))
    scaler = TissueScaler.fit(values, ("brain",))
    found = []
    for loss in COUNT_LOSSES:
        criterion = Criterion(TrainConfig(loss=loss), scaler, scaler.apply(values))  # type: ignore[arg-type]
        found.append(criterion(torch.tensor([[1.5]]), torch.tensor([[-0.5]]), torch.tensor([[True]])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=0)


def test_constants_move_with_the_criterion() -> None:
    criterion, _, _ = criterion_of("poisson")
    assert criterion.to("meta").top.device.type == "meta"
    assert not list(criterion.parameters())


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="All tissues have weight 0"):
        criterion_of("mse", tuple((name, 0.0) for name in TISSUES))
