"""Inputs of a model with and without a variant, rebuilt from genome and annotation and held against the dataset."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcache.annotation import Transcript, read_gtf
from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError
from embedcache.genome import Genome, open_genome, window_bounds
from embedcache.sequences import Modality
from embedcache.transcripts import CodingSequence, read_coding_sequence, splice
from heads.interpret.explain.apply import (
    Variant,
    changed_window,
    check_reference,
    consequence_of,
    rna_edits,
    touches_window,
)
from heads.interpret.explain.coding import apply_edits
from heads.interpret.explain.live_model import Sequences
from heads.interpret.explain.subject import genetic_code, read_sequences

__all__ = ["Effect", "carried_variants"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A variant in a transcript."""

    variant: Variant
    row: int
    """Of the dataset."""
    consequence: str
    residue: str
    """See ``variants_coding.CodingChange``."""
    before: Sequences
    after: Sequences

    def changed(self, modalities: Sequence[Modality]) -> tuple[Modality, ...]:
        """Which of some modalities the variant changes."""
        return tuple(m for m in modalities if self.before.get(m) != self.after.get(m))


@contextmanager
def carried_variants(
    dataset: Dataset, genome: Path, gtf: Path, variants: Sequence[Variant]
) -> Iterator[tuple[int, Iterator[Effect]]]:
    """Carry each variant into each transcript of a dataset that it touches: in its DNA window, or from end to end.

    Gives the number of effects, and the effects one by one, for their sequences together may be large.

    Args:
        dataset: Made from this genome and this annotation.
        genome: FASTA, plain or gzip-compressed.
        gtf: Annotation of it.
        variants: In the order of the effects.

    Raises:
        InvalidInputError: A variant of another genome, or a dataset that was made from other files.
    """
    annotation = read_gtf(gtf)
    ids = dataset.samples["transcript_id"].tolist()
    transcripts = {row: annotation.transcripts[one] for row, one in enumerate(ids) if one in annotation.transcripts}
    if not transcripts:
        raise InvalidInputError(
            f"{gtf} has no transcript of {dataset.path}: IDs look like {next(iter(annotation.transcripts))!r} and "
            f"{ids[0] if ids else None!r}. Give the annotation that the dataset was made from."
        )
    length = _dna_length(dataset)
    with open_genome(genome) as opened:
        for variant in variants:
            check_reference(opened, variant)
        touched = list(_touched(transcripts, variants, length))
        rows = sorted({row for _, row in touched})
        sequences = read_sequences(dataset, rows)
        places = {row: _place(opened, dataset, row, transcripts[row], sequences[row]) for row in rows}
        for place in places.values():
            _check(opened, gtf, dataset, place)
        yield len(touched), (_effect(opened, variant, places[row]) for variant, row in touched)


def _dna_length(dataset: Dataset) -> int:
    """Letters of a DNA window; 0 for a dataset without."""
    if "dna" not in dataset.modalities:
        return 0
    return len(next(sequence for _, sequence in dataset.sequences("dna")))


def _touched(
    transcripts: Mapping[int, Transcript], variants: Sequence[Variant], length: int
) -> Iterator[tuple[Variant, int]]:
    """Pairs of variants and rows that have anything in common, in this order."""
    places: dict[str, list[tuple[int, int, int]]] = {}
    for row, one in transcripts.items():
        low, high = window_bounds(one.tss, one.strand, length)
        bounds = min(low, one.exons[0][0]), max(high, one.exons[-1][1])
        places.setdefault(one.contig, []).append((row, *bounds))
    tables: dict[str, NDArray[np.int64]] = {contig: np.array(found, np.int64) for contig, found in places.items()}
    for variant in variants:
        table = tables.get(variant.contig, np.zeros((0, 3), np.int64))
        change = variant.change
        for row in table[(table[:, 1] <= change.end) & (table[:, 2] >= change.start), 0].tolist():
            one = transcripts[row]
            if change.touches(one.exons[0][0], one.exons[-1][1]) or touches_window(one, variant, length):
                yield variant, row


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A transcript in the dataset, and what genome and annotation say of it."""

    row: int
    transcript: Transcript
    stored: Sequences
    code: int
    rna: str
    coding: CodingSequence


def _place(genome: Genome, dataset: Dataset, row: int, transcript: Transcript, stored: Sequences) -> _Place:
    code, rna = genetic_code(dataset, row), splice(genome, transcript)
    coding = read_coding_sequence(transcript, rna, code) if transcript.cds else CodingSequence()
    return _Place(row=row, transcript=transcript, stored=stored, code=code, rna=rna, coding=coding)


def _check(genome: Genome, gtf: Path, dataset: Dataset, place: _Place) -> None:
    """Compare a transcript with its sequences in the dataset.

    Raises:
        InvalidInputError: They are others.
    """
    one, dna = place.transcript, place.stored.get("dna")
    found: Sequences = {
        "dna": None if dna is None else genome.window(one.contig, one.tss, one.strand, len(dna)),
        "rna": place.rna,
        "protein": place.coding.protein,
    }
    for modality, sequence in place.stored.items():
        if sequence is not None and sequence != found[modality]:
            raise InvalidInputError(
                f"{genome.path} and {gtf} give another {modality} for {one.id} than {dataset.path} has: the dataset "
                "came from another genome or annotation. Give the files that it was prepared from."
            )


def _effect(genome: Genome, variant: Variant, place: _Place) -> Effect:
    coding, one, stored = place.coding, place.transcript, place.stored
    cds = None if coding.protein is None else (coding.start, coding.end)
    change = consequence_of(one, variant, rna=place.rna, cds=cds, code=place.code, protein=coding.protein)
    after = dict(stored)
    if (dna := stored.get("dna")) is not None:
        after["dna"] = changed_window(genome, one, variant, len(dna))
    if stored.get("rna") is not None:
        after["rna"] = apply_edits(place.rna, rna_edits(one, variant)) or None
    if stored.get("protein") is not None:
        after["protein"] = change.protein
    return Effect(
        variant=variant,
        row=place.row,
        consequence=change.consequence,
        residue=change.residue,
        before=stored,
        after=after,
    )
