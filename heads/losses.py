r"""What training makes small: errors on the z-scale, or the misfit of TPM under a count distribution.

Predictions are on the z-scale of log1p TPM, whatever the loss, so that runs with different losses are scored alike.
For the count losses a prediction is taken back to its tissue's log1p TPM, ``eta = z * sd + mean``, and the model of a
tissue is that Y = TPM + 1 has the mean ``mu = exp(eta)``; the + 1 is that of log1p, so that ``eta = log1p(TPM)`` fits
a cell perfectly. Both are quasi-likelihoods: TPM are no counts, and only mean and variance are taken from the
distribution. Less what does not depend on the prediction, so that a perfect fit costs 0, minus their logarithm is

    Poisson, variance mu:                             mu - Y - Y (eta - log Y)
    negative binomial, variance mu + a mu^2, r = 1/a: (Y + r) log((mu + r) / (Y + r)) - Y (eta - log Y)

A tissue's loss is divided by its second derivative in eta at the mean c of its training cells: c for Poisson,
c / (1 + a c) for the negative binomial. So tissues weigh alike, as they do on the z-scale. The dispersion a is that of
the moments of training cells, (variance - c) / c^2, which counts as noise what a model may explain; it says how little
a large value counts.

exp overflows. Poisson's mu is continued by its tangent from ``top``, 1 above the largest training target of the
tissue, on: the loss stays convex, its least value of every training cell stays where it was, and the gradient beyond
``top`` stays that of ``top``, above 0. The negative binomial needs none of this: log(mu + r) is ``logaddexp(eta, log
r)``, whose slope ends at 1.

Shapes: B samples, K tissues.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.config import TrainConfig
from heads.scaling import TissueScaler

__all__ = ["Criterion"]

_LEAST_DISPERSION = 1e-6  # below, the negative binomial is Poisson to within rounding


class Criterion(nn.Module):
    """The loss of a training, summed over measured cells. It has no parameters; constants move with ``to``.

    Args:
        config: ``loss`` and ``tissue_weights``.
        scaler: Names of the tissues, and the way back to log1p TPM.
        targets: (training rows, K), z-scale of log1p TPM; NaN where not measured.

    Raises:
        UnknownNameError: A weight is given for no tissue of the targets.
        InvalidInputError: Targets are below 0 or too large for TPM, under a count loss.
    """

    weights: Tensor
    mean: Tensor
    sd: Tensor
    top: Tensor
    information: Tensor
    dispersion: Tensor

    def __init__(self, config: TrainConfig, scaler: TissueScaler, targets: NDArray[np.float64]) -> None:
        super().__init__()
        self.loss = config.loss
        weights = dict.fromkeys(scaler.tissues, 1.0)
        for name, weight in config.tissue_weights:
            if name not in weights:
                raise UnknownNameError("tissue", name, scaler.tissues)
            weights[name] = weight
        if not any(weights.values()):
            raise InvalidSettingError("All tissues have weight 0: nothing could be learned. Give one a weight above 0.")
        self.register_buffer("weights", torch.tensor(list(weights.values())))
        if self.loss in ("poisson", "negative-binomial"):
            constants = _moments(scaler, targets, self.loss == "negative-binomial")
            constants |= {"mean": np.asarray(scaler.mean), "sd": np.asarray(scaler.sd)}
            for name, values in constants.items():
                self.register_buffer(name, torch.from_numpy(values))

    def forward(self, predicted: Tensor, targets: Tensor, measured: Tensor) -> Tensor:
        """Sum of weighted losses over measured cells, a scalar.

        Args:
            predicted: (B, K), z-scale.
            targets: (B, K), z-scale, any finite number where not measured.
            measured: (B, K) bool.
        """
        cells: Callable[[Tensor, Tensor], Tensor] = {
            "mse": _square,
            "huber": _huber,
            "poisson": self._poisson,
            "negative-binomial": self._negative_binomial,
        }[self.loss]
        # before the loss: an unmeasured cell must not give a gradient, not even 0 times infinity
        predicted = torch.where(measured, predicted.float(), 0.0)
        losses = cells(predicted, torch.where(measured, targets, 0.0))
        return torch.where(measured, losses * self.weights, 0.0).sum()

    def _undo(self, values: Tensor) -> Tensor:
        """To log1p TPM, in float64: differences of large terms follow."""
        return values.double() * self.sd + self.mean

    def _poisson(self, predicted: Tensor, targets: Tensor) -> Tensor:
        eta, log_y = self._undo(predicted), self._undo(targets)
        below = torch.minimum(eta, self.top)
        mu, y = below.exp() * (1 + eta - below), log_y.exp()
        return (mu - y - y * (eta - log_y)) / self.information

    def _negative_binomial(self, predicted: Tensor, targets: Tensor) -> Tensor:
        eta, log_y = self._undo(predicted), self._undo(targets)
        size = 1 / self.dispersion
        log_size, y = size.log(), log_y.exp()
        ratio = torch.logaddexp(eta, log_size) - torch.logaddexp(log_y, log_size)
        return ((y + size) * ratio - y * (eta - log_y)) / self.information


def _square(predicted: Tensor, targets: Tensor) -> Tensor:
    return (predicted - targets).square()


def _huber(predicted: Tensor, targets: Tensor) -> Tensor:
    """Half the square up to an error of 1 sd of the tissue, linear beyond."""
    return F.huber_loss(predicted, targets, reduction="none", delta=1.0)


def _moments(scaler: TissueScaler, targets: NDArray[np.float64], dispersed: bool) -> dict[str, NDArray[np.float64]]:
    """Constants (K,) of the count losses, from training cells."""
    log_y = scaler.undo(targets)
    top = np.nanmax(log_y, axis=0) + 1
    if (worst := float(np.nanmin(log_y))) < -1e-6 or top.max() > 50:
        raise InvalidInputError(
            f"Training targets lie between {worst:g} and {top.max() - 1:g}, expected log1p of TPM, from 0 to 49. "
            "Use --loss mse or huber, or prepare the dataset from TPM."
        )
    y = np.exp(log_y)
    c = np.nanmean(y, axis=0)
    dispersion = np.maximum((np.nanvar(y, axis=0) - c) / c**2, _LEAST_DISPERSION)
    return {"top": top, "information": c / (1 + dispersion * c) if dispersed else c, "dispersion": dispersion}
