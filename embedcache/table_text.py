"""What a text table must be before Arrow reads it: Arrow takes control characters and broken quotes without a word."""

import codecs
import re
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from embedcache.errors import InvalidInputError

__all__ = ["CheckedText"]

_TEXT = bytes(code for code in range(256) if code >= 32 and code != 127) + b"\t\r\n"
_CONTROL = re.compile(b"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


class CheckedText(RawIOBase):
    """Passes the bytes of a table on, and refuses what no table has, with its line.

    That is control characters, CR as a line end among LF, and quotes that neither open nor close a field.
    """

    def __init__(self, path: Path, file: BinaryIO, separator: str) -> None:
        self._path, self._file = path, file
        field = f'(?:[^"{separator}]*|"(?:[^"]|"")*")'
        self._line = re.compile(f"{field}(?:{separator}{field})*".encode())
        self._rest = b""  # of the last line, whose end was not seen yet
        self._number = 1
        self._cr_at = 0
        self._has_lf = False

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, checked as far as whole lines go."""
        block = self._file.read(size)
        lines, found, rest = (self._rest + block).rpartition(b"\n")
        if not block:
            lines, found, rest = self._rest, b"", b""
        self._rest = rest
        self._check(lines + found)
        return block

    def _check(self, text: bytes) -> None:
        if self._number == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        if text.translate(None, _TEXT) or not text.isascii():
            self._refuse_control(text)
        if b'"' in text:
            self._refuse_quotes(text)
        if b"\r" in text:
            lone = text.replace(b"\r\n", b"\n\n").find(b"\r")
            if lone >= 0:
                self._cr_at = self._cr_at or self._number + text.count(b"\n", 0, lone)
        self._has_lf |= b"\n" in text
        if self._cr_at and self._has_lf:
            raise InvalidInputError(
                f"{self._path}, line {self._cr_at}: has CR, where other lines end in LF. Write one kind of line end."
            )
        self._number += text.count(b"\n")

    def _refuse_control(self, text: bytes) -> None:
        if found := _CONTROL.search(text):
            line = self._number + text.count(b"\n", 0, found.start())
            raise InvalidInputError(
                f"{self._path}, line {line}: {found[0].decode()!r} is no text. Remove it, or copy the file again."
            )

    def _refuse_quotes(self, text: bytes) -> None:
        for line, content in enumerate(re.split(b"\r\n|\r|\n", text), start=self._number):
            if b'"' in content and self._line.fullmatch(content) is None:
                raise InvalidInputError(
                    f"{self._path}, line {line}: quotes that neither open nor close a field. Mend or remove them."
                )
