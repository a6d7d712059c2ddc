"""An output that appears under its name when it is whole, and never in place of another."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from embedcache.errors import InvalidInputError
from embedcache.interrupt import stop_at_once
from embedcache.partial import make_partial, remove_abandoned
from embedcache.place import check_local
from embedcache.store.files import sync_directory

__all__ = ["check_new", "new_output"]


def check_new(path: Path) -> None:
    """Refuse a path that something has, be it a broken link.

    Raises:
        InvalidInputError: It is taken.
        InvalidSettingError: It is the address of an object store.
    """
    check_local(path)
    if os.path.lexists(path):
        raise InvalidInputError(f"{path} exists already. Choose another --output, or remove it first.")


@contextmanager
def new_output(path: Path, kind: Literal["file", "directory"]) -> Iterator[Path]:
    """Give a hidden path beside ``path`` to fill; at the end of the block it gets its name.

    A file is to be created by the block; a directory is there, and empty. After an error, Ctrl-C or SIGTERM
    nothing is left; what a killed process left is removed by the next export to the same path.

    Raises:
        InvalidInputError: The path is taken, or cannot be written.
        StoppedError: A signal asked to stop.
    """
    check_new(path)
    place = Path(os.path.realpath(path))  # a name such as ".." has no parent to hide things in
    new_parents = [parent for parent in place.parents if not parent.exists()]
    above = next(parent for parent in place.parents if parent.exists())
    if not above.is_dir():
        raise InvalidInputError(f"{path} cannot be made: {above} is no directory. Choose another --output.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        with stop_at_once(f"Stopped; nothing was left at {path}. Run the same command to start over."):
            partial, lock = make_partial(place)
            try:
                target = partial / place.name
                if kind == "directory":
                    target.mkdir()
                yield target
                _publish(target, place, kind)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(lock)
    except BaseException as error:
        for parent in new_parents:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            check_new(path)  # another process was quicker
            raise InvalidInputError(
                f"{path} cannot be written: {error.strerror or str(error).partition(chr(10))[0]}. Nothing was left "
                "there. Free space or mend its permissions, or choose another --output."
            ) from error
        raise


def _publish(target: Path, place: Path, kind: Literal["file", "directory"]) -> None:
    """Flush what was written, then give it its name; of two processes the second finds it taken."""
    if kind == "directory":
        os.sync()  # a flush a file would take hours for a million of them
        target.rename(place)
    else:
        with target.open("rb") as file:
            os.fsync(file.fileno())
        os.link(target, place)  # unlike a rename it never overwrites
    sync_directory(place.parent)
