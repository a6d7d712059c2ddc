"""Errors of the disk under a store, told in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.place import Place

__all__ = ["UnreadableError", "disk_errors", "reading"]


class UnreadableError(CacheDamagedError, OSError):
    """Something is there that is no file, or that the disk does not give."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        super().__init__(
            f"{path} cannot be read: {error.strerror or error}. Mend the disk or its permissions, or put the file back."
        )
        self.strerror = error.strerror


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Within this block an OSError becomes an ``UnreadableError``; what is not there stays FileNotFoundError."""
    try:
        yield
    except UnreadableError:
        raise
    except FileNotFoundError as error:
        if os.path.islink(path):  # noqa: PTH114 - of a link to nothing the name is taken, and whoever wants it waits
            raise UnreadableError(path, error) from error
        raise
    except NotADirectoryError as error:  # a file stands where one of its folders was
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except OSError as error:
        raise UnreadableError(path, error) from error


@contextmanager
def disk_errors(place: Place) -> Iterator[None]:
    """Within this block an OSError becomes a ``CacheError``: what workers note down about their work can fail too."""
    try:
        yield
    except UnreadableError:  # tells more
        raise
    except OSError as error:
        raise CacheError(
            f"{place} cannot be written: {error.strerror or error}. What is committed stays. Free space or mend the "
            "disk, then run the same command again."
        ) from error
