"""Encoders of DNA windows with one row a bin of letters: what Enformer and Borzoi share.

One window at a time: the numbers of a window cannot depend on the others of its batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedcache.encoders.layers import Done, Starting, check_layers
from embedcache.encoders.output import PendingRows
from embedcache.encoders.spec import EncoderSpec, Pending
from embedcache.encoders.tokens import kept_bins
from embedcache.ragged import Ragged

__all__ = ["BinEncoder", "FrozenNorm", "Residual", "calibrate_norms", "one_hot"]

_LETTERS = np.zeros((256, 4), np.float32)
for _column, _letter in enumerate("ACGT"):
    _LETTERS[ord(_letter), _column] = 1.0
_CALIBRATION = (4, 4096)  # windows, and letters of each


class BinEncoder(Starting):
    """A network over one-hot windows as an encoder, see ``spec.StartingEncoder``; also gives tensors, for training.

    Attributes:
        spec: What it is.
        model: Takes (B, letters, 4) and gives (B, bins, width).
    """

    def __init__(self, spec: EncoderSpec, model: nn.Module, device: str = "cpu") -> None:
        self.spec = spec
        self.model = model.to(device).eval()

    def start_layers(
        self, sequences: Sequence[str], layers: Sequence[int]
    ) -> Pending[dict[int, list[NDArray[np.float32]]]]:
        """Begin what ``encode_layers`` does, see ``spec.StartingEncoder``."""
        check_layers(self.spec, layers, any_layer=False)
        if not sequences:
            return Done({self.spec.layer: []})
        with torch.inference_mode():
            return PendingRows(self.spec, {self.spec.layer: self.encode_packed(sequences)})

    def encode_packed(self, sequences: Sequence[str]) -> Ragged:
        """Embed windows, at least one, on the device and in the compute dtype, open to gradients."""
        weight = next(self.model.parameters())
        windows = (one_hot(sequence).to(weight.device, weight.dtype) for sequence in sequences)
        bins = (self.model(window[None])[0] for window in windows)
        return Ragged.from_list([rows[slice(*kept_bins(len(rows), self.spec.tokens))] for rows in bins])


def one_hot(sequence: str) -> Tensor:
    """(letters, 4) in the order A C G T; N is zeros."""
    return torch.from_numpy(_LETTERS[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)])


class FrozenNorm(nn.BatchNorm1d):
    """Batch normalisation that never leaves evaluation: its statistics belong to the published weights."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        """Stay as it is."""
        super().train(False)
        return self


class Residual(nn.Module):
    """What a module adds to its input; the name of the module in published files is ``fn``."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Shape of ``x``."""
        added: Tensor = x + self.fn(x)
        return added


@torch.no_grad()
def calibrate_norms(model: nn.Module, seed: int) -> None:
    """Give the batch normalisations of a network with drawn weights the statistics of drawn windows.

    Without them the spread between bins is a fiftieth of the values.
    """
    draw = np.random.default_rng([seed, 1])
    count, letters = _CALIBRATION
    windows = [one_hot("".join(draw.choice(list("ACGT"), size=letters))) for _ in range(count)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all that it sees
        norm.training = True
    model(torch.stack(windows))
    for norm, usual in zip(norms, momentum, strict=True):
        norm.momentum = usual
        norm.eval()
