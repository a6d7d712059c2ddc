"""Random access to a genome FASTA without holding it in memory, and windows cut from it."""

import codecs
import gzip
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedcache.errors import InvalidInputError, InvalidSequenceError
from embedcache.sequences import normalise, open_text

__all__ = ["Genome", "open_genome", "reverse_complement", "window_bounds"]

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


class Genome:
    """Contigs of an indexed, uncompressed FASTA file, mapped into memory and read piece by piece."""

    def __init__(self, source: Path, plain: Path, index: Path) -> None:
        """Index ``plain``, an uncompressed copy of ``source`` or itself; the index goes to ``index``."""
        from pyfaidx import Faidx, FastaIndexingError

        self.path = source
        try:
            faidx = Faidx(str(plain), indexname=str(index))
        except FastaIndexingError as error:
            raise InvalidInputError(
                f"{source} cannot be indexed: {str(error).splitlines()[0]} "
                "Give FASTA with the lines of a record wrapped at one width."
            ) from error
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{source} has text that is not UTF-8. Save its headers as UTF-8.") from error
        except ValueError as error:
            raise InvalidInputError(f"{source}: {str(error).splitlines()[0]}. Give each contig its own ID.") from error
        self._index = faidx.index
        faidx.close()
        if not self._index:
            raise InvalidInputError(f"{source} has no contig. Expected FASTA: a line >ID, then letters.")
        self._file = plain.open("rb")
        self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def close(self) -> None:
        """Release the mapped file."""
        self._bytes.close()
        self._file.close()

    @property
    def contigs(self) -> dict[str, int]:
        """Length in bp of each contig."""
        return {name: int(record.rlen) for name, record in self._index.items()}

    def __contains__(self, contig: object) -> bool:
        return contig in self._index

    def length(self, contig: str) -> int:
        """Length of a contig in bp."""
        return int(self._index[contig].rlen)

    def fetch(self, contig: str, start: int, end: int) -> str:
        """Bases of the forward strand, 0-based and half-open, inside the contig; normalised."""
        record = self._index[contig]
        assert 0 <= start <= end <= record.rlen
        if start == end:
            return ""
        per_line, line_bytes = record.lenc, record.lenb
        first = record.offset + start // per_line * line_bytes + start % per_line
        last = record.offset + (end - 1) // per_line * line_bytes + (end - 1) % per_line
        letters = self._bytes[first : last + 1].translate(None, b"\r\n").decode("ascii", "replace")
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


@contextmanager
def open_genome(path: Path, scratch: Path | None = None) -> Iterator[Genome]:
    """Open a genome FASTA, plain or gzip-compressed.

    Nothing is written beside the input. A compressed file is unpacked once into a temporary folder under
    ``scratch`` (the system's own without it), which is removed at the end.

    Raises:
        InvalidInputError: The file is missing, damaged, empty or unevenly wrapped, or a contig comes twice.
    """
    path = Path(path)
    open_text(path).close()
    with tempfile.TemporaryDirectory(prefix=".genome-", dir=scratch) as folder:
        with path.open("rb") as file:
            start = file.read(len(codecs.BOM_UTF8))
        plain = path
        if start[:2] == b"\x1f\x8b" or start == codecs.BOM_UTF8:
            plain = Path(folder) / "genome.fa"
            _unpack(path, plain)
        _check_start(path, plain)
        genome = Genome(path, plain, Path(folder) / "genome.fai")
        try:
            yield genome
        finally:
            genome.close()


def _check_start(path: Path, plain: Path) -> None:
    with plain.open("rb") as file:
        start = file.read(1 << 16)
    if not start:
        raise InvalidInputError(f"{path} is empty. Expected FASTA: a line >ID, then letters.")
    if b"\r" in start.removesuffix(b"\r").replace(b"\r\n", b"\n"):  # the index would take the file for one line
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
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"{path} is cut or damaged: {error}. Copy or download it again.") from error
