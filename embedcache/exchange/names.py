"""Names that other tools give to a sequence or to its file, and the way back from a name to the ID."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from embedcache.sequences import Modality

__all__ = ["biotrainer_name", "escape_name", "id_path", "md5_name", "spellings", "unescape_name"]

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_PART_BYTES = 200  # file systems take names of up to 255 bytes
_ESCAPE = re.compile("%([0-9A-F]{2})")


def biotrainer_name(sequence: str) -> str:
    """What biotrainer names the data set of a sequence."""
    return hashlib.sha256(f"{sequence}_{len(sequence)}".encode()).hexdigest()


def md5_name(sequence: str) -> str:
    """What bio_embeddings names the data set of a sequence."""
    return hashlib.md5(sequence.encode(), usedforsecurity=False).hexdigest()


def spellings(sequence: str, modality: Modality) -> Iterator[str]:
    """A normalised sequence as other tools may have read and hashed it: with U, with a stop, in lower case."""
    written = [sequence]
    if modality == "protein":
        written.append(sequence + "*")
    elif "T" in sequence:
        written.append(sequence.replace("T", "U"))
    for one in written:
        yield one
        yield one.lower()


def escape_name(identifier: str) -> str:
    """An ID as the name of an HDF5 data set: a slash would make a group, and a dot means the group itself."""
    escaped = identifier.replace("%", "%25").replace("/", "%2F")
    return escaped.replace(".", "%2E") if set(escaped) == {"."} else escaped


def unescape_name(name: str) -> str:
    """The ID of an escaped name."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name)


def id_path(identifier: str, suffix: str) -> PurePosixPath:
    """An ID as a relative path, another one for every ID.

    Bytes of UTF-8 other than letters, digits, ``.``, ``_`` and ``-`` are written ``%XX``, and so is a dot in front. A
    name over 200 bytes goes on in a directory: each part before the last ends with a lone ``%``.
    """
    bytes_of_id = identifier.encode()
    units = [
        chr(byte) if byte in _PLAIN and (i or byte != 0x2E) else f"%{byte:02X}" for i, byte in enumerate(bytes_of_id)
    ]
    parts = [""]
    for unit in units:
        if len(parts[-1]) + len(unit) > _PART_BYTES:
            parts.append("")
        parts[-1] += unit
    return PurePosixPath(*(part + "%" for part in parts[:-1]), parts[-1] + suffix)
