"""Random access to a genome FASTA without holding it in memory, and windows cut from it."""

import codecs
import gzip
import mmap
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedcache.errors import InvalidInputError, InvalidSequenceError
from embedcache.sequences import normalise, read_header
from embedcache.text import DAMAGED_GZIP, open_text

__all__ = ["Genome", "open_genome", "reverse_complement", "window_bounds"]

_PIECE = 16 << 20  # bytes of a contig that are looked at together
_IS_WRONG = bytes(code not in b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv\r\n" for code in range(256))
_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def reverse_complement(sequence: str) -> str:
    """The other strand of a normalised nucleotide sequence, read in its own direction."""
    return sequence.translate(_COMPLEMENT)[::-1]


def window_bounds(tss: int, strand: str, length: int) -> tuple[int, int]:
    """Genomic bounds of the window around a TSS, 0-based and half-open; they may leave the contig.

    On the strand of the transcript the TSS is base ``length // 2`` of the window, counted from 0.
    """
    start = tss - length // 2 if strand == "+" else tss + length // 2 - length + 1
    return start, start + length


class _Contig(NamedTuple):
    """Where the letters of a contig lie in the file."""

    length: int
    offset: int
    letters: int
    """In a line."""
    line_bytes: int
    """With the line end."""


class Genome:
    """Contigs of an uncompressed FASTA file, mapped into memory and read piece by piece."""

    def __init__(self, source: Path, plain: Path) -> None:
        """Index ``plain``, an uncompressed copy of ``source`` or itself."""
        self.path = source
        self._file = plain.open("rb")
        self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._index = dict(_index(source, self._bytes))
        except (InvalidInputError, InvalidSequenceError):
            self.close()
            raise

    def close(self) -> None:
        """Release the mapped file."""
        self._bytes.close()
        self._file.close()

    @property
    def contigs(self) -> dict[str, int]:
        """Length in bp of each contig."""
        return {name: contig.length for name, contig in self._index.items()}

    def __contains__(self, contig: object) -> bool:
        return contig in self._index

    def length(self, contig: str) -> int:
        """Length of a contig in bp."""
        return self._index[contig].length

    def fetch(self, contig: str, start: int, end: int) -> str:
        """Bases of the forward strand, 0-based and half-open, inside the contig; normalised."""
        length, offset, per_line, line_bytes = self._index[contig]
        assert 0 <= start <= end <= length
        if start == end:
            return ""
        first = offset + start // per_line * line_bytes + start % per_line
        last = offset + (end - 1) // per_line * line_bytes + (end - 1) % per_line
        letters = self._bytes[first : last + 1].translate(None, b"\r\n").decode("ascii", "replace")
        assert len(letters) == end - start
        try:
            return normalise(letters, "dna")
        except InvalidSequenceError as error:
            raise InvalidSequenceError(f"{self.path}, contig {contig!r} from base {start + 1} on: {error}") from None

    def window(self, contig: str, tss: int, strand: str, length: int) -> str:
        """Window of ``length`` bp around a TSS (0-based), on the strand of the transcript, N past the ends."""
        start, end = window_bounds(tss, strand, length)
        size = self.length(contig)
        inside = self.fetch(contig, min(max(start, 0), size), max(min(end, size), 0))
        forward = "N" * min(max(-start, 0), length) + inside
        forward += "N" * (length - len(forward))
        return forward if strand == "+" else reverse_complement(forward)


def _index(path: Path, data: mmap.mmap) -> Iterator[tuple[str, _Contig]]:
    """Name and place of each contig; the lines of a contig are all of one length, the last may be shorter."""
    seen: set[str] = set()
    begin = re.search(rb"[^\r\n]", data)
    at = begin.start() if begin else len(data)
    if data[at : at + 1] != b">":
        found = data[at : at + 20].decode("utf-8", "replace")
        raise InvalidInputError(f"{path} begins with {found!r}. Expected FASTA: a line >ID, then letters.")
    while at < len(data):
        end = data.find(b"\n", at) % (len(data) + 1)  # -1 is the end of the file
        header = data[at:end].decode("utf-8", "surrogateescape").removesuffix("\r")
        name = read_header(f"{path}, record {len(seen) + 1}", header)
        if name in seen:
            raise InvalidInputError(f"{path}: contig {name!r} comes twice. Give each contig its own ID.")
        seen.add(name)
        at = data.find(b"\n>", end) + 1 or len(data)
        yield name, _measure(f"{path}, contig {name!r}", data, min(end + 1, len(data)), at)


def _measure(where: str, data: mmap.mmap, start: int, stop: int) -> _Contig:
    """Check the lines of one contig, which lie from ``start`` to ``stop``."""
    after = stop
    kept = b""
    while stop > start and not kept:  # the last line end, and empty lines behind it
        tail = data[max(start, stop - 65_536) : stop]
        kept = tail.rstrip(b"\r\n")
        stop -= len(tail) - len(kept)
    if stop == start:
        raise InvalidInputError(f"{where} has no letters. Give it letters, or drop the record.")
    end = data.find(b"\n", start, stop)
    has_cr = end > start and data[end - 1] in b"\r"
    line_bytes = end + 1 - start if end >= 0 else stop - start + 1
    letters = line_bytes - 1 - has_cr
    n_lines, rest = divmod(stop - start, line_bytes)
    is_even = letters > 0 and 0 < rest <= letters and b"\r" not in data[stop:after].replace(b"\r\n", b"")
    piece = max(_PIECE // line_bytes, 1) * line_bytes
    wrong_at = -1  # looked for in the whole file, for a hole in it can be where no transcript is
    for at in range(start, stop, piece) if is_even else ():
        text = data[at : min(at + piece, stop)]  # a copy: a map in use cannot be closed
        found = np.frombuffer(text, np.uint8)
        if wrong_at < 0 and (found_at := text.translate(_IS_WRONG).find(1)) >= 0:
            wrong_at = at + found_at
        ends = found[line_bytes - 1 :: line_bytes]
        n_cr = len(ends) if has_cr else 0
        is_even &= bool((ends == 10).all()) and int((found == 10).sum()) == len(ends)
        is_even &= not has_cr or bool((found[line_bytes - 2 :: line_bytes][: len(ends)] == 13).all())
        is_even &= int((found == 13).sum()) == n_cr
    if not is_even:
        raise InvalidInputError(
            f"{where} has lines of several lengths or line ends. Give FASTA that is wrapped at one width."
        )
    if wrong_at >= 0:
        line, place = divmod(wrong_at - start, line_bytes)
        raise _no_base(f"{where}: base {line * letters + place + 1}", data[wrong_at : wrong_at + 1])
    return _Contig(n_lines * letters + rest, start, letters, line_bytes)


def _no_base(where: str, letter: bytes) -> InvalidSequenceError:
    return InvalidSequenceError(
        f"{where} is {letter!r}. Allowed letters: A C G T U N and IUPAC codes. Copy or download the file again, or "
        "write N."
    )


@contextmanager
def open_genome(path: Path, scratch: Path | None = None) -> Iterator[Genome]:
    """Open a genome FASTA, plain or gzip-compressed.

    Nothing is written beside the input. A compressed file is unpacked once into a temporary folder under
    ``scratch`` (the system's own without it), which is removed at the end.

    Raises:
        InvalidInputError: The file is missing, damaged, empty or unevenly wrapped, or a contig comes twice.
        InvalidSequenceError: A letter anywhere that is no base.
    """
    path = Path(path)
    open_text(path).close()  # refuses what is no text
    with tempfile.TemporaryDirectory(prefix=".genome-", dir=scratch) as folder:
        with path.open("rb") as file:
            start = file.read(len(codecs.BOM_UTF8))
        plain = path
        if start[:2] == b"\x1f\x8b" or start == codecs.BOM_UTF8:
            plain = Path(folder) / "genome.fa"
            _unpack(path, plain)
        _check_start(path, plain)
        genome = Genome(path, plain)
        try:
            yield genome
        finally:
            genome.close()


def _check_start(path: Path, plain: Path) -> None:
    with plain.open("rb") as file:
        start = file.read(1 << 16)
    if not start:
        raise InvalidInputError(f"{path} is empty. Expected FASTA: a line >ID, then letters.")
    if b"\r" in start and b"\n" not in start:
        raise InvalidInputError(f"{path} has the line ends of old Macs (CR). Write LF: tr '\\r' '\\n'.")


def _unpack(path: Path, plain: Path) -> None:
    """Copy without compression and without a byte order mark."""
    with path.open("rb") as file:
        is_plain = file.read(2) != b"\x1f\x8b"
    try:
        with path.open("rb") if is_plain else gzip.open(path, "rb") as source, plain.open("wb") as target:
            start = source.read(len(codecs.BOM_UTF8))
            target.write(start.removeprefix(codecs.BOM_UTF8))
            shutil.copyfileobj(source, target, 1 << 20)
    except DAMAGED_GZIP as error:
        raise InvalidInputError(f"{path} is cut or damaged: {error}. Copy or download it again.") from error
