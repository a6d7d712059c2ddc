"""The frame of the aggregators that compress: a centre's own tokens beside a few tokens made of each other modality.

For centre m: h'_m = [h_m ; C_o1 ; C_o2], where C_o is modality o compressed to a fixed number of tokens in the centre's
width. Its vector z_m is the mean over the segments that a sample has of each segment's pool; vectors of the centres lie
side by side. Shapes: B samples, N packed tokens, D_m width of modality m.
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import ModelConfig
from heads.pooling import Pool, Pooled, build_pool

__all__ = ["Compressing", "Segments", "mean_of_segments", "with_absent", "without_absent"]


class Segments(nn.Module):
    """Pools and mixes the segments of every centre.

    Args:
        config: Modalities, centres, width and pooling.
        widths: Width of the tokens of each modality.
        compressor: Makes, of the widths of another modality and of a centre, the module that compresses tokens
            (N, D_o) of all samples to a few (n, D_m) of each that has any.
    """

    def __init__(
        self, config: ModelConfig, widths: Mapping[Modality, int], compressor: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.modalities, self.centres = config.modalities, config.centre_modalities
        used = {m: config.width or widths[m] for m in self.centres}
        self.project = nn.ModuleDict()
        if config.width is not None:
            self.project.update({m: nn.Linear(widths[m], config.width) for m in self.centres})
        pools: dict[str, Pool] = {}
        self.compress = nn.ModuleDict()
        for centre in self.centres:
            pools[centre] = build_pool(config, used[centre])
            for other in self.modalities:
                if other != centre:
                    self.compress[f"{centre}_reads_{other}"] = compressor(widths[other], used[centre])
                    pools[f"{centre}_reads_{other}"] = build_pool(config, used[centre])
        self.pool = nn.ModuleDict(cast(dict[str, nn.Module], pools))
        self.features = sum(pools[centre].features for centre in self.centres)

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m) to (B, features); zeros for a sample without any modality."""
        found = []
        for centre in self.centres:
            own = tokens[centre]
            if centre in self.project:
                own = Ragged(self.project[centre](own.values), own.offsets)
            segments: list[Pooled] = [self.pool[centre](own)]
            for other in self.modalities:
                if other != centre:
                    pair = f"{centre}_reads_{other}"
                    segments.append(self.pool[pair](self.compress[pair](tokens[other])))
            found.append(mean_of_segments(segments))
        return torch.cat(found, dim=-1)


class Compressing(nn.Module):
    """An aggregator in the frame of ``Segments``, which needs all tokens."""

    def __init__(
        self, config: ModelConfig, widths: Mapping[Modality, int], compressor: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.segments = Segments(config, widths, compressor)
        self.features = self.segments.features

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """What is compressed is tokens."""
        return "tokens"

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m) to (B, features)."""
        mixed: Tensor = self.segments(tokens)
        return mixed


def mean_of_segments(segments: list[Pooled]) -> Tensor:
    """Mean over the segments that each sample has, (B, C); zeros where it has none."""
    count = torch.stack([segment.present for segment in segments]).sum(0).clamp(min=1)  # (B,)
    return torch.stack([segment.values for segment in segments]).sum(0) / count[:, None]


def without_absent(tokens: Ragged) -> Ragged:
    """The same values without the samples that have none of them."""
    lengths = tokens.lengths[tokens.lengths > 0]
    return Ragged(tokens.values, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))


def with_absent(values: Tensor, tokens: Ragged, n: int) -> Ragged:
    """Tokens (present samples * n, D) as those of all samples: n rows where ``tokens`` has some, else none."""
    present = (tokens.lengths > 0).long() * n
    return Ragged(values, torch.cat([present.new_zeros(1), present.cumsum(0)]))
