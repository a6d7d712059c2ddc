"""Opening HDF5 files so that a full disk and a damaged file are told, and not lost or worse.

The HDF5 library writes late, when an object is released. A failure there is printed and forgotten by h5py, and the
process may end with a segmentation fault. So it writes through a Python file that remembers the first failure.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py

from embedcache.errors import InvalidInputError

__all__ = ["NewHdf5", "readable", "reading", "writing"]

_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class _WatchedFile(io.FileIO):
    """A new file that goes on without writing after its first failure, for the library cannot cope with one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.error is None and written < len(view):
                written += super().write(view[written:]) or 0  # a disk that fills up takes a part
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


class NewHdf5:
    """An HDF5 file that is being written. ``file`` is its root; call ``check`` after each data set."""

    def __init__(self, path: Path) -> None:
        self._watched = _WatchedFile(path)
        self.file = h5py.File(self._watched, "w")

    def check(self) -> None:
        """Raise the first OSError of the disk, if there was one."""
        if self._watched.error is not None:
            raise self._watched.error

    def close(self) -> None:
        """Write what is still in memory."""
        self.file.close()
        self._watched.close()


@contextmanager
def writing(path: Path) -> Iterator[NewHdf5]:
    """Write a new HDF5 file.

    Raises:
        OSError: The disk is full or failed, whenever the library noticed.
    """
    new = NewHdf5(path)
    try:
        yield new
    finally:
        new.close()
    new.check()


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read.

    Raises:
        InvalidInputError: There is none, or it cannot be read.
    """
    if not path.is_file():
        raise InvalidInputError(f"{path} is no file. Give the HDF5 file to read (--input).")
    if find_spec("hdf5plugin"):
        import_module("hdf5plugin")  # brings filters such as zstd and blosc
    with readable(str(path)):
        file = h5py.File(path, "r", locking="best-effort")
    with file:
        yield file


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Tell in one line what the library cannot read within this block.

    Raises:
        InvalidInputError: With ``where`` and the reason.
    """
    try:
        yield
    except InvalidInputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        hint = "`pip install hdf5plugin`" if "filter" in reason else "Copy or make the file again"
        raise InvalidInputError(f"{where} cannot be read as HDF5: {reason}. {hint}.") from error
