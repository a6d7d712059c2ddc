"""Attention mass of every head and layer of an encoder on the regions of transcripts.

Shapes: N transcripts, L layers, H heads, R regions, T tokens of a sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from embedcache.encoders.packing import PackedEncoder, pack_inputs
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.windows import plan_windows, window_letters
from embedcache.progress import Progress
from heads.interpret.attention.region_attention import Collector, attending_to_regions
from heads.interpret.attention.regions import Case, region_bounds, region_names, region_shares

__all__ = ["RegionScores", "mask_absent", "region_mass", "score_transcripts"]

Floats = NDArray[np.float64]
Piece = tuple[str, NDArray[np.float32]]
"""Letters that go through the encoder together, and the regions of their tokens with special ones, (T, R)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionScores:
    """Attention by region of some transcripts, and what even attention would give."""

    regions: tuple[str, ...]
    mass: Floats
    """Mean over queries of the attention on each region, (N, L, H, R); NaN where a transcript has no such region."""
    uniform: Floats
    """Share of tokens in each region, (N, R); NaN as in ``mass``."""
    genes: NDArray[np.str_]
    """Gene ID of each transcript, (N,)."""
    rows: NDArray[np.int64]
    """Row of each transcript in the dataset, (N,)."""


def score_transcripts(encoder: PackedEncoder, cases: Sequence[Case], *, threshold: float | None = None) -> RegionScores:
    """Run an encoder once over every distinct sequence, one at a time.

    Args:
        encoder: With an ``EsmModel``; all its blocks count, up to the layer of its spec.
        cases: Transcripts, sequences before any crop; at least one, each with at least one token.
        threshold: Share of the weights above it that fall on a region, as in the Nucleotide Transformer paper, in
            place of the attention mass; NaN for a head that has none.
    """
    known: dict[tuple[str, tuple[int, int] | None], tuple[Floats, Floats]] = {}
    distinct = {(case.sequence, case.cds): case for case in cases}
    total = sum(encoder.spec.n_tokens(sequence) for sequence, _ in distinct)
    with Progress(total, "tokens", "attention") as progress, attending_to_regions(encoder.model):
        for which, case in distinct.items():
            known[which] = region_mass(encoder, case, threshold=threshold)
            progress.update(encoder.spec.n_tokens(case.sequence))
    found = [known[case.sequence, case.cds] for case in cases]
    return mask_absent(
        RegionScores(
            regions=region_names(encoder.spec.modality),
            mass=np.stack([mass for mass, _ in found]),
            uniform=np.stack([share for _, share in found]),
            genes=np.array([case.gene_id for case in cases], dtype=np.str_),
            rows=np.array([case.row for case in cases], dtype=np.int64),
        )
    )


def mask_absent(scores: RegionScores) -> RegionScores:
    """NaN where a transcript has no token in a region; regions that no transcript has are left out."""
    absent = scores.uniform == 0  # (N, R)
    kept = ~absent.all(axis=0)
    mass = np.where(absent[:, None, None], np.nan, scores.mass)[..., kept]
    return replace(
        scores,
        regions=tuple(name for name, is_kept in zip(scores.regions, kept, strict=True) if is_kept),
        mass=mass,
        uniform=np.where(absent, np.nan, scores.uniform)[:, kept],
    )


@torch.inference_mode()
def region_mass(encoder: PackedEncoder, case: Case, *, threshold: float | None = None) -> tuple[Floats, Floats]:
    """Attention by region of one transcript, (L, H, R), and its share of tokens in each, (R,).

    All tokens ask, special ones too. Of windows each counts by its tokens. Call it in ``attending_to_regions``.
    """
    totals, counts, n_queries = list[Floats](), list[Floats](), 0
    for letters, shares in _pieces(encoder, case):
        collector = Collector(torch.from_numpy(shares).to(encoder.model.device), threshold)
        ids = _with_special(encoder, letters)
        inputs = pack_inputs([ids], encoder.vocabulary, encoder.model.device)
        encoder.model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], collector=collector)
        totals.append(torch.stack(collector.totals).cpu().numpy())
        counts.append(shares.sum(0, dtype=np.float64))
        n_queries += len(shares)
    total: Floats = np.sum(totals, axis=0)
    with np.errstate(invalid="ignore"):  # a head without a weight above the threshold
        mass = total / (n_queries if threshold is None else total.sum(-1, keepdims=True))
    return mass, np.sum(counts, axis=0) / n_queries


def _pieces(encoder: PackedEncoder, case: Case) -> list[Piece]:
    """What goes through the encoder: the sequence after the crop, or its windows."""
    spec = replace(encoder.spec, pooling="none", special_tokens="dropped")
    spans = spec.spans(case.sequence)
    bounds = region_bounds(spec.modality, case.sequence, case.cds, spans)
    before, after = (int(one is not None) for one in (encoder.vocabulary.before, encoder.vocabulary.after))
    pieces = []
    for letters, start, stop in _cut(spec, case.sequence, len(spans)):
        with_special = np.pad(spans[start:stop], ((before, after), (0, 0)))  # which cover no letter
        pieces.append((letters, region_shares(with_special, bounds)))
    return pieces


def _cut(spec: EncoderSpec, sequence: str, n_tokens: int) -> list[tuple[str, int, int]]:
    """Letters and tokens [start, stop) of each piece."""
    if spec.crop != "windows":
        return [(spec.cropped(sequence), 0, n_tokens)]
    windows = plan_windows(n_tokens, spec.max_tokens, spec.overlap)
    letters = window_letters(sequence, spec.tokens, windows)
    return [(part, window.start, window.stop) for part, window in zip(letters, windows, strict=True)]


def _with_special(encoder: PackedEncoder, letters: str) -> NDArray[np.int64]:
    before, after = ([] if one is None else [one] for one in (encoder.vocabulary.before, encoder.vocabulary.after))
    return np.concatenate([before, encoder.vocabulary.ids(letters), after]).astype(np.int64)
