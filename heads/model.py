"""The model: layers mixed, an aggregator, length features if asked for, and a head.

Shapes: B samples, N_m packed tokens of modality m, D_m its width, L_m its layers, K tissues.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators import build_aggregator, what_it_reads
from heads.config import ModelConfig
from heads.mixing import LayerMix
from heads.outputs import build_head
from heads.pooling import Pooled, Standardised
from heads.summaries import summary_shape

__all__ = ["ExpressionModel", "count_parameters", "drop_modalities"]


class ExpressionModel(nn.Module):
    """From token embeddings to expression, on the z-scale of the training rows.

    Args:
        config: What the model is.
        widths: Width of the token embeddings of each modality, of one layer.
        n_tissues: Outputs.
        layers: Cached layers of each modality that lie side by side in its tokens; None for one of each.
    """

    def __init__(
        self,
        config: ModelConfig,
        widths: Mapping[Modality, int],
        n_tissues: int,
        layers: Mapping[Modality, int] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.n_tissues = config, n_tissues
        self.layers = {m: (layers or {}).get(m, 1) for m in config.modalities}
        self.reads = what_it_reads(config, self.layers)
        """The least that ``forward`` needs of tokens; see ``heads.summaries.summarise``."""
        mixed = {m: LayerMix(n, widths[m]) for m, n in self.layers.items() if n > 1}
        self.mix = nn.ModuleDict(cast(dict[str, nn.Module], mixed))
        self.aggregator = build_aggregator(config, widths)
        measured = {m: Standardised(1) for m in config.modalities} if config.lengths else {}
        self.lengths = nn.ModuleDict(cast(dict[str, nn.Module], measured))
        self.head = build_head(config, self.aggregator.features + len(measured), n_tissues)

    def forward(self, tokens: Mapping[Modality, Ragged], lengths: Mapping[Modality, Tensor] | None = None) -> Tensor:
        """Predict every tissue of every sample.

        Args:
            tokens: Packed tokens (N_m, L_m * D_m) of each modality, the same B samples in each, or the summaries of
                them that the model ``reads``. A sample without rows lacks the modality; gradients stay finite.
            lengths: Tokens of each sample (B,), of each modality, for length features; None to count the rows of
                ``tokens``, where they are no summaries.

        Returns:
            (B, K).

        Raises:
            InvalidSettingError: Length features are asked for, and ``tokens`` are summaries without ``lengths``.
        """
        now: dict[Modality, Ragged] = {m: tokens[m] for m in self.config.modalities}
        if self.config.lengths and lengths is None and self._are_summaries(now):
            raise InvalidSettingError("A model with lengths was given summaries of tokens. Give it `lengths` as well.")
        if self.training and self.config.modality_dropout:
            now = drop_modalities(now, self.config.modality_dropout)
        for m, mix in self.mix.items():
            now[cast(Modality, m)] = mix(now[cast(Modality, m)])
        features = [self.aggregator(now)]
        for m in self.config.modalities if self.config.lengths else ():
            counts = (tokens[m].lengths if lengths is None else lengths[m]).to(features[0].device)
            present = (now[m].lengths > 0).to(counts.device)
            found: Pooled = cast(Standardised, self.lengths[m]).standardise(counts[:, None].float().log1p(), present)
            features.append(found.values)
        output: Tensor = self.head(torch.cat(features, dim=-1) if len(features) > 1 else features[0])
        return output

    def _are_summaries(self, tokens: Mapping[Modality, Ragged]) -> bool:
        """Whether every modality looks like the summary that the model reads."""
        shape = summary_shape(self.reads, 1)
        if shape is None:
            return False
        return all(bool(((n == 0) | (n == shape[0])).all()) for n in (part.lengths for part in tokens.values()))


def drop_modalities(tokens: Mapping[Modality, Ragged], chance: float) -> dict[Modality, Ragged]:
    """Take modalities from samples at random, but from none its last one; values are not written to.

    Each modality that a sample has is lost with the given chance, drawn from torch's generator on the CPU. Where all
    would be lost, one of them is kept, each with the same chance.
    """
    present = torch.stack([part.lengths > 0 for part in tokens.values()], dim=-1)  # (B, modalities)
    draws = torch.rand(present.shape).masked_fill(~present, -1.0)
    keep = (draws >= chance) | (draws == draws.amax(-1, keepdim=True))  # the largest draw is never lost
    return {m: _only(part, kept) for (m, part), kept in zip(tokens.items(), (keep & present).unbind(-1), strict=True)}


def _only(tokens: Ragged, keep: Tensor) -> Ragged:
    """Tokens of the samples of which ``keep`` (B,) is True; the others have none."""
    lengths = tokens.lengths
    if bool((keep | (lengths == 0)).all()):
        return tokens
    rows = keep.repeat_interleave(lengths).nonzero().squeeze(1)
    offsets = torch.cat([lengths.new_zeros(1), (lengths * keep).cumsum(0)])
    return Ragged(tokens.values.index_select(0, rows.to(tokens.values.device)), offsets)


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
