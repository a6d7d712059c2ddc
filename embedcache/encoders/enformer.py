"""Enformer: convolutions and attention over a DNA window, one embedding per bin of 128 bp.

Names of modules and their places in a Sequential are those of the published files
(EleutherAI/enformer-official-rough). Position features depend on the number of bins, so the embeddings of
one locus differ between windows of different length. Gamma densities are divided by their maximum over
positions, as the original model does; ports that divide by the maximum over features feed the published
weights wrong numbers at any window but the one of training. Weights that were tuned in such a port need its
rule: ``"gamma": "features"`` in their ``config.json``.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedcache.encoders.layers import Done, OneOf, check_layers
from embedcache.encoders.output import PendingRows
from embedcache.encoders.spec import EncoderSpec, Pending
from embedcache.encoders.weights import Weights, cast_weights, draw_normal, draw_weights, fill_weights, seed_of
from embedcache.errors import InvalidInputError
from embedcache.ragged import Ragged

__all__ = ["Enformer", "EnformerEncoder", "load", "one_hot", "position_features"]

_LETTERS = np.zeros((256, 4), np.float32)
for _column, _letter in enumerate("ACGT"):
    _LETTERS[ord(_letter), _column] = 1.0
_DOWNSAMPLES = 7  # pair poolings: 2 ** 7 = 128 bp a bin
_PEAKS = {"position": 0, "features": 1}
"""Rules of gamma features, and the axis of the table (offsets, features) whose maximum they divide by."""


def load(spec: EncoderSpec, weights: Weights | None, device: str) -> "EnformerEncoder":
    """Build Enformer in the architecture of the spec; weights None draws and calibrates them by its seed.

    Raises:
        InvalidInputError: The weights do not fit, or ask for an unknown rule of gamma features.
    """
    rule = spec.architecture["gamma"]
    if not isinstance(rule, str) or rule not in _PEAKS:
        where = f"{weights.directory / 'config.json'}" if weights else "The architecture"
        raise InvalidInputError(f"{where} says gamma {rule!r}. Give one of: {', '.join(_PEAKS)}; or leave it out.")
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model = Enformer(spec)
    seed = seed_of(spec)
    if seed is None:
        fill_weights(model, spec, weights)
    else:
        draw_weights(model, seed)
        _calibrate(model, seed)
        cast_weights(model, getattr(torch, spec.compute_dtype))
    return EnformerEncoder(spec, model, device)


class EnformerEncoder:
    """Enformer as an encoder, see ``spec.Encoder``; ``encode_packed`` gives tensors, for training.

    One window at a time: the numbers of a window cannot depend on the others of its batch.
    """

    def __init__(self, spec: EncoderSpec, model: "Enformer", device: str = "cpu") -> None:
        self.spec = spec
        self.model = model.to(device).eval()

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Embed normalised windows: (bins, width) each, in their order."""
        return self.start(sequences).result()

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[NDArray[np.float32]]]:
        """The last layer, the only one that is there; see ``spec.LayeredEncoder``."""
        return self.start_layers(sequences, layers).result()

    def start(self, sequences: Sequence[str]) -> Pending[list[NDArray[np.float32]]]:
        """Begin what ``encode`` does: on a GPU without waiting for it."""
        return OneOf(self.start_layers(sequences, [self.spec.layer]), self.spec.layer)

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
        return Ragged.from_list([self.model(window[None])[0] for window in windows])


def one_hot(sequence: str) -> Tensor:
    """(letters, 4) in the order A C G T; N is zeros."""
    return torch.from_numpy(_LETTERS[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)])


