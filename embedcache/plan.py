"""What a build has to do: the distinct sequences that its stores lack, with their letters at hand.

The letters wait in a temporary file, so that memory grows by about two hundred bytes a sequence and not with
its length.
"""

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

import numpy as np
from numpy.typing import NDArray

from embedcache.batching import by_length, cut_by_tokens
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheError, InvalidInputError, InvalidSequenceError
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store.read import EmbeddingStore

__all__ = ["Plan", "make_plan"]

RECORDS_AT_A_TIME = 4096


@dataclass(slots=True)
class Plan:
    """The sequences to embed, after the crop; sequence i has ``keys[i]``, ``ids[i]`` and ``lengths[i]``."""

    _letters: IO[bytes]
    keys: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    """Of the first record that has the sequence."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each sequence."""
    distinct: int = 0
    """Distinct sequences among the records, embedded before or not."""
    repeated: int = 0
    """Records whose sequence had come before."""
    cropped: int = 0
    work: str = ""
    """Digest of all distinct sequences: what the records ask for, embedded before or not."""
    given_up: dict[bytes, str] = field(default_factory=dict)
    """Sequences not planned because no encoder pass survives them, by key, with the ID."""
    _ends: list[int] = field(default_factory=lambda: [0])

    @property
    def n_tokens(self) -> NDArray[np.int64]:
        """Tokens of each sequence, (sequences,)."""
        return np.array(self.lengths, np.int64)

    @property
    def total_tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(self.lengths)

    def add(self, key: bytes, record_id: str, sequence: str, n_tokens: int) -> None:
        """Take in one sequence."""
        self.keys.append(key)
        self.ids.append(record_id)
        self.lengths.append(n_tokens)
        with _room_for_letters():
            self._letters.write(sequence.encode("ascii"))
        self._ends.append(self._ends[-1] + len(sequence))

    def flush(self) -> None:
        """After the last sequence: what is written later would fail at a moment when nobody expects it."""
        with _room_for_letters():
            self._letters.flush()

    def sequence(self, i: int) -> str:
        """Letters of one sequence."""
        self._letters.seek(self._ends[i])
        return self._letters.read(self._ends[i + 1] - self._ends[i]).decode("ascii")

    def tasks(self, keys: Collection[bytes], tokens_a_task: int) -> list[list[bytes]]:
        """Some of the sequences cut into tasks of about as many tokens each, longest first."""
        chosen = [i for i, key in enumerate(self.keys) if key in keys]
        order = by_length(self.n_tokens[chosen], [self.keys[i] for i in chosen])
        cuts = cut_by_tokens(order, self.n_tokens[chosen], tokens_a_task)
        return [[self.keys[chosen[i]] for i in cut.tolist()] for cut in cuts]


@contextmanager
def _room_for_letters() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"the letters of the sequences to embed cannot be kept in {tempfile.tempdir or 'a temporary file'}: "
            f"{error.strerror or error}. Free space there, or set TMPDIR to another folder."
        ) from error


@contextmanager
def make_plan(
    records: Iterable[SequenceRecord],
    spec: EncoderSpec,
    stores: Sequence[EmbeddingStore | None] = (None,),
    given_up: Collection[bytes] = (),
) -> Iterator[Plan]:
    """Find out which sequences are still to embed; the plan can give their letters within the ``with`` block.

    Args:
        records: Sequences of the spec's modality; streamed, never held together.
        spec: Its crop rule applies and its token rule counts.
        stores: What is there already; a sequence that one of them lacks is planned. None lacks all.
        given_up: Keys that are not planned.

    Raises:
        InvalidSequenceError: A sequence is over the encoder's limit and no crop was chosen.
        InvalidInputError: A record is of another modality.
        CacheError: The folder of temporary files is full.
    """
    with _letters_file() as letters:
        plan, seen, stream = Plan(letters), set[bytes](), iter(records)
        while some := list(islice(stream, RECORDS_AT_A_TIME)):
            fresh = list(_unseen(some, spec, seen, plan))
            absent = np.zeros(len(fresh), bool)
            for store in stores:
                absent |= store.find([key for key, _ in fresh]) < 0 if store is not None else True
            for (key, record), is_absent in zip(fresh, absent.tolist(), strict=True):
                if is_absent and key in given_up:
                    plan.given_up[key] = record.id
                elif is_absent:
                    _add(plan, spec, key, record)
        plan.flush()
        plan.work = hashlib.blake2b(b"".join(sorted(seen)), digest_size=16).hexdigest()
        yield plan


@contextmanager
def _letters_file() -> Iterator[IO[bytes]]:
    with _room_for_letters():
        letters = tempfile.TemporaryFile()  # noqa: SIM115  to close it can fail, see below
    try:
        yield letters
    finally:
        with suppress(OSError):  # letters that found no room: told before, and of no use any more
            letters.close()


def _unseen(
    records: list[SequenceRecord], spec: EncoderSpec, seen: set[bytes], plan: Plan
) -> Iterator[tuple[bytes, SequenceRecord]]:
    for record in records:
        if record.modality != spec.modality:
            raise InvalidInputError(
                f"record {record.id!r} is {record.modality}, encoder {spec.name} takes {spec.modality}. "
                "Choose an encoder of that modality."
            )
        key = sequence_key(record.sequence, record.modality)
        if key in seen:
            plan.repeated += 1
            continue
        seen.add(key)
        plan.distinct += 1
        yield key, record


def _add(plan: Plan, spec: EncoderSpec, key: bytes, record: SequenceRecord) -> None:
    try:
        kept = spec.cropped(record.sequence)
    except InvalidSequenceError as error:
        raise InvalidSequenceError(f"{record.modality} sequence of {record.id!r}: {error}") from None
    plan.cropped += len(kept) < len(record.sequence)
    plan.add(key, record.id, kept, spec.n_tokens(kept))
