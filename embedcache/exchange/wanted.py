"""The sequences that an import may take, found by the name of an embedding: a hash of the sequence, a key or an ID."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from embedcache.dataset import read_dataset
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError, InvalidSequenceError
from embedcache.exchange.formats import Entry
from embedcache.exchange.names import spellings
from embedcache.sequences import read_fasta, sequence_key

__all__ = ["Wanted", "read_wanted"]

_HASH = re.compile("(?:[0-9a-f]{32}){1,2}")


@dataclass(slots=True)
class Wanted:
    """Sequences by all the names they may have. Holds no letters, some hundred bytes a sequence."""

    where: str
    spec: EncoderSpec
    hash_name: Callable[[str], str] | None
    """Names of data sets, where they are made from the sequence."""
    keys: dict[str, bytes] = field(default_factory=dict)
    """By ID."""
    _rows: dict[bytes, int] = field(default_factory=dict)
    _too_long: dict[bytes, str] = field(default_factory=dict)
    _hashed: dict[bytes, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: bytes, sequence: str) -> None:
        """Take in a sequence."""
        if key in self._rows:
            return
        try:
            self._rows[key] = self.spec.n_rows(sequence)
        except InvalidSequenceError as error:
            self._rows[key], self._too_long[key] = 0, str(error)
        if self.hash_name is not None:
            for spelling in spellings(sequence, self.spec.modality):
                self._hashed[bytes.fromhex(self.hash_name(spelling))] = key

    def match(self, entry: Entry) -> bytes | None:
        """Key of the sequence that an embedding belongs to, None if it is none of these.

        Raises:
            InvalidInputError: Its ID is known, and its hash or key says that it is of another sequence.
        """
        by_id = self._by_id(entry.id)
        if entry.key is not None:
            found = entry.key if entry.key in self._rows else None
            if by_id not in (None, entry.key):
                raise self._other_sequence(entry, "its sequence key")
            return found
        if self.hash_name is not None and _HASH.fullmatch(entry.name):
            found = self._hashed.get(bytes.fromhex(entry.name))
            if found is None and entry.name == entry.id:
                return by_id  # an ID that looks like a hash
            if found is None and by_id is not None:
                raise self._other_sequence(entry, "the hash that names it")
            return found
        return by_id

    def _by_id(self, identifier: str) -> bytes | None:
        """An ID as it is, or the first word of a whole FASTA header."""
        found = self.keys.get(identifier)
        return self.keys.get((identifier.split() or [""])[0]) if found is None else found

    def _other_sequence(self, entry: Entry, told_by: str) -> InvalidInputError:
        return InvalidInputError(
            f"{entry.where}: {told_by} says that {entry.id!r} was embedded from another sequence than {self.where} "
            "has under this ID. Give the sequences that the file was made from."
        )

    def n_rows(self, key: bytes, entry: Entry) -> int:
        """Rows that the embedding of a sequence has by the claimed spec.

        Raises:
            InvalidInputError: The sequence is over the claimed limit and nothing says how it was cut.
        """
        if key in self._too_long:
            raise InvalidInputError(f"{entry.where}: {self._too_long[key]}")
        return self._rows[key]


def read_wanted(
    spec: EncoderSpec, *, fasta: Path | None, dataset: Path, hash_name: Callable[[str], str] | None = None
) -> Wanted:
    """Sequences and their IDs from a FASTA file or, without one, from a dataset; streamed.

    Raises:
        InvalidInputError: The FASTA file or the dataset cannot be read, or has no such sequences.
    """
    modality = spec.modality
    wanted = Wanted(str(fasta or dataset), spec, hash_name)
    if fasta is not None:
        for record in read_fasta(fasta, modality):
            key = sequence_key(record.sequence, modality)
            wanted.keys[record.id] = key
            wanted.add(key, record.sequence)
        return wanted
    found = read_dataset(dataset)
    if modality not in found.modalities:
        raise InvalidInputError(
            f"{dataset} has no {modality} sequences, only {', '.join(found.modalities) or 'none at all'}. "
            "Choose another --modality, or give --fasta."
        )
    _take(wanted, zip(found.samples["transcript_id"], found.keys(modality), strict=True))
    needed = set(wanted.keys.values())
    for key, sequence in found.sequences(modality):
        if key in needed:
            wanted.add(key, sequence)
    return wanted


def _take(wanted: Wanted, samples: Iterable[tuple[str, bytes | None]]) -> None:
    for identifier, key in samples:
        if key is not None:
            wanted.keys[str(identifier)] = key