class Enformer(nn.Module):
    """The trunk: one-hot (B, letters, 4) to (B, bins, width), before any task head or crop."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        settings = spec.architecture
        dim, half = spec.width // 2, spec.width // 4
        self.stem = nn.Sequential(
            nn.Conv1d(4, half, 15, padding=7), _Residual(_conv_block(half, half, 1)), _PairPool(half)
        )
        ratio = (dim / half) ** (1 / (_DOWNSAMPLES - 2))
        divisor = settings["divisor"]  # widths of the tower grow evenly, in steps of this
        widths = [half, *(round(half * ratio**i / divisor) * divisor for i in range(_DOWNSAMPLES - 1))]
        self.conv_tower = nn.Sequential(
            *(
                nn.Sequential(_conv_block(a, b, 5), _Residual(_conv_block(b, b, 1)), _PairPool(b))
                for a, b in pairwise(widths)
            )
        )
        self.transformer = nn.Sequential(*(_layer(spec) for _ in range(settings["layers"])))
        self.final_pointwise = nn.Sequential(
            _Transpose(), _conv_block(widths[-1], 2 * dim, 1), _Transpose(), nn.Identity(), _SigmoidGelu()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, letters, 4) to (B, ceil(letters / 128), width)."""
        x = self.conv_tower(self.stem(x.transpose(1, 2))).transpose(1, 2)  # (B, bins, width / 2)
        embedded: Tensor = self.final_pointwise(self.transformer(x))
        return embedded

    def train(self, mode: bool = True) -> "Enformer":
        """As usual, but batch statistics never move: they belong to the published weights."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self


@lru_cache(maxsize=16)
def position_features(bins: int, features: int, device: torch.device, rule: str = "position") -> Tensor:
    """(2 * bins - 1, features) for the offsets -(bins - 1) ... bins - 1, float32.

    A third of each half is exponential decay, central mask and gamma density of the distance; the second
    half repeats the first times the sign of the offset. By the rule ``position`` the largest value of each
    gamma density is 1; by ``features`` that of each offset.
    """
    assert features % 6 == 0, "three families, each with and without sign"
    count = features // 6
    with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor could not be trained on
        offset = torch.arange(1 - bins, bins, dtype=torch.float64)
        distance = offset.abs()[:, None]
        half_life = torch.logspace(3, math.log2(bins), count, base=2, dtype=torch.float64)
        decay = torch.exp2(-distance / half_life)
        central = (distance < torch.exp2(torch.arange(1, count + 1, dtype=torch.float64)) - 1).double()
        mean = torch.linspace(bins / count, bins, count, dtype=torch.float64)
        deviation = bins / (2 * count)
        shape, rate = (mean / deviation) ** 2, mean / deviation**2
        log_density = torch.xlogy(shape - 1, distance) - rate * distance + shape * rate.log() - torch.lgamma(shape)
        density = log_density.exp() + 1e-8
        half = torch.cat([decay, central, density / density.amax(_PEAKS[rule], keepdim=True)], dim=1)
        return torch.cat([half, offset.sign()[:, None] * half], dim=1).float().to(device)


def relative_shift(scores: Tensor) -> Tensor:
    """(B, heads, T, 2T - 1) by offset to (B, heads, T, T): ``out[i, j] = scores[i, j - i + T - 1]``.

    A strided view: no copy; rows overlap, so it must not be written to.
    """
    scores = scores.contiguous()
    batch, heads, n, _ = scores.shape
    sb, sh, sq, so = scores.stride()
    return scores.as_strided((batch, heads, n, n), (sb, sh, sq - so, so), scores.storage_offset() + (n - 1) * so)


class _Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.fn(x)
        return added


class _SigmoidGelu(nn.Module):
    """The approximation ``x * sigmoid(1.702 x)``; nn.GELU gives other numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _PairPool(nn.Module):
    """Softmax-weighted mean over neighbouring pairs, by channel; an odd last one passes unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_attn_logits = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        even = x.shape[-1] // 2 * 2
        if not even:
            return x
        head, tail = x[..., :even], x[..., even:]
        logits = F.conv1d(head, self.to_attn_logits.weight.squeeze(-1))
        weight = logits.view(*logits.shape[:-1], -1, 2).softmax(-1)
        return torch.cat([(head.reshape(weight.shape) * weight).sum(-1), tail], dim=-1)


class _RelativeAttention(nn.Module):
    def __init__(self, dim: int, heads: int, key_dim: int, rule: str) -> None:
        super().__init__()
        self.heads, self.key_dim, self.rule = heads, key_dim, rule
        self.features = dim // heads
        self.to_q = nn.Linear(dim, heads * key_dim, bias=False)
        self.to_k = nn.Linear(dim, heads * key_dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.to_rel_k = nn.Linear(self.features, heads * key_dim, bias=False)
        self.rel_content_bias = nn.Parameter(torch.randn(1, heads, 1, key_dim))
        self.rel_pos_bias = nn.Parameter(torch.randn(1, heads, 1, key_dim))

    def forward(self, x: Tensor) -> Tensor:
        query = self._split(self.to_q(x)) * self.key_dim**-0.5  # scaled before the biases are added
        key, value = self._split(self.to_k(x)), self._split(self.to_v(x))  # (B, heads, T, d)
        table = position_features(x.shape[1], self.features, x.device, self.rule)
        offsets = self._split(self.to_rel_k(table.to(x.dtype)))  # (heads, 2T - 1, d)
        bias = relative_shift((query + self.rel_pos_bias) @ offsets.transpose(-1, -2))  # (B, heads, T, T)
        out = F.scaled_dot_product_attention(query + self.rel_content_bias, key, value, attn_mask=bias, scale=1.0)
        mixed: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(-2, -3)


def _conv_block(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2)
    return nn.Sequential(nn.BatchNorm1d(channels_in), _SigmoidGelu(), conv)


def _layer(spec: EncoderSpec) -> nn.Sequential:
    """Attention and feed-forward, each normalised before; an Identity stands where training has dropout."""
    dim, inner = spec.width // 2, spec.architecture["feed_forward"]
    settings = spec.architecture
    attention = _RelativeAttention(dim, settings["heads"], settings["key_dim"], settings["gamma"])
    first, second = nn.Linear(dim, inner), nn.Linear(inner, dim)
    return nn.Sequential(
        _Residual(nn.Sequential(nn.LayerNorm(dim), attention, nn.Identity())),
        _Residual(nn.Sequential(nn.LayerNorm(dim), first, nn.Identity(), nn.ReLU(), second, nn.Identity())),
    )


@torch.no_grad()
def _calibrate(model: Enformer, seed: int) -> None:
    """Make drawn weights usable: poolings near the larger of a pair, batch statistics of drawn windows."""
    draw = np.random.default_rng([seed, 1])
    windows = ["".join(draw.choice(list("ACGT"), size=4096)) for _ in range(4)]
    for name, parameter in model.named_parameters():
        if name.endswith("to_attn_logits.weight"):
            parameter.copy_(2 * torch.eye(len(parameter))[:, :, None, None])
        elif name.endswith(("rel_content_bias", "rel_pos_bias")):
            parameter.copy_(draw_normal(parameter.shape, seed, name))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all that it sees
        norm.train()
    model(torch.stack([one_hot(window) for window in windows]))
    for norm in norms:
        norm.momentum = momentum
        norm.eval()
