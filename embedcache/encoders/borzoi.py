"""Borzoi and Flashzoi: convolutions, attention at 128 bp and a way back up, one embedding per bin of 32 bp.

Names of modules are those of the published files (johahi/borzoi-replicate-*, johahi/flashzoi-replicate-*).
The rows are those before the crop to the bins that the tasks are scored on, all of them, so that short windows have
rows too; the output ``final`` adds the convolutions that all tracks are read from. Poolings need a multiple of
128 bp: N is added at the end of a window, and rows of added letters only are dropped.

Borzoi's features of an offset do not depend on the window. Flashzoi has rotary attention with fewer keys than
queries in their place; any kernel of ``torch`` computes it.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedcache.encoders.bins import BinEncoder, FrozenNorm, Residual, calibrate_norms
from embedcache.encoders.relative import RelativeAttention, draw_biases
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.weights import Weights, cast_weights, draw_weights, fill_weights, seed_of

__all__ = ["Borzoi", "load", "offset_features"]

_EPSILON = 1e-3  # of all normalisations
_FEATURES = 32  # of an offset: central masks, and the same times its sign
_LONGEST = 4096  # bins of 128 bp that the central masks are spread over, however long the window is
_BIN_BP = 32


def load(spec: EncoderSpec, weights: Weights | None, device: str) -> BinEncoder:
    """Build Borzoi or Flashzoi in the architecture of the spec; weights None draws and calibrates them by its seed.

    Raises:
        InvalidInputError: The weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model = Borzoi(spec)
    seed = seed_of(spec)
    if seed is None:
        fill_weights(model, spec, weights)
    else:
        draw_weights(model, seed)
        draw_biases(model, seed, as_queries=True)
        calibrate_norms(model, seed)
        cast_weights(model, getattr(torch, spec.compute_dtype))
    return BinEncoder(spec, model, device)


