"""Cross-attention of a trained run: what the tokens of one modality read in the regions of another.

The run reads its tokens as it does when it is scored, those of fine-tuned encoders live; each block of its aggregator
is looked at on the way.
Shapes: N transcripts, L rounds, H heads, R regions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedcache.progress import Progress
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators.cross_attention import CrossAttentionAggregator
from heads.attention import CrossAttention
from heads.data import cut
from heads.interpret.attention.region_attention import attend_to_regions
from heads.interpret.attention.regions import find_cases, has_regions, region_bounds, region_names, region_shares
from heads.interpret.attention.scores import RegionScores, mask_absent
from heads.open_sources import StoredSource, layers_of
from heads.setup import Study
from heads.trained import TrainedRun

__all__ = ["Pair", "block_mass", "cross_scores", "has_cross_attention", "rows_with_regions"]

Floats = NDArray[np.float64]
Pair = tuple[Modality, Modality]
"""Whose tokens ask, and whose are read."""
Shares = Mapping[Modality, Mapping[int, Tensor]]
"""Of each modality the regions of the tokens of each row of the dataset, (tokens, R)."""


def has_cross_attention(trained: TrainedRun) -> bool:
    """Whether the run mixes two modalities or more by cross-attention."""
    return isinstance(trained.model.aggregator, CrossAttentionAggregator) and len(trained.model.config.modalities) > 1


def rows_with_regions(study: Study) -> NDArray[np.int64]:
    """Rows that have every modality of the run, and regions on each."""
    present = [has_regions(study.dataset, m) & (source.lengths > 0) for m, source in study.sources.items()]
    return np.flatnonzero(np.logical_and.reduce(present)).astype(np.int64)


@torch.no_grad()
def cross_scores(
    trained: TrainedRun, study: Study, rows: NDArray[np.int64], *, threshold: float | None = None
) -> dict[Pair, RegionScores]:
    """Attention mass of the queries of each centre on regions of each other modality, mean over its tokens.

    Args:
        trained: A run of ``cross-attention``.
        study: What it was trained on.
        rows: At least one, out of ``rows_with_regions``.
        threshold: As in ``attention_scores.score_transcripts``.
    """
    model, device = trained.model, next(trained.model.parameters()).device
    shares = {m: _shares(study, m, source, rows) for m, source in study.sources.items()}
    found: dict[Pair, list[list[Floats]]] = {}
    data = trained.data(study)
    parts = cut(rows, data.lengths, trained.config.batch_size, trained.config.max_tokens_per_batch)
    with Progress(len(rows), "transcripts", "cross-attention") as progress:
        for batch in data.batches(parts, reads="tokens", device=device):
            chosen = batch.rows.tolist()
            with _watched(cast(CrossAttentionAggregator, model.aggregator), shares, chosen, threshold, found):
                model(batch.tokens, batch.lengths)
            progress.update(len(chosen))
    genes = np.asarray(study.dataset.samples["gene_id"].to_numpy()[rows], dtype=np.str_)
    return {pair: _scores(layers, shares[pair[1]], pair[1], rows, genes) for pair, layers in found.items()}


def block_mass(
    block: CrossAttention, x: Ragged, context: Ragged, regions: Sequence[Tensor], *, threshold: float | None = None
) -> Floats:
    """Attention mass on regions of the context in one block, mean over the queries of each sample, (B, H, R).

    Args:
        block: As it was trained.
        x: Tokens that ask, as the block gets them.
        context: Tokens that are read.
        regions: Of each sample the regions of the tokens that are read, (tokens, R).
        threshold: As in ``attention_scores.score_transcripts``.
    """
    own = x.values if block.norm is None else block.norm(x.values)
    other = context.values if block.context_norm is None else block.context_norm(context.values)
    q = block.query(own).unflatten(-1, (block.heads, -1)).float()  # (N, H, d)
    k = block.key(other).unflatten(-1, (block.heads, -1)).float()  # (M, H, d)
    found = []
    queries, keys = Ragged(q, x.offsets).to_list(), Ragged(k, context.offsets).to_list()
    for query, key, shares in zip(queries, keys, regions, strict=True):
        sums, _ = attend_to_regions(
            query.transpose(0, 1), key.transpose(0, 1), shares.to(query.device), threshold=threshold
        )
        total = sums.double().sum(1)  # (H, R)
        mass = total / (len(query) if threshold is None else total.sum(-1, keepdim=True))
        found.append(mass.cpu().numpy())
    return np.stack(found)


@contextmanager
def _watched(
    aggregator: CrossAttentionAggregator,
    shares: Shares,
    rows: Sequence[int],
    threshold: float | None,
    found: dict[Pair, list[list[Floats]]],
) -> Iterator[None]:
    """Let each block of the aggregator add what it sees of these rows to ``found``, by pair and round."""
    hooks = []
    for number, blocks in enumerate(aggregator.rounds):
        for name, block in cast(nn.ModuleDict, blocks).items():
            centre, _, other = name.partition("_reads_")
            rounds = found.setdefault((cast(Modality, centre), cast(Modality, other)), [])
            if len(rounds) == number:
                rounds.append([])
            regions = [shares[cast(Modality, other)][row] for row in rows]

            def look(
                module: nn.Module,
                inputs: tuple[Ragged, Ragged],
                regions: list[Tensor] = regions,
                into: list[Floats] = rounds[number],
            ) -> None:
                into.append(block_mass(cast(CrossAttention, module), *inputs, regions, threshold=threshold))

            hooks.append(block.register_forward_pre_hook(look))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shares(study: Study, modality: Modality, source: StoredSource, rows: NDArray[np.int64]) -> dict[int, Tensor]:
    """Regions of the tokens that a store holds, by row of the dataset."""
    spec = layers_of(source)[0].store.spec
    found = {}
    for case in find_cases(study.dataset, modality, rows.tolist()):
        spans = spec.spans(case.sequence)
        bounds = region_bounds(modality, case.sequence, case.cds, spans)
        found[case.row] = torch.from_numpy(region_shares(spans, bounds))
    return found


def _scores(
    layers: list[list[Floats]],
    shares: Mapping[int, Tensor],
    modality: Modality,
    rows: NDArray[np.int64],
    genes: NDArray[np.str_],
) -> RegionScores:
    mass = np.stack([np.concatenate(batches) for batches in layers], axis=1)  # (N, L, H, R)
    uniform = np.stack([shares[row].double().mean(0).numpy() for row in rows.tolist()])
    return mask_absent(RegionScores(regions=region_names(modality), mass=mass, uniform=uniform, genes=genes, rows=rows))
