"""Errors of the disk under a store, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from embedcache.errors import CacheError
from embedcache.place import Place

__all__ = ["disk_errors"]


@contextmanager
def disk_errors(place: Place) -> Iterator[None]:
    """Within this block an OSError becomes a ``CacheError``: what workers note down about their work can fail too."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{place} cannot be written: {error.strerror or error}. What is committed stays. Free space or mend the "
            "disk, then run the same command again."
        ) from error
