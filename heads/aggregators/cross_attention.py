"""IsoFormer's aggregator: the tokens of each centre read those of the other modalities."""

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.attention import CrossAttention
from heads.config import ModelConfig
from heads.pooling import Pool, build_pool, summary_of_pool

__all__ = ["CrossAttentionAggregator"]


class CrossAttentionAggregator(nn.Module):
    """IsoFormer: each centre reads the other modalities in turn; mean over its tokens; concatenation.

    dna reads rna, then protein; rna reads dna, then protein; protein reads dna, then rna. One block an ordered
    pair and round. All centres of a round read the tokens as they were when the round began. A modality alone has
    nothing to read, and the model is a linear map of its mean. Other pools than the mean, normalisation and
    feed-forward layers are options that IsoFormer does not have.
    """

    def __init__(self, config: ModelConfig, widths: Mapping[Modality, int]) -> None:
        super().__init__()
        self.modalities, self.centres = config.modalities, config.centre_modalities
        used = {m: config.width or widths[m] for m in self.modalities}
        self.project = nn.ModuleDict()
        if config.width is not None:
            self.project.update({m: nn.Linear(widths[m], config.width) for m in self.modalities})
        block = partial(CrossAttention, pre_norm=config.pre_norm, feed_forward=config.feed_forward)
        self.rounds = nn.ModuleList(
            nn.ModuleDict(
                {
                    f"{centre}_reads_{other}": block(used[centre], used[other], config.heads)
                    for centre in self.centres
                    for other in self.modalities
                    if other != centre
                }
            )
            for _ in range(config.rounds)
        )
        pools: dict[Modality, Pool] = {m: build_pool(config, used[m]) for m in self.centres}
        self.pool = nn.ModuleDict(cast(dict[str, nn.Module], pools))
        self.features = sum(pool.features for pool in pools.values())
        self.only_means = config.pooling == "mean" and not config.feed_forward
        """Whether the last block of a centre is asked for the mean of its tokens only."""

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """A modality alone is only pooled, after a linear map if there is a width."""
        if len(config.modalities) > 1 or (config.width is not None and config.pooling != "mean"):
            return "tokens"
        return summary_of_pool(config)

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Tokens (N_m, D_m) to (B, features of the centres' pools); zeros for a centre that a sample lacks."""
        now: dict[Modality, Ragged] = {m: tokens[m] for m in self.modalities}
        for m, project in self.project.items():
            modality = cast(Modality, m)
            now[modality] = Ragged(project(now[modality].values), now[modality].offsets)
        for i, blocks in enumerate(self.rounds, start=1):
            before = dict(now)
            for centre in self.centres:
                others = [m for m in self.modalities if m != centre]
                for other in others:
                    block = cast(nn.ModuleDict, blocks)[f"{centre}_reads_{other}"]
                    is_last = i == len(self.rounds) and other == others[-1]
                    now[centre] = block(now[centre], before[other], means=is_last and self._means_are_enough(now))
        return torch.cat([self.pool[m](now[m]).values for m in self.centres], dim=-1)

    def _means_are_enough(self, tokens: Mapping[Modality, Ragged]) -> bool:
        """On a GPU the fused kernel that reads for every token stays: there, this was not measured."""
        return self.only_means and all(part.values.device.type == "cpu" for part in tokens.values())
