"""Whether the embeddings of an input are what it is claimed to hold; nothing is written here."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheError, CacheMismatchError, InvalidInputError
from embedcache.exchange.claim import KEPT_AS
from embedcache.exchange.formats import EmbeddingFile, Entry
from embedcache.exchange.wanted import Wanted
from embedcache.progress import Progress
from embedcache.store import EmbeddingStore
from embedcache.store.layout import Array, crc32c
from embedcache.store.numbers import encode_rows

__all__ = ["Checked", "check_entries", "take"]

SAME_WITHIN = 2e-3
"""Embeddings of one sequence from two batches of another tool may differ by this share of their largest number."""

Read = Callable[[], NDArray[np.float32]]


@dataclass(slots=True)
class Checked:
    """What an input holds of the sequences that are wanted."""

    new: dict[bytes, int] = field(default_factory=dict)
    """Sequences that the store lacks: checksum of the rows that count, the first ones."""
    present: int = 0
    repeated: int = 0
    unknown: int = 0
    rows: int = 0
    """Of the new ones."""
    longest: int = 0

    @property
    def distinct(self) -> int:
        """Sequences with an embedding, new or not."""
        return len(self.new) + self.present


def check_entries(file: EmbeddingFile, wanted: Wanted, store: EmbeddingStore | None, *, any_dtype: bool) -> Checked:
    """Read the whole input once.

    Args:
        file: The input.
        wanted: The sequences it may hold.
        store: What was imported before, if there is a store.
        any_dtype: Numbers may come in several formats, because the user named the one to keep.

    Raises:
        InvalidInputError: Rows, width or numbers are not what they should be, one sequence has two embeddings, or
            no embedding belongs to a sequence.
        CacheMismatchError: The store has another embedding of a sequence.
    """
    check, dtype, last = _Check(wanted, store), "", ""
    with Progress(file.count, "embedding", "check") as progress:
        for entry in file.entries():
            dtype, last = dtype or entry.dtype, f"{entry.where} of ID {entry.id!r}"
            if entry.dtype != dtype and not any_dtype:
                raise InvalidInputError(
                    f"{entry.where} holds {entry.dtype}, others {dtype}. Name the format to keep: --store-dtype."
                )
            check.add(entry)
            progress.update(1)
    if not check.found.distinct:
        raise InvalidInputError(
            f"None of {check.found.unknown:,} embeddings belongs to a sequence of {wanted.where}, neither does {last}. "
            "Give the FASTA file or the dataset that they were made from."
        )
    return check.found


@dataclass(slots=True)
class _Check:
    """What was found so far."""

    wanted: Wanted
    store: EmbeddingStore | None
    found: Checked = field(default_factory=Checked)
    seen: dict[bytes, tuple[int, Read | None]] = field(default_factory=dict)
    """Checksum of the first embedding of each sequence, and how to read it again."""

    def add(self, entry: Entry) -> None:
        key = self.wanted.match(entry)
        if key is None:
            self.found.unknown += 1
            return
        rows = _read(entry, key, self.wanted)
        if key in self.seen:
            self._compare(entry, key, rows)
            self.found.repeated += 1
            return
        self.seen[key] = checksum, _ = crc32c(rows), entry.read if entry.again else None
        stored = _encode(rows, entry, self.wanted.spec)
        if self.store is not None and key in self.store:
            if not _same(rows, np.asarray(self.store[key], np.float32)):
                raise CacheMismatchError(
                    f"{entry.where}: {self.store.root} has another embedding of {entry.id!r}. If these are of another "
                    "kind, tell them apart with --source WORDS."
                )
            self.found.present += 1
            return
        self.found.new[key] = checksum
        self.found.rows += len(stored)
        self.found.longest = max(self.found.longest, len(stored))

    def _compare(self, entry: Entry, key: bytes, rows: NDArray[np.float32]) -> None:
        before, read_again = self.seen[key]
        if crc32c(rows) != before and not (read_again is not None and _same(rows, read_again())):
            raise InvalidInputError(
                f"{entry.where}: the sequence of {entry.id!r} has another embedding elsewhere in the input. "
                "Keep the right one."
            )


def _same(rows: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Equal up to what other batches and float16 change."""
    others = others.reshape(-1, others.shape[-1])
    if others.shape != rows.shape:
        return False
    return bool(np.abs(rows - others).max(initial=0) <= SAME_WITHIN * np.abs(rows).max(initial=0))


def take(entry: Entry, key: bytes, wanted: Wanted, checksum: int) -> Array:
    """Rows as the store keeps them, of an embedding that was checked before.

    Raises:
        InvalidInputError: It has changed since.
    """
    rows = _read(entry, key, wanted)
    if crc32c(rows) != checksum:
        raise InvalidInputError(f"{entry.where} changed while it was read. Run the import again.")
    return _encode(rows, entry, wanted.spec)


def _read(entry: Entry, key: bytes, wanted: Wanted) -> NDArray[np.float32]:
    """Numbers of an embedding, (rows, width), after its shape was found to be right."""
    spec = wanted.spec
    n_rows = wanted.n_rows(key, entry)
    shape = (spec.width,) if spec.pooling == "mean" else (n_rows, spec.width)
    if entry.shape != shape:
        raise InvalidInputError(f"{entry.where} has shape {entry.shape}, expected {shape}. {_reason(entry, shape)}")
    if entry.dtype not in KEPT_AS:
        raise InvalidInputError(f"{entry.where} holds {entry.dtype}, expected floating-point numbers.")
    rows = np.ascontiguousarray(entry.read()).reshape(-1, spec.width)
    if not np.isfinite(rows).all():
        raise InvalidInputError(f"{entry.where} has numbers that are not finite. Compute it again, or leave it out.")
    return rows


def _reason(entry: Entry, expected: tuple[int, ...]) -> str:
    """What may lie behind a shape, and what to do."""
    if len(entry.shape) != len(expected):
        return "Rows and means do not mix: import them one after the other, means with --pooled."
    if entry.shape[-1] != expected[-1]:
        return "All embeddings of an encoder have one width. Give those of one encoder."
    found, wanted = entry.shape[0], expected[0]
    if found in (wanted + 1, wanted + 2):
        return (
            f"{found - wanted} more look like special tokens (start, end), which a store never holds. Write the file "
            "again without them."
        )
    if found < wanted:
        return (
            "If the tool cuts long input in silence, as fair-esm does at 1,022 residues, say so: --max-tokens 1022 "
            "--crop keep-5-prime."
        )
    return "Each row is a token of the sequence. Give the sequences that the file was made from."


def _encode(rows: NDArray[np.float32], entry: Entry, spec: EncoderSpec) -> Array:
    try:
        return encode_rows(rows, spec.store_dtype, encoder=spec.name)
    except CacheError as error:
        raise InvalidInputError(f"{entry.where}: {error}") from error
