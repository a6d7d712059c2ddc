"""What variants of the genome do to predictions: carried through splicing to RNA and protein.

Shapes: E effects (a variant in a transcript), K tissues.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from embedcache.dataset import Dataset
from embedcache.dataset_write import describe_input
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.progress import Progress
from embedcache.sequences import Modality
from heads.interpret.explain.apply import Variant
from heads.interpret.explain.live_model import LiveModel, Sequences, open_live
from heads.interpret.explain.output import Outputs
from heads.interpret.explain.page import html_page, html_rows
from heads.interpret.explain.subject import all_labels, asked, open_dataset, story
from heads.interpret.explain.variant_file import VariantList, parse_variant, read_variants
from heads.interpret.explain.variant_inputs import Effect, carried_variants

__all__ = ["Found", "VariantEffects", "predict_distinct", "variant_effects"]

Array = NDArray[np.float64]

_CHUNK = 16
"""Effects that are predicted together."""


class Found(NamedTuple):
    """An effect without its sequences."""

    variant: Variant
    row: int
    consequence: str
    residue: str
    changed: tuple[Modality, ...]
    """Inputs that the model reads and the variant changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantEffects:
    """What ``variant_effects`` found and wrote."""

    outputs: Outputs
    dataset: Dataset
    effects: Sequence[Found]
    tissues: tuple[str, ...]
    before: Array
    """Predictions without the variant, (E, K)."""
    after: Array
    """And with it."""
    untouched: int
    """Variants that touch no transcript of the dataset."""
    left_out: Mapping[str, int]
    unit: str
    labels: tuple[str, ...]

    @property
    def difference(self) -> Array:
        """With the variant less without, (E, K)."""
        return self.after - self.before

    @property
    def strongest(self) -> list[int]:
        """Effects by the size of their mean difference over tissues, largest first."""
        order: list[int] = np.argsort(-np.abs(self.difference.mean(axis=1)), kind="stable").tolist()
        return order

    @property
    def of(self) -> str:
        """Which tissues shown numbers are of."""
        return self.tissues[0] if len(self.tissues) == 1 else f"mean over {len(self.tissues)} tissues"

    def notes(self) -> list[str]:
        """Counts of consequences, and what has no effect here."""
        counts = Counter(effect.consequence for effect in self.effects)
        lines = [", ".join(f"{n:,} {name}" for name, n in counts.most_common())]
        if self.untouched:
            lines.append(f"{self.untouched:,} without a transcript of {self.dataset.path} that they touch")
        return lines + [f"{n:,} left out: {reason}" for reason, n in self.left_out.items()]

    def __str__(self) -> str:
        label = f" [{'; '.join(self.labels)}]" if self.labels else ""
        n = len({effect.variant for effect in self.effects})
        lines = [
            f"{self.outputs.parquet} and {self.outputs.html.name}: {n:,} variants in {len(self.effects):,} places, "
            f"unit {self.unit}{label}",
            *self.notes(),
            f"strongest, {self.of}:",
        ]
        return "\n".join([*lines, *("  " + "  ".join(cell for cell in row if cell) for row in _rows(self, 10))])


def variant_effects(
    run: Path | str,
    genome: Path,
    gtf: Path,
    output: Path | str,
    *,
    variants: Path | None = None,
    variant: Sequence[str] = (),
    tissues: Sequence[str] = (),
    dataset: Path | str | None = None,
    device: str = "auto",
    weights: Mapping[Modality, Path] | None = None,
) -> VariantEffects:
    """Predict every transcript that a variant touches with and without it; write a Parquet file and a page.

    Splicing is taken as unchanged. See ``apply`` and ``coding`` for the rules.

    Args:
        run: Directory of a finished run.
        genome: FASTA that the dataset was prepared from.
        gtf: Annotation that it was prepared from.
        output: Directory of the two files.
        variants: VCF or table of variants.
        variant: Or variants as ``chrom:pos:REF:ALT``.
        tissues: Those to keep; all without it.
        dataset: Any dataset from these files; that of the run without it.
        device: Where encoders and model run.
        weights: Directories of published weights.

    Raises:
        EmbedCacheError: A variant that is malformed or of another genome, a dataset from other files, none that
            touches a transcript, an output of others, or what ``open_live`` raises.
    """
    if bool(variants) == bool(variant):
        raise InvalidSettingError("Give variants either in a file (--variants) or one by one (--variant).")
    wanted = read_variants(variants) if variants else VariantList([parse_variant(one) for one in variant], Counter())
    live = open_live(run, device, weights)
    opened, columns = open_dataset(live, dataset), live.columns(tissues)
    inputs = [describe_input(Path(path)) for path in (genome, gtf, variants) if path]
    question = asked(run, dataset, tissues, variant=list(variant), inputs=inputs)
    outputs = Outputs(Path(output), "variants", question=question)
    effects, predicted = _carry(live, opened, genome, gtf, wanted.variants)
    result = VariantEffects(
        outputs=outputs,
        dataset=opened,
        effects=effects,
        tissues=tuple(live.tissues[k] for k in columns),
        before=predicted[:, 0, columns],
        after=predicted[:, 1, columns],
        untouched=len(wanted.variants) - len({effect.variant for effect in effects}),
        left_out=wanted.left_out,
        unit=live.unit,
        labels=all_labels(live, opened),
    )
    about = story("variants", live, opened, inputs=inputs, variant=list(variant), notes=result.notes())
    outputs.write(_table(result), about, _page(result, about))
    return result


