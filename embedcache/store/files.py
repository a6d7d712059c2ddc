"""Files that survive a power cut: written whole or not at all, flushed before anyone can see them.

obstore and zarr do not call fsync on a local directory, so the writers of a store come here.
"""

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["create_file", "replace_file", "sync_directory"]


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_file(path: Path, parts: Iterable[Any]) -> bool:
    """Write buffers to a new file, durably. False, and no change, if the path exists already."""
    temporary = _write_temporary(path, parts)
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename it never overwrites
        created = temporary.stat().st_nlink == 2  # NFS may report the failure of a link that it made
    finally:
        temporary.unlink()
    sync_directory(path.parent)
    return created


def replace_file(path: Path, parts: Iterable[Any]) -> None:
    """Write buffers to a file, durably, in place of an older one: readers see the old bytes or the new."""
    _write_temporary(path, parts).replace(path)
    sync_directory(path.parent)


def _write_temporary(path: Path, parts: Iterable[Any]) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
