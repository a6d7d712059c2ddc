"""A short test of an encoder before it may write: what a store promises of its rows is tried on a few sequences.

It asks for as many rows as there are tokens, of the width of the spec, in float32, finite; for rows that do not
depend on the other sequences of a call, come out again bit for bit, differ between tokens and between sequences, and
stand where their token stands. Four or five short calls, after which a build may trust the encoder, and what an
adapter, a plug-in, a library or a device does wrong is told in one line, with nothing written.

``packing.check_packing`` compares the numbers of a pack with the plain model when it is loaded; here it is what a
build will be handed, by any encoder.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcache.choices import ComputeDtype
from embedcache.encoders.failures import FAILURES, describe, raise_if_lost
from embedcache.encoders.layers import start_layers
from embedcache.encoders.spec import Encoder, EncoderSpec, LayeredEncoder
from embedcache.encoders.tokens import token_spans
from embedcache.errors import EmbedCacheError, InvalidSequenceError
from embedcache.sequences import Modality

__all__ = ["Case", "check_encoder", "make_cases"]

TOLERANCE: dict[ComputeDtype, float] = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}
"""Largest difference between a call of many sequences and of one, relative to how far rows lie from their mean. What
sees its neighbours, or padding, is off by about 1; rounding in other kernels by a tenth of these."""
LEAST_CHANGE = 1e-4
"""Relative difference under which rows of other letters count as the same."""
LONG = 16
"""Letters of a token from which a few tokens are a long window: those are bins."""
LETTERS: dict[Modality, str] = {"protein": "ACDEFGHIKLMNPQRSTVWY", "rna": "ACGT", "dna": "ACGT"}
UNKNOWN: dict[Modality, str] = {"protein": "X", "rna": "N", "dna": "N"}
Rows = NDArray[np.float32]
ByLayer = dict[int, list[Rows]]


class Case(NamedTuple):
    """One sequence of the test."""

    what: str
    sequence: str
    changed: int = -1
    """Token in which it differs from the ordinary sequence, if it does in one."""


def check_encoder(encoder: Encoder, layers: Sequence[int] | None = None) -> None:
    """Try an encoder on a few short sequences.

    A sequence that the encoder refuses by a rule of its own, an ``InvalidSequenceError``, is left out, for the build
    would leave it out too; where it refuses all short ones, the longest allowed are tried.

    Args:
        encoder: Any, also one of ``encode`` alone.
        layers: Those that a build will ask for; by default the one of its spec.

    Raises:
        EmbedCacheError: It is not fit to fill a store; says in what.
    """
    test = _Test(encoder, tuple(layers or [encoder.spec.layer]))
    cases = make_cases(encoder.spec)
    try:
        found = test.run(cases, begin=True)
    except InvalidSequenceError:
        cases = test.accepted(cases)
        if not cases and encoder.spec.max_tokens:
            cases = test.accepted(make_cases(encoder.spec, longest=True))
        if not cases:
            raise test.error(
                "it refuses every sequence of the test", "Say with max_tokens on its card what it takes."
            ) from None
        found = test.run(cases, begin=True)
    for rows in found.values():
        test.check_differences(cases, rows)
        test.check_places(cases, rows)
    test.check_alone(cases, found)


def make_cases(spec: EncoderSpec, *, longest: bool = False) -> list[Case]:
    """Sequences of the test, short, within the limit of the spec: the first is an ordinary one.

    Args:
        spec: Of the encoder.
        longest: Ordinary sequences of just as many tokens as the spec allows, for an encoder of fixed windows.
    """
    unit, draw = _letters_a_token(spec.tokens), random.Random(0)
    limit = spec.max_tokens if spec.crop != "windows" else 0

    def ordinary(n_tokens: int) -> str:
        size = unit * (min(n_tokens, limit) if limit else n_tokens)
        return "".join(draw.choices(LETTERS[spec.modality], k=size))

    first = ordinary(spec.max_tokens if longest else 4 if unit > LONG else 12)
    spans = token_spans(first, spec.tokens)
    places = dict.fromkeys([len(spans) // 3, len(spans) - 1 - len(spans) // 3])
    cases = [
        Case("an ordinary sequence", first),
        *(Case("a changed token", _changed(first, spans[place], spec.modality), place) for place in places),
    ]
    if longest:
        return cases
    unknown = UNKNOWN[spec.modality]
    cases += [
        Case("one letter", ordinary(1)[:1]),
        Case(f"a run of {unknown}", unknown * (unit + 3)),
        Case(
            f"{unknown} among others, the end cut short",
            _with_unknown(ordinary(4)[: -((unit + 1) // 2)], spec.modality),
        ),
        Case("a longer sequence", ordinary(_longer_tokens(spec, unit))),
    ]
    return [case for case in cases if not limit or len(token_spans(case.sequence, spec.tokens)) <= limit]


def _longer_tokens(spec: EncoderSpec, unit: int) -> int:
    """Tokens of the longest case: more than one window if they are short, else as many as cost little."""
    if spec.crop == "windows" and spec.max_tokens * unit <= 1024:
        return 2 * spec.max_tokens + 1
    return 6 if unit > LONG else 48


@dataclass(frozen=True, slots=True)
class _Test:
    encoder: Encoder
    layers: tuple[int, ...]

    @property
    def spec(self) -> EncoderSpec:
        return self.encoder.spec

    def error(self, found: str, advice: str) -> EmbedCacheError:
        text = f"Encoder {self.spec.name} fails its self-test: {found.removesuffix('.')}. Nothing was written. {advice}"
        return EmbedCacheError(text.rstrip())

    def run(self, cases: Sequence[Case], *, begin: bool = False) -> ByLayer:
        """Rows of one call by layer, each array as it must be; ``begin`` as a build does where it can."""
        sequences = [case.sequence for case in cases]
        try:
            if isinstance(self.encoder, LayeredEncoder) and (begin or self.layers != (self.spec.layer,)):
                found = (
                    start_layers(self.encoder, sequences, self.layers).result()
                    if begin
                    else self.encoder.encode_layers(sequences, self.layers)
                )
            else:
                found = {self.spec.layer: self.encoder.encode(sequences)}
        except InvalidSequenceError:
            raise
        except FAILURES as error:
            raise_if_lost(error)
            # errors of ours say themselves what to do
            advice = "" if isinstance(error, EmbedCacheError) else "Mend the encoder, or its settings."
            raise self.error(describe(error), advice) from error
        for rows in found.values():
            self._check_form(cases, rows)
        return found

    def accepted(self, cases: Sequence[Case]) -> list[Case]:
        """Those that the encoder does not refuse; none if it refuses the ordinary one."""
        found = []
        for case in cases:
            try:
                self.run([case])
            except InvalidSequenceError:
                continue
            found.append(case)
        return found if found and found[0] == cases[0] else []

    def _check_form(self, cases: Sequence[Case], rows: Sequence[Rows]) -> None:
        if len(rows) != len(cases):
            raise self.error(f"{len(rows)} arrays for {len(cases)} sequences", "Give one array a sequence.")
        for case, one in zip(cases, rows, strict=True):
            if not isinstance(one, np.ndarray) or one.dtype != np.float32:
                kind = f"an array of {one.dtype}" if isinstance(one, np.ndarray) else f"a {type(one).__name__}"
                raise self.error(f"{case.what} became {kind}", "Give a numpy array of float32.")
            wanted = (self.spec.n_tokens(case.sequence), self.spec.width)
            if one.shape != wanted:
                raise self.error(
                    f"{case.what} of {wanted[0]} tokens became rows {one.shape}, expected {wanted}",
                    "Drop the rows of special tokens and of padding, cut nothing, give the width of the card.",
                )
            if not np.isfinite(one).all():
                count = int((~np.isfinite(one).all(axis=1)).sum())
                raise self.error(
                    f"{case.what} has numbers that are not finite in {count} of {len(one)} rows",
                    f"Compute in float32 in place of {self.spec.compute_dtype}, or check the weights."
                    if self.spec.compute_dtype != "float32"
                    else "Check the weights.",
                )

    def check_differences(self, cases: Sequence[Case], rows: Sequence[Rows]) -> None:
        """Other letters must give other rows: between the tokens of a sequence, and between two sequences."""
        first = rows[0]
        if len(first) > 1 and _relative(first, first[:1]) < LEAST_CHANGE:
            raise self.error(
                f"all {len(first)} tokens of {cases[0].what} have the same row", "Give a row for each token."
            )
        for case, one in zip(cases, rows, strict=True):
            if case.changed >= 0 and one.shape == first.shape and _relative(one, first) < LEAST_CHANGE:
                raise self.error(
                    f"{cases[0].what} and the same one with token {case.changed} changed have the same rows",
                    "Check that the letters reach the network, and its weights.",
                )

    def check_places(self, cases: Sequence[Case], rows: Sequence[Rows]) -> None:
        """The row of a changed token changes; where its neighbour does so instead, all rows are one place off.

        That is what a special token kept in front with the last row cut off looks like. Both changed tokens must say
        so, for in a trained network a neighbour may now and then change more. So do rows in reverse order.
        """
        shifts: list[int] = []
        mirrored: list[bool] = []
        before, after = self.spec.kept_special
        rows = [one[before : len(one) - after] for one in rows]
        for case, one in zip(cases, rows, strict=True):
            if case.changed >= 0 and one.shape == rows[0].shape:  # else the letters have moved a frame
                change = np.linalg.norm(one - rows[0], axis=1)
                most = int(change.argmax())
                shifts.append(most - case.changed if change[most] > 2 * change[case.changed] else 0)
                mirrored.append(most == len(one) - 1 - case.changed)
        if len(shifts) == 2 and shifts[0] == shifts[1] != 0:
            place = "the row" if abs(shifts[0]) == 1 else f"{abs(shifts[0])} rows"
            side = "behind" if shifts[0] > 0 else "before"
            raise self.error(
                f"where a token changes, it is {place} {side} it that does", "Drop the rows of special tokens only."
            )
        if len(shifts) == 2 and all(shifts) and all(mirrored):
            raise self.error("rows come in reverse order", "Give the row of the first token first.")

    def check_alone(self, cases: Sequence[Case], together: ByLayer) -> None:
        """The first and the last sequence again, each in a call of its own, and one of them twice."""
        tolerance = 0.0 if self.spec.attention == "single" else TOLERANCE[self.spec.compute_dtype]
        for i in dict.fromkeys([0, len(cases) - 1]):
            alone = self.run([cases[i]])
            error = max(_distance(rows[i], alone[layer][0], rows) for layer, rows in together.items())
            if error > tolerance or i == len(cases) - 1:
                # first of all: numbers that change by themselves say nothing about the other sequences
                self._check_again(cases[i], alone)
            if error > tolerance:
                raise self.error(
                    f"{cases[i].what} is off by {error:.2g} of the spread of rows where other sequences are in the "
                    f"call, over {tolerance:g}",
                    "Keep sequences of a batch, and padding, out of each other's sight.",
                )

    def _check_again(self, case: Case, alone: ByLayer) -> None:
        again = self.run([case])
        if not all(np.array_equal(alone[layer][0], again[layer][0]) for layer in again):
            raise self.error(
                f"{case.what} gives other numbers the second time", "Switch off dropout and other randomness."
            )


def _distance(together: Rows, alone: Rows, rows: Sequence[Rows]) -> float:
    """Between rows of a sequence from two calls, relative to how far they lie from the mean of all; 0 for the same."""
    if np.array_equal(together, alone):
        return 0.0
    spread = np.linalg.norm(alone - np.concatenate(rows).mean(axis=0))
    error = float(np.linalg.norm(together - alone) / spread) if spread else np.inf
    return error if np.isfinite(error) else np.inf


def _letters_a_token(rule: str) -> int:
    """Of an ordinary token, by the rule itself: 6 for 6-mers, 128 for bins of 128."""
    spans = token_spans("A" * (1 << 16), rule)
    return int((spans[:, 1] - spans[:, 0]).max())


def _changed(sequence: str, span: NDArray[np.int64], modality: Modality) -> str:
    """The sequence with every letter of one token replaced."""
    letters, (start, stop) = LETTERS[modality], span.tolist()
    part = (letters[(letters.index(one) + 1) % len(letters)] for one in sequence[start:stop])
    return sequence[:start] + "".join(part) + sequence[stop:]


def _with_unknown(sequence: str, modality: Modality) -> str:
    """The middle letter unknown, and in a protein also those few that are rare or stand for two residues."""
    middle = len(sequence) // 2
    rare = "BJOUXZ" if modality == "protein" else ""
    return sequence[:middle] + UNKNOWN[modality] + sequence[middle + 1 :] + rare


def _relative(one: Rows, other: Rows) -> float:
    scale = np.linalg.norm(one)
    return float(np.linalg.norm(one - other) / scale) if scale else 0.0
