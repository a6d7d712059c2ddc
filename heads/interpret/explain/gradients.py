"""Gradient x embedding: how much each token adds to a prediction, to first order.

The gradient of a prediction with respect to the embedding of a token, times that embedding, summed over its numbers
(gradient x input: Shrikumar et al. 2016, arXiv 1605.01713; gradients as saliency: Simonyan et al. 2014, arXiv
1312.6034). Embeddings are what the encoder gives, so a token has read its neighbours: its score is that of its row in
the cache, not of its letters alone. Where the model is linear in its tokens, scores add up to the prediction less that
of embeddings of zero; elsewhere they need not, and both numbers are shown.

Shapes: T tokens of a sequence, D width, L letters, K tissues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.interpret.explain.output import Outputs
from heads.interpret.explain.page import html_page, html_rows
from heads.interpret.explain.subject import Subject, asked, open_subject, story
from heads.interpret.explain.svg import heat_map

__all__ = ["GradientScores", "Scores", "gradients", "score_tokens", "to_letters"]

Array = NDArray[np.float64]

_MOST_COLUMNS = 5000
"""Of a drawn sequence; a longer one is drawn in stretches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of one transcript."""

    tokens: Mapping[Modality, Array]
    """(T, K) of each modality that the transcript has."""
    prediction: Array
    """(K,)"""
    of_zeros: Array
    """Prediction with as many tokens, all zeros, (K,)."""

    @property
    def total(self) -> Array:
        """Sum over all tokens of all modalities, (K,)."""
        total: Array = np.sum([one.sum(axis=0) for one in self.tokens.values()], axis=0)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientScores:
    """What ``gradients`` found and wrote."""

    outputs: Outputs
    subject: Subject
    scores: Scores
    """Of the tissues asked for."""
    tissues: tuple[str, ...]

    def letters(self, modality: Modality) -> Array:
        """Scores of the letters of one modality, (L, K), see ``to_letters``."""
        return to_letters(self.scores.tokens[modality], self.spans(modality), len(self.subject.sequence(modality)))

    def spans(self, modality: Modality) -> NDArray[np.int64]:
        """Letters [start, end) of each token, (T, 2)."""
        return self.subject.live.tokens[modality].spec.spans(self.subject.sequence(modality))

    @property
    def of(self) -> str:
        """Which tissues shown numbers are of."""
        return self.tissues[0] if len(self.tissues) == 1 else f"mean over {len(self.tissues)} tissues"

    def check(self) -> str:
        """Scores in sum beside what they would add up to in a linear model."""
        total, change = float(self.scores.total.mean()), float((self.scores.prediction - self.scores.of_zeros).mean())
        return (
            f"sum of all scores {total:+.3g}; prediction less that of zero embeddings {change:+.3g} "
            "(equal where the model is linear in its tokens, a first-order view elsewhere)"
        )

    def __str__(self) -> str:
        label = f" [{'; '.join(self.subject.labels)}]" if self.subject.labels else ""
        sums = ", ".join(f"{m} {float(one.sum(axis=0).mean()):+.3g}" for m, one in self.scores.tokens.items())
        lines = [
            f"{self.outputs.parquet} and {self.outputs.html.name}: gradient x embedding of {self.subject.transcript}, "
            f"{self.of}, unit {self.subject.live.unit}{label}",
            f"prediction {float(self.scores.prediction.mean()):.3g}; {self.check()}",
            f"by modality: {sums}",
            "strongest tokens:",
        ]
        return "\n".join([*lines, *("  " + "  ".join(row) for row in _strongest(self, 10))])


def gradients(
    run: Path | str,
    transcript: str,
    output: Path | str,
    *,
    tissues: Sequence[str] = (),
    modality: Modality | None = None,
    dataset: Path | str | None = None,
    device: str = "auto",
    weights: Mapping[Modality, Path] | None = None,
) -> GradientScores:
    """Score every token of a transcript, and write a Parquet file and a page.

    Args:
        run: Directory of a finished run.
        transcript: ID in the dataset.
        output: Directory of the two files.
        tissues: Those to keep; all without it.
        modality: The only one to show; all that the model reads without it. Sums are over all in any case.
        dataset: Any dataset; that of the run without it.
        device: Where encoders and model run.
        weights: Directories of published weights.

    Raises:
        EmbedCacheError: See ``open_subject``; a modality or a tissue that is not there; an output of others.
    """
    question = asked(run, dataset, tissues, transcript=transcript, modality=modality)
    outputs = Outputs(Path(output), "gradients", transcript, *([modality] if modality else []), question=question)
    subject = open_subject(run, transcript, dataset=dataset, device=device, weights=weights)
    columns = subject.live.columns(tissues)
    if modality:
        subject.sequence(modality)
    elif not any(subject.sequences.get(m) for m in subject.live.modalities):
        raise InvalidSettingError(f"{transcript} has no sequence that the model reads. Choose another --transcript.")
    found = GradientScores(
        outputs=outputs,
        subject=subject,
        scores=score_tokens(subject, columns),
        tissues=tuple(subject.live.tissues[k] for k in columns),
    )
    shown = [modality] if modality else list(found.scores.tokens)
    about = story("gradients", subject.live, subject.dataset, transcript=transcript, check=found.check())
    outputs.write(_table(found, shown), about, _page(found, shown, about))
    return found


def score_tokens(subject: Subject, columns: Sequence[int]) -> Scores:
    """Gradient x embedding of every token for some columns of the prediction."""
    live = subject.live
    with torch.no_grad():
        tokens = {m: live.embed(m, [subject.sequences.get(m)]) for m in live.modalities}
        zeros = live.forward({m: Ragged(torch.zeros_like(one.values), one.offsets) for m, one in tokens.items()})
    leaves = {m: one.values.detach().clone().requires_grad_() for m, one in tokens.items()}
    predicted = live.forward({m: Ragged(leaves[m], one.offsets) for m, one in tokens.items()})[0]  # (all tissues,)
    scores: dict[Modality, list[Array]] = {m: [] for m in leaves}
    for k in columns:
        found = torch.autograd.grad(predicted[k], list(leaves.values()), retain_graph=True, allow_unused=True)
        for (m, leaf), gradient in zip(leaves.items(), found, strict=True):
            product = torch.zeros_like(leaf) if gradient is None else gradient * leaf
            scores[m].append(product.detach().double().sum(-1).cpu().numpy())  # (T,)
    return Scores(
        tokens={m: np.stack(one, axis=1) for m, one in scores.items() if subject.sequences.get(m) is not None},
        prediction=predicted.detach().double().cpu().numpy()[list(columns)],
        of_zeros=zeros[0].double().cpu().numpy()[list(columns)],
    )


def to_letters(scores: Array, spans: NDArray[np.int64], length: int) -> Array:
    """Scores of tokens (T, K) shared equally by the letters that each covers, (L, K); letters of no token get 0."""
    letters = np.zeros((length, scores.shape[1]))
    for (start, end), score in zip(spans.tolist(), scores, strict=True):
        letters[start:end] += score / (end - start)
    return letters


def _table(found: GradientScores, shown: Sequence[Modality]) -> pa.Table:
    """One row a token and tissue."""
    parts = []
    k = len(found.tissues)
    for m in shown:
        spans, scores, sequence = found.spans(m), found.scores.tokens[m], found.subject.sequence(m)
        rows = np.repeat(np.arange(len(spans)), k)
        columns: dict[str, Any] = {
            "transcript_id": pa.array([found.subject.transcript] * len(rows), pa.string()),
            "modality": pa.array([m] * len(rows), pa.string()),
            "token": pa.array(rows),
            "start": pa.array(spans[rows, 0]),
            "end": pa.array(spans[rows, 1]),
            "letters": pa.array([sequence[slice(*spans[row])] for row in rows], pa.string()),
            "tissue": pa.array(list(found.tissues) * len(spans), pa.string()),
            "score": pa.array(scores.ravel()),
        }
        parts.append(pa.table(list(columns.values()), names=list(columns)))
    return pa.concat_tables(parts)


def _strongest(found: GradientScores, most: int, shown: Sequence[Modality] | None = None) -> list[list[str]]:
    rows = []
    for m in shown or list(found.scores.tokens):
        means, sequence = found.scores.tokens[m].mean(axis=1), found.subject.sequence(m)
        for (start, end), score in zip(found.spans(m).tolist(), means.tolist(), strict=True):
            text = sequence[start:end]
            rows.append((m, f"{start}:{end}", text if len(text) <= 24 else f"{text[:21]}...", score))
    rows.sort(key=lambda row: -abs(row[3]))
    return [[*row[:3], f"{row[3]:+.3g}"] for row in rows[:most]]


def _page(found: GradientScores, shown: Sequence[Modality], about: Mapping[str, Any]) -> str:
    subject = found.subject
    lines = [
        f"Gradient x embedding of every token of {subject.transcript}, {found.of}, {subject.live.unit}, shared equally "
        "by the letters of the token. Orange raises the prediction, blue lowers it, to first order.",
        "A token has read its neighbours in the encoder: its score is that of its row, not of its letters alone.",
        f"Check: {found.check()}.",
        "Method: gradient x input (Shrikumar et al. 2016, arXiv 1605.01713), from gradients as saliency (Simonyan et "
        "al. 2014, arXiv 1312.6034).",
    ]
    sections: dict[str, str] = {}
    for m in shown:
        values, sequence = found.letters(m).mean(axis=1), subject.sequence(m)
        step = -(-len(sequence) // _MOST_COLUMNS)
        starts = np.arange(0, len(values), step)
        is_read = to_letters(np.ones((len(found.spans(m)), 1)), found.spans(m), len(sequence))[:, 0]
        sums = np.where(np.add.reduceat(is_read, starts) > 0, np.add.reduceat(values, starts), np.nan)
        letters = [sequence[i] if step == 1 else "" for i in range(0, len(sequence), step)]
        words = "One cell a letter" if step == 1 else f"One cell for {step} letters, which are summed"
        words += "; a dot where the encoder read nothing (crop)." if np.isnan(sums).any() else "."
        drawn = heat_map(f"{m}: score of each letter, {found.of}", ["score"], letters, sums[None], first=0, step=step)
        sections[m] = f'<p class="soft">{words}</p><figure class="wide">{drawn}</figure>'
    header = ["modality", "letters", "", "score"]
    sections["Strongest tokens"] = html_rows(header, _strongest(found, 30, shown), f"unit {subject.live.unit}")
    return html_page(f"Gradients of {subject.transcript}", lines, subject.labels, sections, about)
