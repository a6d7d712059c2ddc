"""Enformer: convolutions and attention over a DNA window, one embedding per bin of 128 bp.

Names of modules and their places in a Sequential are those of the published files
(EleutherAI/enformer-official-rough). Position features depend on the number of bins, so the embeddings of
one locus differ between windows of different length. Gamma densities are divided by their maximum over
positions, as the original model does; ports that divide by the maximum over features feed the published
weights wrong numbers at any window but the one of training. Weights that were tuned in such a port need its
rule: ``"gamma": "features"`` in their ``config.json``.
"""

import math
from functools import lru_cache, partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedcache.encoders.bins import BinEncoder, FrozenNorm, Residual, calibrate_norms
from embedcache.encoders.relative import RelativeAttention, draw_biases
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.weights import Weights, cast_weights, draw_weights, fill_weights, seed_of
from embedcache.errors import InvalidInputError

__all__ = ["Enformer", "load", "position_features"]

_DOWNSAMPLES = 7  # pair poolings: 2 ** 7 = 128 bp a bin
_PEAKS = {"position": 0, "features": 1}
"""Rules of gamma features, and the axis of the table (offsets, features) whose maximum they divide by."""


def load(spec: EncoderSpec, weights: Weights | None, device: str) -> BinEncoder:
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
        draw_biases(model, seed)
        _make_poolings_select(model)
        calibrate_norms(model, seed)
        cast_weights(model, getattr(torch, spec.compute_dtype))
    return BinEncoder(spec, model, device)


class Enformer(nn.Module):
    """The trunk: one-hot (B, letters, 4) to (B, bins, width), before any task head or crop."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        settings = spec.architecture
        dim, half = spec.width // 2, spec.width // 4
        self.stem = nn.Sequential(
            nn.Conv1d(4, half, 15, padding=7), Residual(_conv_block(half, half, 1)), _PairPool(half)
        )
        ratio = (dim / half) ** (1 / (_DOWNSAMPLES - 2))
        divisor = settings["divisor"]  # widths of the tower grow evenly, in steps of this
        widths = [half, *(round(half * ratio**i / divisor) * divisor for i in range(_DOWNSAMPLES - 1))]
        self.conv_tower = nn.Sequential(
            *(
                nn.Sequential(_conv_block(a, b, 5), Residual(_conv_block(b, b, 1)), _PairPool(b))
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


def _conv_block(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2)
    return nn.Sequential(FrozenNorm(channels_in), _SigmoidGelu(), conv)


def _layer(spec: EncoderSpec) -> nn.Sequential:
    """Attention and feed-forward, each normalised before; an Identity stands where training has dropout."""
    settings = spec.architecture
    dim, heads, inner = spec.width // 2, settings["heads"], settings["feed_forward"]
    features = dim // heads
    table = partial(position_features, features=features, rule=settings["gamma"])
    sizes = {"key_dim": settings["key_dim"], "value_dim": dim // heads, "features": features}
    attention = RelativeAttention(dim, heads, table=table, **sizes)
    first, second = nn.Linear(dim, inner), nn.Linear(inner, dim)
    return nn.Sequential(
        Residual(nn.Sequential(nn.LayerNorm(dim), attention, nn.Identity())),
        Residual(nn.Sequential(nn.LayerNorm(dim), first, nn.Identity(), nn.ReLU(), second, nn.Identity())),
    )


@torch.no_grad()
def _make_poolings_select(model: Enformer) -> None:
    """Drawn poolings take nearly the larger of a pair, not a mixture that drowns in channels."""
    for module in model.modules():
        if isinstance(module, _PairPool):
            weight = module.to_attn_logits.weight
            weight.copy_(2 * torch.eye(len(weight))[:, :, None, None])
