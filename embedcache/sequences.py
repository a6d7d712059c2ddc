"""Sequences: their letters, their keys, and the FASTA files they come from."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, get_args

from embedcache.errors import InvalidInputError, InvalidSequenceError

__all__ = [
    "MODALITIES",
    "Modality",
    "SequenceRecord",
    "normalise",
    "open_text",
    "read_fasta",
    "read_lines",
    "sequence_key",
]

Modality = Literal["dna", "rna", "protein"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

_NUCLEOTIDES = "ACGTN"
_AMBIGUOUS_NUCLEOTIDES = "RYSWKMBDHV"  # IUPAC codes of two or three bases
_RESIDUES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TO_NUCLEOTIDES = str.maketrans("U" + _AMBIGUOUS_NUCLEOTIDES, "T" + "N" * len(_AMBIGUOUS_NUCLEOTIDES))
_KEEP_AMBIGUOUS = str.maketrans("", "", "ACGTUNacgtun")
_DELETE_NUCLEOTIDES = str.maketrans("", "", _NUCLEOTIDES)
_DELETE_RESIDUES = str.maketrans("", "", _RESIDUES)


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """One sequence under the ID its file gives it.

    ``sequence`` is normalised: upper case; A C G T N for ``dna`` and ``rna`` (U is written T), the
    26 letters of the IUPAC amino-acid alphabet for ``protein``.
    """

    id: str
    sequence: str
    modality: Modality
    ambiguous: int = 0
    """Letters such as R, for several bases, that were read as N."""


def normalise(sequence: str, modality: Modality) -> str:
    """Bring a sequence to the one form under which it is embedded and looked up.

    Case is folded. In nucleotides U is read as T and an ambiguity code such as R as N. A stop ``*`` at
    the end of a protein is dropped; anywhere else it is an error.

    Raises:
        InvalidSequenceError: A letter that is not allowed, with its position, or no letter at all.
    """
    folded = sequence.upper()
    if modality == "protein":
        folded, rest = folded.removesuffix("*"), _DELETE_RESIDUES
    else:
        folded, rest = folded.translate(_TO_NUCLEOTIDES), _DELETE_NUCLEOTIDES
    if wrong := folded.translate(rest):
        position = folded.index(wrong[0])
        allowed, substitute = (_RESIDUES, "X") if modality == "protein" else (_NUCLEOTIDES + "U and IUPAC codes", "N")
        raise InvalidSequenceError(
            f"{modality} sequence has {wrong[0]!r} at position {position} (0-based). "
            f"Allowed letters: {allowed}. Replace it with {substitute}, or drop the record."
        )
    if not folded:
        raise InvalidSequenceError(f"{modality} sequence is empty. Give it letters, or drop the record.")
    return folded


def sequence_key(sequence: str, modality: Modality) -> bytes:
    """128-bit digest of a normalised sequence and its modality: the name of the sequence in every cache."""
    return hashlib.blake2b(f"{modality}\0{sequence}".encode(), digest_size=16).digest()


_FOREIGN = {  # first bytes of files that are often taken for text
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive",
}


def open_text(path: Path) -> IO[str]:
    """Open a UTF-8 text file, gzip-compressed or not; its first bytes decide, not the name."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{path} does not exist. Give the path of an existing file.") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}. Give a readable file.") from error
    for magic, form in _FOREIGN.items():
        if start.startswith(magic):
            raise InvalidInputError(f"{path} is {form}. Give plain UTF-8 text, or compress it with gzip.")
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape")
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without its end; damaged compression is an error with a place.

    Raises:
        InvalidInputError: The file does not exist, cannot be read, or its gzip stream is cut or damaged.
    """
    number = 0
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidInputError(
                f"{path} is cut or damaged after line {number}: {error}. Copy or download it again."
            ) from error


def read_fasta(path: Path | str, modality: Modality) -> Iterator[SequenceRecord]:
    """Stream the records of a FASTA file, plain or gzip-compressed, wrapped or not, any line end and case.

    The ID is the first word of the header, kept as it is.

    Raises:
        InvalidSequenceError: A letter that is not allowed or a record without letters, with ID and line.
        InvalidInputError: No record, text before the first header, a header without ID, an ID that comes
            twice, a damaged file.
    """
    path = Path(path)
    seen: set[str] = set()
    for line_number, identifier, parts in _raw_records(path):
        if not identifier:
            raise InvalidInputError(f"{path}, line {line_number}: header without ID. Write >ID.")
        if not identifier.isprintable():
            wrong = next(letter for letter in identifier if not letter.isprintable())
            raise InvalidInputError(
                f"{path}, line {line_number}: ID {identifier!r} has {wrong!r}. Write IDs in printable UTF-8."
            )
        if identifier in seen:
            raise InvalidInputError(
                f"{path}, line {line_number}: ID {identifier!r} comes a second time. Give each record its own ID."
            )
        seen.add(identifier)
        try:
            sequence = normalise("".join(parts), modality)
        except InvalidSequenceError as error:
            raise InvalidSequenceError(f"{path}, record {identifier!r} at line {line_number}: {error}") from None
        ambiguous = 0 if modality == "protein" else sum(len(part.translate(_KEEP_AMBIGUOUS)) for part in parts)
        yield SequenceRecord(identifier, sequence, modality, ambiguous)
    if not seen:
        raise InvalidInputError(f"{path} has no record. Expected FASTA: a line >ID, then letters.")


def _raw_records(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line of the header, ID and the lines of letters of each record."""
    header_line, identifier, parts = 0, "", list[str]()
    for number, line in read_lines(path):
        if line.startswith(">"):
            if header_line:
                yield header_line, identifier, parts
            header_line, parts = number, []
            identifier = (line[1:].split() or [""])[0]
        elif text := line.strip():
            if not header_line:
                raise InvalidInputError(
                    f"{path}, line {number}: {text[:20]!r} stands before the first header. Expected FASTA: >ID first."
                )
            parts.append("".join(text.split()))
    if header_line:
        yield header_line, identifier, parts
