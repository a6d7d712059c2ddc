"""Sequences: their letters, their keys, and the FASTA files they come from."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Literal, get_args

from embedcache.errors import InvalidInputError, InvalidSequenceError, UnknownNameError
from embedcache.text import control_character, read_lines

__all__ = [
    "MODALITIES",
    "Modality",
    "SequenceRecord",
    "check_modality",
    "normalise",
    "normalised",
    "read_fasta",
    "read_header",
    "sequence_key",
]

Modality = Literal["dna", "rna", "protein"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

_NUCLEOTIDES = "ACGTN"
_AMBIGUOUS_NUCLEOTIDES = "RYSWKMBDHV"  # IUPAC codes of two or three bases
_RESIDUES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TO_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)
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


def check_modality(name: str) -> Modality:
    """The modality of this name.

    Raises:
        UnknownNameError: There is none.
    """
    for modality in MODALITIES:
        if name == modality:
            return modality
    raise UnknownNameError("modality", name, MODALITIES)


def normalise(sequence: str, modality: Modality) -> str:
    """Bring a sequence to the one form under which it is embedded and looked up.

    Case is folded. In nucleotides U is read as T and an ambiguity code such as R as N. A stop ``*`` at
    the end of a protein is dropped; anywhere else it is an error.

    Raises:
        InvalidSequenceError: A letter that is not allowed, with its position, or no letter at all.
    """
    # str.upper makes letters of characters that are none: two S of an eszett, I of a dotless i
    folded = sequence.upper() if sequence.isascii() else sequence.translate(_TO_UPPER)
    if modality == "protein":
        folded, rest = folded.removesuffix("*"), _DELETE_RESIDUES
    else:
        folded, rest = folded.translate(_TO_NUCLEOTIDES), _DELETE_NUCLEOTIDES
    if wrong := folded.translate(rest):
        position = folded.index(wrong[0])
        allowed, substitute = (_RESIDUES, "X") if modality == "protein" else (_NUCLEOTIDES + "U and IUPAC codes", "N")
        mend = f"Replace it with {substitute}, or drop the record."
        if modality != "protein" and _reads_like_protein(wrong, len(folded)):
            mend = "It reads like a protein: give it as one."
        raise InvalidSequenceError(
            f"{modality} sequence has {wrong[0]!r} at position {position} (0-based). Allowed letters: {allowed}. {mend}"
        )
    if not folded:
        raise InvalidSequenceError(f"{modality} sequence is empty. Give it letters, or drop the record.")
    return folded


def normalised(record: SequenceRecord) -> SequenceRecord:
    """A record whose letters came from anywhere, with its sequence in the one form; see ``normalise``.

    Raises:
        InvalidSequenceError: Its sequence is no text, or has a letter that is not allowed; names the record.
    """
    if not isinstance(record, SequenceRecord) or not isinstance(record.sequence, str):
        raise InvalidSequenceError(
            f"{record!r} is no SequenceRecord of letters. Give SequenceRecord(id, letters, modality)."
        )
    try:
        return replace(record, sequence=normalise(record.sequence, check_modality(record.modality)))
    except InvalidSequenceError as error:
        raise InvalidSequenceError(f"record {record.id!r}: {error}") from None


def _reads_like_protein(wrong: str, length: int) -> bool:
    """Whether the letters that no nucleotide has are residues, and too many to be mistakes: a third of a protein."""
    return len(wrong) > max(2, length // 10) and not wrong.removesuffix("*").translate(_DELETE_RESIDUES)


def sequence_key(sequence: str, modality: Modality) -> bytes:
    """128-bit digest of a normalised sequence and its modality: the name of the sequence in every cache."""
    return hashlib.blake2b(f"{modality}\0{sequence}".encode(), digest_size=16).digest()


def read_fasta(path: Path | str, modality: Modality) -> Iterator[SequenceRecord]:
    """Stream the records of a FASTA file, plain or gzip-compressed, wrapped or not, any line end and case.

    The ID is the first word of the header, kept as it is. Spaces and tabs between letters are no letters.

    Raises:
        InvalidSequenceError: A letter that is not allowed or a record without letters, with ID and line.
        InvalidInputError: No record, text before the first header, a header without ID, an ID that comes
            twice, a control character in a header, a damaged file.
        UnknownNameError: No such modality.
    """
    check_modality(modality)
    path = Path(path)
    seen: set[str] = set()
    for line_number, identifier, parts in _raw_records(path):
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


def read_header(where: str, line: str) -> str:
    """ID in a header line of FASTA: its first word, as it is; ``where`` the line stands, for messages.

    Raises:
        InvalidInputError: No ID, one that cannot be printed, or a control character behind it.
    """
    # not str.split: it also splits at controls such as VT, which a line end becomes by one flipped bit
    identifier, _, description = line[1:].replace("\t", " ").strip(" ").partition(" ")
    if not identifier:
        raise InvalidInputError(f"{where}: header without ID. Write >ID.")
    if wrong := next((letter for letter in identifier if not letter.isprintable()), None):
        raise InvalidInputError(f"{where}: ID {identifier!r} has {wrong!r}. Write IDs in printable UTF-8.")
    if wrong := control_character(description.replace("\x01", "")):  # NCBI writes \x01 between merged headers
        raise InvalidInputError(f"{where}: header has {wrong!r}. Remove what is no text.")
    return identifier


def _raw_records(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line of the header, ID and the lines of letters of each record."""
    header_line, identifier, parts = 0, "", list[str]()
    for number, line in read_lines(path):
        if line.startswith(">"):
            if header_line:
                yield header_line, identifier, parts
            header_line, parts = number, []
            identifier = read_header(f"{path}, line {number}", line)
        elif text := line.strip(" \t"):
            if not header_line:
                raise InvalidInputError(
                    f"{path}, line {number}: {text[:20]!r} stands before the first header. Expected FASTA: >ID first."
                )
            parts.append(text.replace(" ", "").replace("\t", ""))
    if header_line:
        yield header_line, identifier, parts
