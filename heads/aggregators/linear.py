"""Each other modality as a linear map of means of its equal parts: compression that learns nothing of positions."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators.segments import mean_of_segments
from heads.config import ModelConfig
from heads.pooling import MeanPool, Pooled
from heads.summaries import mean_tokens, summarise

__all__ = ["LinearAggregator"]


class LinearAggregator(nn.Module):
    """The frame of ``Segments`` with ``C_o = means of K equal parts of P h_o``.

    Linear maps commute with means, and the mean over the K tokens of C_o is all that the frame asks of them. So of
    each modality two vectors are enough: the mean over its tokens, for a centre, and the mean of the means of its K
    parts, for what others read; they differ where K does not divide the number of tokens.
    """

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities, self.centres = config.modalities, config.centre_modalities
        self.widths, self.summary = {m: widths[m] for m in self.modalities}, self.reads(config)
        used = {m: config.width or widths[m] for m in self.centres}
        self.project = nn.ModuleDict()
        if config.width is not None:
            self.project.update({m: nn.Linear(widths[m], config.width) for m in self.centres})
        self.compress, self.pool = nn.ModuleDict(), nn.ModuleDict()
        for centre in self.centres:
            self.pool[centre] = MeanPool(used[centre])
            for other in self.modalities:
                if other != centre:
                    self.compress[f"{centre}_reads_{other}"] = nn.Linear(widths[other], used[centre])
                    self.pool[f"{centre}_reads_{other}"] = MeanPool(used[centre])
        self.features = sum(used.values())

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """Two vectors a modality."""
        return f"mean-bins-{config.tokens}"

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m), or summaries of them, to (B, features); zeros for a sample without any modality."""
        means: dict[Modality, Tensor] = {}
        parts: dict[Modality, Tensor] = {}
        for m in self.modalities:
            is_summary = tokens[m].values.shape[-1] == 2 * self.widths[m]
            both = mean_tokens(tokens[m]) if is_summary else summarise(tokens[m], self.summary).squeeze(1)
            means[m], parts[m] = both.chunk(2, dim=-1)  # (B, D_m) each
        found = []
        for centre in self.centres:
            project = self.project[centre] if centre in self.project else nn.Identity()
            segments = [self._pool(centre, project, means[centre], tokens[centre])]
            for other in self.modalities:
                if other != centre:
                    pair = f"{centre}_reads_{other}"
                    segments.append(self._pool(pair, self.compress[pair], parts[other], tokens[other]))
            found.append(mean_of_segments(segments))
        return torch.cat(found, dim=-1)

    def _pool(self, name: str, linear: nn.Module, values: Tensor, tokens: Ragged) -> Pooled:
        """A linear map of (B, D), standardised where the sample has tokens."""
        present = (tokens.lengths > 0).to(values.device)
        return cast(MeanPool, self.pool[name]).standardise(linear(values), present)