def predict_distinct(live: LiveModel, samples: Sequence[Sequences]) -> Array:
    """Predictions (N, K) of samples; equal ones are predicted once, so their difference is exactly 0."""
    keys = [tuple(sample.get(m) for m in live.modalities) for sample in samples]
    distinct = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    inputs: list[Sequences] = [dict(zip(live.modalities, key, strict=True)) for key in distinct]
    predicted: Array = live.predict(inputs)[[distinct[key] for key in keys]]
    return predicted


def _carry(
    live: LiveModel, dataset: Dataset, genome: Path, gtf: Path, variants: Sequence[Variant]
) -> tuple[list[Found], Array]:
    """Carry variants into the sequences of transcripts, and predict these."""
    with carried_variants(dataset, genome, gtf, variants) as (count, carried):
        if not count:
            raise InvalidInputError(
                f"None of {len(variants)} variants touches a transcript of {dataset.path}, by its exons, its introns "
                "or its DNA window. Check the names of contigs and the assembly."
            )
        return _predict(live, count, carried)


def _predict(live: LiveModel, count: int, effects: Iterator[Effect]) -> tuple[list[Found], Array]:
    """Effects without their sequences, and predictions without and with each variant, (E, 2, K)."""
    found: list[Found] = []
    parts: list[Array] = []
    began = time.monotonic()
    with Progress(count, " effects", "variants") as progress:
        while part := list(islice(effects, _CHUNK)):
            both = predict_distinct(live, [one for effect in part for one in (effect.before, effect.after)])
            parts.append(both.reshape(len(part), 2, -1))
            for one in part:
                found.append(Found(one.variant, one.row, one.consequence, one.residue, one.changed(live.modalities)))
            if len(parts) == 1:
                seconds = (time.monotonic() - began) * count / len(part)
                tqdm.write(f"{count:,} variants in transcripts: about {seconds:,.0f} s", file=sys.stderr)
            progress.update(len(part))
    return found, np.concatenate(parts)


def _table(result: VariantEffects) -> pa.Table:
    """One row an effect and tissue."""
    effects, k = result.effects, len(result.tissues)
    samples = result.dataset.samples.iloc[[effect.row for effect in effects]]
    words = {
        "chrom": [effect.variant.contig for effect in effects],
        "ref": [effect.variant.ref for effect in effects],
        "alt": [effect.variant.alt for effect in effects],
        "id": [effect.variant.name or None for effect in effects],
        "transcript_id": samples["transcript_id"].tolist(),
        "gene_id": samples["gene_id"].tolist(),
        "consequence": [effect.consequence for effect in effects],
        "residue": [effect.residue or None for effect in effects],
        "changed": [",".join(effect.changed) for effect in effects],
    }
    rows = pa.array(np.repeat(np.arange(len(effects)), k))
    each = {name: pa.array(cells, pa.string()).take(rows) for name, cells in words.items()}
    position = pa.array([effect.variant.position for effect in effects], pa.int64()).take(rows)
    columns: dict[str, Any] = {
        "chrom": each.pop("chrom"),
        "pos": position,
        **each,
        "tissue": pa.array(list(result.tissues) * len(effects), pa.string()),
        "predicted_ref": pa.array(result.before.ravel()),
        "predicted_alt": pa.array(result.after.ravel()),
        "difference": pa.array(result.difference.ravel()),
    }
    return pa.table(list(columns.values()), names=list(columns))


def _rows(result: VariantEffects, most: int) -> list[list[str]]:
    rows, ids = [], result.dataset.samples["transcript_id"].tolist()
    for i in result.strongest[:most]:
        one, mean = result.effects[i], float(result.difference[i].mean())
        what = f"{one.consequence} {one.residue}".strip()
        changed = "+".join(one.changed) or "nothing that is read"
        rows.append([_short(str(one.variant)), ids[one.row], f"{mean:+.3g}", what, changed])
    return rows


def _short(text: str) -> str:
    return text if len(text) <= 44 else f"{text[:30]}...{text[-10:]}"


def _page(result: VariantEffects, about: Mapping[str, Any]) -> str:
    lines = [
        f"Prediction with a variant less the prediction without, {result.of}, {result.unit}. Splicing is taken as "
        "unchanged: exons keep their borders, and a variant at a splice site is only called so.",
        "A lost start codon leaves no protein; a lost stop is read on to the next one, or to the end of the RNA.",
        "An insertion or a deletion moves all letters on one side of it: encoders of k-mers or bins then read other "
        "tokens there, which can change a prediction by itself.",
        "What the model makes of a change is no measurement of it.",
        *result.notes(),
    ]
    header = ["variant", "transcript", "difference", "consequence", "changed inputs"]
    sections = {"Strongest": html_rows(header, _rows(result, 200), f"{result.of}, unit {result.unit}")}
    return html_page("Variants", lines, result.labels, sections, about)
