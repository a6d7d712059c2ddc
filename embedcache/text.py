"""Text files as people have them: plain or gzip-compressed, any line end, with or without a byte order mark.

What no good text file has is refused with its place: a cut or damaged stream, control characters, an encoding other
than UTF-8. A file must be one that can be read again from its start, for its digest is taken before its content.
"""

import gzip
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from embedcache.errors import InvalidInputError

__all__ = ["DAMAGED_GZIP", "control_character", "open_text", "read_lines", "read_start"]

DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
"""What Python raises for a gzip stream that is cut or damaged."""

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_FOREIGN = {  # first bytes of files that are often taken for text
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive",
}


def control_character(text: str) -> str | None:
    """The first character of a line that no text has, such as NUL; tabs are text."""
    if text.isascii() and text.replace("\t", " ").isprintable():  # six times the speed of the search
        return None
    found = _CONTROL.search(text)
    return None if found is None else found[0]


def read_start(path: Path) -> bytes:
    """The first bytes of an input file, after a look at what lies there.

    Raises:
        InvalidInputError: Nothing is there, it cannot be read, or it is no regular file.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)  # before it is opened: opening a pipe waits for a writer
        if is_file:
            with path.open("rb") as file:
                return file.read(16)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{path} does not exist. Give the path of an existing file.") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}. Give a readable file.") from error
    what = "a directory" if path.is_dir() else "a pipe or a device, which cannot be read twice"
    raise InvalidInputError(f"{path} is {what}. Give a file.")


def open_text(path: Path) -> IO[str]:
    """Open a UTF-8 text file, gzip-compressed or not; its first bytes decide, not the name. Line ends stay.

    Raises:
        InvalidInputError: See ``read_start``; or it is compressed in another way, or cut between blocks of bgzip.
    """
    start = read_start(path)
    for magic, form in _FOREIGN.items():
        if start.startswith(magic):
            raise InvalidInputError(f"{path} is {form}. Give plain UTF-8 text, or compress it with gzip.")
    if not start.startswith(b"\x1f\x8b"):
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    if start[3:4] >= b"\x04" and start[12:14] == b"BC" and not _has_last_block(path):
        raise InvalidInputError(f"{path} is cut: the last block of bgzip is missing. Copy or download it again.")
    return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _has_last_block(path: Path) -> bool:
    """Files of bgzip end with an empty block; one that is cut between two blocks is whole to every gzip reader."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - len(_END_OF_BGZF), 0))
        return file.read() == _END_OF_BGZF


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without its end; damaged compression is an error with a place.

    Raises:
        InvalidInputError: The file does not exist, cannot be read, its gzip stream is cut or damaged, or a line ends
            in CR where others end in LF.
    """
    number, lone_cr, has_lf = 0, 0, False
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                text = line.rstrip("\r\n")
                if line.endswith("\n"):
                    has_lf = True
                elif line.endswith("\r"):  # a whole file of an old Mac, or a letter M with one bit less
                    lone_cr = lone_cr or number
                if lone_cr and has_lf:
                    raise InvalidInputError(
                        f"{path}, line {lone_cr}: ends in CR, but others in LF. Write one kind of line end."
                    )
                yield number, text
        except DAMAGED_GZIP as error:
            raise InvalidInputError(
                f"{path} is cut or damaged after line {number}: {error}. Copy or download it again."
            ) from error
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be read after line {number}: {error.strerror}. Copy it to another disk."
            ) from error
