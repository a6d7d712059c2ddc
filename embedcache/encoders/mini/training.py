"""Masked language modelling on packed tokens."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from embedcache.choices import ComputeDtype
from embedcache.encoders.attention import ATTENTION
from embedcache.encoders.blocks import run_blocks
from embedcache.encoders.mini.corpus import read_corpus
from embedcache.encoders.mini.network import build, vocabulary
from embedcache.encoders.mini.pieces import cut_genome, cut_tokens, packs
from embedcache.encoders.packing import Vocabulary, pack_inputs
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import kmer_of
from embedcache.splits import SplitName

__all__ = ["Corpus", "Recipe", "evaluation_pieces", "masked_perplexity", "train"]

log = logging.getLogger(__name__)
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how a mini encoder is trained."""

    epochs: float = 2.0
    """Times that all training sequences are seen; a part of one counts."""
    learning_rate: float = 2e-3
    """At its height, after a twentieth of all steps; then down to nothing along a cosine."""
    tokens_per_step: int = 4096
    longest: int = 512
    """Tokens of a piece; longer sequences are cut."""
    masked: float = 0.2
    """Share of tokens that are asked for; of these 80 % are hidden, 10 % another token, 10 % as they are."""
    weight_decay: float = 0.01
    dtype: ComputeDtype = "bfloat16"
    """Of products in training; weights, sums and normalisations stay in float32."""
    initial: float = 0.02
    """Deviation of the first weights. Where tokens say little of each other, as in DNA, larger ones learn sooner."""
    seed: int = 0


class Corpus:
    """Training or held-out sequences as tokens."""

    def __init__(self, folder: Path, spec: EncoderSpec, split: SplitName) -> None:
        self.vocabulary: Vocabulary = vocabulary(spec.tokens)
        self.rule = spec.tokens
        self.sequences = read_corpus(folder, spec.modality, split)
        self.is_genome = spec.modality == "dna"
        self._ids = [] if self.is_genome else [self.vocabulary.ids(one) for one in self.sequences]

    def pieces(self, longest: int, draw: np.random.Generator | None) -> list[Integers]:
        """Pieces of at most ``longest`` tokens: drawn anew for training, always the same ones without a generator."""
        if self.is_genome:
            return list(cut_genome(self.sequences, self.rule, self.vocabulary, longest, draw))
        if draw is not None:
            return list(cut_tokens(self._ids, longest, draw))
        return [one[a : a + longest] for one in self._ids for a in range(0, len(one), longest)]

    @property
    def n_tokens(self) -> int:
        """Tokens of all sequences."""
        if self.is_genome:
            return sum(map(len, self.sequences)) // max(1, kmer_of(self.rule))
        return sum(map(len, self._ids))


def train(folder: Path, spec: EncoderSpec, recipe: Recipe) -> Any:
    """Train a new network on the training split of a corpus.

    Args:
        folder: Of ``write_corpus``.
        spec: Modality, tokens and architecture.
        recipe: How.

    Returns:
        An ``EsmForMaskedLM``, in training mode and on packed attention. The same arguments give the same weights on
        the same machine and number of threads.
    """
    corpus = Corpus(folder, spec, "train")
    draw = np.random.default_rng(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build(spec, recipe.initial)
    model.esm.set_attn_implementation(ATTENTION)
    steps = _steps(corpus, recipe)
    optimiser, schedule = _optimiser(model, recipe, steps)
    began, seen, mean = time.monotonic(), 0, math.nan
    for step, pack in zip(range(steps), _endless(corpus, recipe, draw), strict=False):
        with torch.autocast("cpu", getattr(torch, recipe.dtype), enabled=recipe.dtype != "float32"):
            loss = _loss(model, corpus.vocabulary, pack, recipe.masked, draw)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        seen += sum(map(len, pack))
        mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            rate = seen / (time.monotonic() - began)
            log.info("step %d of %d, perplexity %.3f, %.0f tokens/s", step + 1, steps, math.exp(mean), rate)
    return model


def evaluation_pieces(
    corpus: Corpus, longest: int, share: float, most_tokens: int = 0, seed: int = 1
) -> tuple[list[Integers], list[Integers]]:
    """Pieces of held-out sequences, and the places in each that are asked for; the same ones every time.

    Args:
        corpus: Held out.
        longest: Tokens of a piece.
        share: Of tokens that are asked for.
        most_tokens: About so many are kept, evenly from all pieces; 0 keeps all.
        seed: Of the places.
    """
    pieces = [one for one in corpus.pieces(longest, None) if len(one) > 1]
    if most_tokens:
        step = max(1, sum(map(len, pieces)) // most_tokens)
        pieces = pieces[::step]
    draw = np.random.default_rng(seed)
    return pieces, [np.flatnonzero(_asked(one, share, draw)) for one in pieces]


@torch.no_grad()
def masked_perplexity(model: Any, words: Vocabulary, pieces: Sequence[Integers], masked: Sequence[Integers]) -> float:
    """Exponential of the mean loss over hidden tokens, all of which are hidden."""
    model.eval()
    total, count = 0.0, 0
    for piece, places in zip(pieces, masked, strict=True):
        if len(places):
            shown = piece.copy()
            shown[places] = model.config.mask_token_id
            scores = _scores(model, words, [shown], [places])
            total += float(F.cross_entropy(scores, torch.from_numpy(piece[places]), reduction="sum"))
            count += len(places)
    model.train()
    return math.exp(total / count)


def _steps(corpus: Corpus, recipe: Recipe) -> int:
    return max(1, round(recipe.epochs * corpus.n_tokens / recipe.tokens_per_step))


def _endless(corpus: Corpus, recipe: Recipe, draw: np.random.Generator) -> Iterator[list[Integers]]:
    while True:
        yield from packs(corpus.pieces(recipe.longest, draw), recipe.tokens_per_step, draw)


def _optimiser(model: Any, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    decayed = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    warm = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _loss(model: Any, words: Vocabulary, pack: Sequence[Integers], share: float, draw: np.random.Generator) -> Tensor:
    shown, places = [], []
    for piece in pack:
        asked = np.flatnonzero(_asked(piece, share, draw))
        kind, one = draw.random(len(asked)), piece.copy()
        one[asked[kind < 0.8]] = model.config.mask_token_id
        other = asked[(kind >= 0.8) & (kind < 0.9)]
        one[other] = draw.permutation(piece)[: len(other)]  # as frequent as tokens are
        shown.append(one)
        places.append(asked)
    wanted = np.concatenate([piece[asked] for piece, asked in zip(pack, places, strict=True)])
    return F.cross_entropy(_scores(model, words, shown, places), torch.from_numpy(wanted))


def _asked(piece: Integers, share: float, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens are asked for; at least one."""
    asked = draw.random(len(piece)) < share
    if not asked.any():
        asked[draw.integers(len(piece))] = True
    return asked


def _scores(model: Any, words: Vocabulary, shown: Sequence[Integers], places: Sequence[Integers]) -> Tensor:
    """Scores of all tokens at the places asked for, (asked, vocabulary)."""
    after = [] if words.after is None else [words.after]
    ids = [np.concatenate([[words.before], one, after]).astype(np.int64) for one in shown]
    starts = np.cumsum([1, *(len(one) for one in ids[:-1])])
    asked = np.concatenate([start + one for start, one in zip(starts, places, strict=True)])
    x = run_blocks(model.esm, pack_inputs(ids, words, model.device), [-1])[-1]  # (N, D)
    scores: Tensor = model.lm_head(x[torch.from_numpy(asked)])
    return scores
