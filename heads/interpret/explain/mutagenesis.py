"""In-silico mutagenesis: every other letter at every position of a stretch, and what it does to the prediction.

Shapes: M mutants, P positions, A letters of the alphabet, K tissues.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from embedcache.errors import InvalidSettingError
from embedcache.progress import Progress
from embedcache.sequences import Modality
from heads.interpret.explain.coding import RnaEdit, coding_change
from heads.interpret.explain.live_model import Sequences
from heads.interpret.explain.live_tokens import TOKENS_PER_CALL
from heads.interpret.explain.output import Outputs
from heads.interpret.explain.page import html_page, html_rows
from heads.interpret.explain.subject import Subject, asked, open_subject, parse_region, story
from heads.interpret.explain.svg import heat_map

__all__ = ["ALPHABETS", "Mutagenesis", "Mutant", "default_region", "make_mutants", "mutagenesis"]

Array = NDArray[np.float64]

ALPHABETS: dict[Modality, str] = {"dna": "ACGT", "rna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}
MOST_POSITIONS: dict[Modality, int] = {"dna": 200, "rna": 200, "protein": 50}
"""Of a stretch that nobody chose."""


class Mutant(NamedTuple):
    """One letter that becomes another."""

    position: int
    """0-based."""
    ref: str
    alt: str
    consequence: str
    """What it does to the protein, where that is carried along; else empty."""
    sample: Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutagenesis:
    """What ``mutagenesis`` found and wrote."""

    outputs: Outputs
    transcript: str
    modality: Modality
    region: tuple[int, int]
    mutants: Sequence[Mutant]
    tissues: tuple[str, ...]
    reference: Array
    """Prediction without any change, (K,)."""
    difference: Array
    """Of the prediction of each mutant from that, (M, K)."""
    unit: str
    labels: tuple[str, ...]

    @property
    def strongest(self) -> list[int]:
        """Mutants by the size of their mean difference over tissues, largest first; equal ones by position."""
        order: list[int] = np.argsort(-np.abs(self.difference.mean(axis=1)), kind="stable").tolist()
        return order

    def __str__(self) -> str:
        label = f" [{'; '.join(self.labels)}]" if self.labels else ""
        start, end = self.region
        lines = [
            f"{self.outputs.parquet} and {self.outputs.html.name}: {len(self.mutants):,} mutants of {self.transcript}, "
            f"{self.modality} {start}:{end}, unit {self.unit}{label}",
            f"strongest, {_of(self.tissues)}:",
        ]
        return "\n".join([*lines, *("  " + "  ".join(row) for row in _rows(self, 10))])


def mutagenesis(
    run: Path | str,
    transcript: str,
    modality: Modality,
    output: Path | str,
    *,
    tissues: Sequence[str] = (),
    region: str | None = None,
    carry: bool = False,
    dataset: Path | str | None = None,
    device: str = "auto",
    weights: Mapping[Modality, Path] | None = None,
) -> Mutagenesis:
    """Predict every single-letter mutant of a stretch, and write a Parquet file and a page.

    Args:
        run: Directory of a finished run.
        transcript: ID in the dataset.
        modality: Whose letters change; the others stay, but see ``carry``.
        output: Directory of the two files.
        tissues: Those to keep; all without it.
        region: ``start:end``, 0-based, the end left out; a stretch around the TSS or the start codon without it.
        carry: Also change the protein by the codon, where a changed letter of the RNA is a coding one.
        dataset: Any dataset; that of the run without it.
        device: Where encoders and model run.
        weights: Directories of published weights.

    Raises:
        EmbedCacheError: See ``open_subject``; a modality, a region or a tissue that is not there; an output of others.
    """
    wanted = parse_region(region) if region else None
    question = asked(run, dataset, tissues, transcript=transcript, modality=modality, region=region, carry=carry)
    outputs = Outputs(Path(output), "mutagenesis", transcript, modality, question=question)
    subject = open_subject(run, transcript, dataset=dataset, device=device, weights=weights)
    columns = subject.live.columns(tissues)
    bounds = _choose_region(subject, modality, wanted, carry=carry)
    mutants = make_mutants(subject, modality, bounds, carry=carry)
    reference, predicted = _predict(subject, modality, mutants)
    result = Mutagenesis(
        outputs=outputs,
        transcript=transcript,
        modality=modality,
        region=bounds,
        mutants=mutants,
        tissues=tuple(subject.live.tissues[k] for k in columns),
        reference=reference[columns],
        difference=(predicted - reference)[:, columns],
        unit=subject.live.unit,
        labels=subject.labels,
    )
    settings = {"transcript": transcript, "modality": modality, "region": list(bounds), "carry": carry}
    reference_by_tissue = dict(zip(result.tissues, result.reference.tolist(), strict=True))
    about = story("mutagenesis", subject.live, subject.dataset, **settings, reference=reference_by_tissue)
    outputs.write(_table(result), about, _page(result, subject, about))
    return result


def default_region(subject: Subject, modality: Modality) -> tuple[int, int]:
    """A stretch that is affordable: around the TSS, around the start codon, or from the first residue on."""
    sequence = subject.sequence(modality)
    low, high = subject.live.tokens[modality].spec.bounds(sequence)
    size = min(MOST_POSITIONS[modality], high - low)
    middle = {"dna": len(sequence) // 2, "rna": subject.cds[0] if subject.cds else 0, "protein": 0}[modality]
    start = min(max(middle - size // 2, low), high - size)
    return start, start + size


def make_mutants(subject: Subject, modality: Modality, region: tuple[int, int], *, carry: bool = False) -> list[Mutant]:
    """Every letter of the alphabet but the one that is there, at every position; see ``mutagenesis``."""
    sequence, cds = subject.sequence(modality), subject.cds
    mutants = []
    for position in range(*region):
        ref = sequence[position]
        for alt in ALPHABETS[modality]:
            if alt == ref:
                continue
            sample = {**subject.sequences, modality: sequence[:position] + alt + sequence[position + 1 :]}
            consequence = ""
            if carry and modality == "rna":
                edit = RnaEdit(position, position + 1, alt)
                change = coding_change(sequence, [edit], cds, subject.genetic_code)
                consequence = f"{change.consequence} {change.residue}".strip()
                if cds is not None:
                    sample["protein"] = change.protein
            mutants.append(Mutant(position, ref, alt, consequence, sample))
    return mutants


def _choose_region(
    subject: Subject, modality: Modality, wanted: tuple[int, int] | None, *, carry: bool
) -> tuple[int, int]:
    sequence = subject.sequence(modality)
    if carry and modality != "rna":
        raise InvalidSettingError(
            f"--carry is for changes of the RNA, not of {modality}. Leave it out, or use `heads explain variant`, "
            "which carries changes of the genome."
        )
    low, high = subject.live.tokens[modality].spec.bounds(sequence)
    if wanted is None:
        start, end = default_region(subject, modality)
        if end - start < len(sequence):
            where = {"dna": "around the TSS", "rna": "around the start codon", "protein": "from the start on"}[modality]
            _say(
                f"No --region: {end - start:,} of {len(sequence):,} positions, {start}:{end} {where}. "
                f"Give --region {low}:{high} for all."
            )
        return start, end
    start, end = wanted
    if end > len(sequence):
        raise InvalidSettingError(
            f"--region {start}:{end} ends behind the {modality} of {subject.transcript}, which has {len(sequence)} "
            f"letters, 0 to {len(sequence) - 1}. Give an end of at most {len(sequence)}."
        )
    if (end <= low or start >= high) and not carry:
        raise InvalidSettingError(
            f"--region {start}:{end} is not read: the encoder was given {low}:{high} of the {modality} of "
            f"{subject.transcript}. Choose positions of that."
        )
    if start < low or end > high:
        _say(
            f"Note: the encoder was given {low}:{high} of the {modality}; positions outside of it change nothing there."
        )
    return start, end


def _predict(subject: Subject, modality: Modality, mutants: Sequence[Mutant]) -> tuple[Array, Array]:
    """Prediction without a change (K,) and of each mutant (M, K)."""
    live = subject.live
    known = live.shelve([subject.sequences])
    reference = live.predict([subject.sequences], known)[0]
    tokens = max(live.tokens[modality].n_tokens(subject.sequence(modality)), 1)
    chunk = max(1, TOKENS_PER_CALL // tokens)
    found = [np.zeros((0, len(reference)))]
    began = time.monotonic()
    with Progress(len(mutants), " mutants", subject.transcript) as progress:
        for start in range(0, len(mutants), chunk):
            part = [mutant.sample for mutant in mutants[start : start + chunk]]
            found.append(live.predict(part, known))
            if start == 0:
                seconds = time.monotonic() - began
                _say(
                    f"{len(mutants):,} mutants of {tokens:,} tokens: about {seconds * len(mutants) / len(part):,.0f} s "
                    f"(the first {len(part)} took {seconds:.1f} s)"
                )
            progress.update(len(part))
    return reference, np.concatenate(found)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # beside a bar, not into it


def _table(result: Mutagenesis) -> pa.Table:
    """One row a mutant and tissue."""
    n, k = result.difference.shape
    each = {
        "position": pa.array([m.position for m in result.mutants], pa.int64()),
        "ref": pa.array([m.ref for m in result.mutants], pa.string()),
        "alt": pa.array([m.alt for m in result.mutants], pa.string()),
        "consequence": pa.array([m.consequence or None for m in result.mutants], pa.string()),
    }
    rows = pa.array(np.repeat(np.arange(n), k))
    columns: dict[str, Any] = {
        "transcript_id": pa.array([result.transcript] * (n * k), pa.string()),
        "modality": pa.array([result.modality] * (n * k), pa.string()),
        **{name: column.take(rows) for name, column in each.items()},
        "tissue": pa.array(list(result.tissues) * n, pa.string()),
        "reference": pa.array(np.tile(result.reference, n)),
        "difference": pa.array(result.difference.ravel()),
    }
    return pa.table(list(columns.values()), names=list(columns))


def _of(tissues: Sequence[str]) -> str:
    return tissues[0] if len(tissues) == 1 else f"mean over {len(tissues)} tissues"


def _rows(result: Mutagenesis, most: int) -> list[list[str]]:
    rows = []
    for i in result.strongest[:most]:
        one, mean = result.mutants[i], float(result.difference[i].mean())
        rows.append(
            [f"{one.position}", f"{one.ref}>{one.alt}", f"{mean:+.3g}", *([one.consequence] * bool(one.consequence))]
        )
    return rows


def _page(result: Mutagenesis, subject: Subject, about: Mapping[str, Any]) -> str:
    (start, end), alphabet = result.region, ALPHABETS[result.modality]
    values = np.full((len(alphabet), end - start), np.nan)
    for mutant, mean in zip(result.mutants, result.difference.mean(axis=1), strict=True):
        values[alphabet.index(mutant.alt), mutant.position - start] = mean
    letters = subject.sequence(result.modality)[start:end]
    lines = [
        f"{len(result.mutants):,} mutants of {result.transcript}, {result.modality} {start}:{end} (0-based, end left "
        f"out). Each cell: the prediction with that letter less that without a change, {_of(result.tissues)}, "
        f"{result.unit}; orange raises it, blue lowers it. A dot marks the letter that is there.",
        "Carried to the protein by the codon." if about["carry"] else f"Only the {result.modality} changes.",
        "What the model makes of a change is no measurement of it.",
    ]
    title = f"Change of the prediction, {_of(result.tissues)}, {result.unit}"
    drawn = heat_map(title, alphabet, letters, values, first=start)
    header = ["position", "change", f"difference, {_of(result.tissues)}", *(["consequence"] if about["carry"] else [])]
    sections = {
        "Every change": f'<figure class="wide">{drawn}</figure>',
        "Strongest": html_rows(header, _rows(result, 30), f"unit {result.unit}"),
    }
    return html_page(f"Mutagenesis of {result.transcript}", lines, result.labels, sections, about)
