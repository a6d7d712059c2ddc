"""A hidden directory that gets its name when it is whole. What a killed process left of one is removed by the next.

Its maker holds a lock on it, which the kernel releases when the process ends, however it ends. So nobody has to
guess from times or process numbers whether a directory is still being filled.
"""

import fcntl
import glob
import os
import secrets
import shutil
from pathlib import Path

__all__ = ["make_partial", "remove_abandoned"]


def make_partial(path: Path) -> tuple[Path, int]:
    """Make a hidden directory beside ``path``; returns it and the descriptor of its lock, to be closed at the end."""
    while True:
        partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
        partial.mkdir()
        try:  # before the lock is ours, another process may take the directory for abandoned
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _lock(lock) is not False and partial.exists():
            return partial, lock
        os.close(lock)


def remove_abandoned(path: Path) -> list[Path]:
    """Remove the hidden directories beside ``path`` whose makers are gone."""
    removed = []
    for name in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        try:
            lock = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        if _lock(lock):
            shutil.rmtree(name, ignore_errors=True)
            removed.append(name)
        os.close(lock)
    return removed


def _lock(descriptor: int) -> bool | None:
    """True if the lock is ours now, False if another process has it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