class Borzoi(nn.Module):
    """One-hot (B, letters, 4) to (B, ceil(letters / 32), width)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        settings = spec.architecture
        dim, channels = settings["dim"], settings["channels"]
        self.multiple = settings["multiple_bp"]
        self.conv_dna = _Stem(channels[0])
        tower = [part for a, b in pairwise(channels) for part in (_ConvBlock(a, b, 5), nn.MaxPool1d(2))]
        self.res_tower = nn.Sequential(*tower[:-1])
        self.unet1 = nn.Sequential(nn.MaxPool1d(2), _ConvBlock(channels[-1], dim, 5))
        self.horizontal_conv0, self.horizontal_conv1 = _ConvBlock(channels[-1], dim, 1), _ConvBlock(dim, dim, 1)
        self.transformer = nn.Sequential(*(_layer(settings) for _ in range(settings["layers"])))
        self.upsampling_unet1 = nn.Sequential(_ConvBlock(dim, dim, 1), nn.Upsample(scale_factor=2))
        self.separable1 = _Separable(dim)
        self.upsampling_unet0 = nn.Sequential(_ConvBlock(dim, dim, 1), nn.Upsample(scale_factor=2))
        self.separable0 = _Separable(dim)
        self.final_joined_convs = nn.Sequential()
        if settings["output"] == "final":  # an Identity stands where training has dropout
            self.final_joined_convs.extend([_ConvBlock(dim, spec.width, 1), nn.Identity(), _gelu()])

    def forward(self, x: Tensor) -> Tensor:
        """All bins of windows of any length."""
        bins = -(-x.shape[1] // _BIN_BP)
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.multiple)).transpose(1, 2)  # N is zeros
        fine = self.res_tower(self.conv_dna(x))  # (B, C, T): 32 bp
        middle = self.unet1(fine)  # 64 bp
        x = F.max_pool1d(middle, 2)  # 128 bp
        x = self.transformer(x.transpose(1, 2)).transpose(1, 2)
        x = self.separable1(self.upsampling_unet1(x) + self.horizontal_conv1(middle))
        x = self.separable0(self.upsampling_unet0(x) + self.horizontal_conv0(fine))
        embedded: Tensor = self.final_joined_convs(x).transpose(1, 2)
        return embedded[:, :bins]


class _Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv1d(4, channels, 15, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool1d(self.conv_layer(x), 2)


class _ConvBlock(nn.Module):
    """Normalise, activate, mix neighbours: (B, C, T) to (B, D, T)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.norm = FrozenNorm(channels_in, eps=_EPSILON)
        self.activation = _gelu()
        self.conv_layer = nn.Conv1d(channels_in, channels_out, kernel, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.conv_layer(self.activation(self.norm(x)))
        return mixed


class _Separable(nn.Module):
    """Mix the neighbours of each channel, then the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        by_channel = nn.Conv1d(dim, dim, 3, padding="same", groups=dim, bias=False)
        self.conv_layer = nn.Sequential(by_channel, nn.Conv1d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.conv_layer(x)
        return mixed


class _RotaryAttention(nn.Module):
    """Flashzoi's attention: a group of queries shares each key, the first dimensions of a head turn with the bin."""

    def __init__(self, dim: int, heads: int, key_value_heads: int, rotary_dim: int, base: float) -> None:
        super().__init__()
        self.heads, self.key_value_heads = heads, key_value_heads
        self.rotary_dim, self.base = rotary_dim, base
        joined = nn.Linear(dim, dim // heads * (heads + 2 * key_value_heads))  # queries, then keys, then values
        self.mha = nn.ModuleDict({"Wqkv": joined, "out_proj": nn.Linear(dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        per_head = self.mha["Wqkv"](x).unflatten(-1, (self.heads + 2 * self.key_value_heads, -1)).transpose(1, 2)
        query, key, value = per_head.tensor_split([self.heads, self.heads + self.key_value_heads], dim=1)
        turns = _turns(x.shape[1], self.rotary_dim, self.base, x.device)
        query, key = _turn(query, turns), _turn(key, turns)
        shared = self.heads // self.key_value_heads
        key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))  # (B, heads, T, d)
        out = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.mha["out_proj"](out.transpose(1, 2).flatten(2))
        return mixed


@lru_cache(maxsize=16)
def _turns(bins: int, rotary_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle, (bins, rotary_dim / 2) each, float32."""
    with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor could not be trained on
        frequency = 1.0 / base ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)
        angle = torch.outer(torch.arange(bins, dtype=torch.float32), frequency)
        return angle.cos().to(device), angle.sin().to(device)


def _turn(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the first dimensions of each head, halves against each other; rounded once, at the end."""
    cos, sin = turns
    half = cos.shape[1]
    a, b = x[..., :half].float(), x[..., half : 2 * half].float()
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
    return torch.cat([turned, x[..., 2 * half :]], dim=-1)


@lru_cache(maxsize=16)
def offset_features(bins: int, *, device: torch.device, features: int = _FEATURES) -> Tensor:
    """(2 * bins - 1, features) for the offsets -(bins - 1) ... bins - 1, float32.

    Half of them say whether the distance is within 1, 2, 3, 7, ... bins, up to 4,096 in equal steps of its
    logarithm; the other half is the same times the sign of the offset. None depends on the number of bins.
    """
    with torch.inference_mode(False), torch.no_grad():
        offset = torch.arange(1 - bins, bins)
        step = math.log(_LONGEST + 1) / (features // 2)
        widths = torch.exp(step * torch.arange(1, features // 2 + 1, dtype=torch.float64)) - 1
        inside = (widths > offset.abs()[:, None]).float()
        return torch.cat([inside, offset.sign()[:, None] * inside], dim=1).to(device)


def _gelu() -> nn.GELU:
    return nn.GELU(approximate="tanh")


def _layer(settings: Any) -> nn.Sequential:
    """Attention and feed-forward, each normalised before; an Identity stands where training has dropout."""
    dim, heads = settings["dim"], settings["heads"]
    attention: nn.Module
    if settings["attention"] == "rotary":
        rotary = (settings["key_value_heads"], settings["rotary_dim"], settings["rotary_base"])
        attention = _RotaryAttention(dim, heads, *rotary)
    else:
        sizes = {"key_dim": settings["key_dim"], "value_dim": settings["value_dim"], "features": _FEATURES}
        attention = RelativeAttention(dim, heads, table=offset_features, **sizes)
    first, second = nn.Linear(dim, settings["feed_forward"]), nn.Linear(settings["feed_forward"], dim)
    inner = [nn.LayerNorm(dim, _EPSILON), first, nn.Identity(), nn.ReLU(), second, nn.Identity()]
    return nn.Sequential(
        Residual(nn.Sequential(nn.LayerNorm(dim, _EPSILON), attention, nn.Identity())),
        Residual(nn.Sequential(*inner)),
    )
