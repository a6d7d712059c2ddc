"""The files of a store, on a local disk or an object store: created once, replaced, listed, never half written.

A store needs no more than "create if absent" and "list" of its place. ``LocalFiles`` also flushes data and
directories to disk before anyone can see a file, which neither obstore nor zarr do on a local disk.
"""

import ctypes
import fcntl
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import CacheError
from embedcache.place import ObjectUrl, Place, parse_place
from embedcache.store.disk import UnreadableError, reading
from embedcache.store.status import FileStatus

__all__ = ["Files", "LocalFiles", "create_file", "open_files", "replace_file", "sync_directory"]

HANDED_OVER_BYTES = 8 << 20
"""The disk begins to write a large file after so many bytes, and not at the end when all of it is to be flushed."""
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux only


class Files(Protocol):
    """The files below one place. Names are relative to it and have slashes; those that begin with a dot are hidden."""

    @property
    def place(self) -> Place:
        """Where the files are."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of a file; FileNotFoundError without it."""
        ...

    def read_array(self, name: str) -> NDArray[np.uint8]:
        """``read`` of a large file: into huge pages, several times faster."""
        ...

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        """``read`` of each name, in their order, several at a time where that is faster."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names directly within a folder, files and folders, sorted."""
        ...

    def statuses(self, folder: str) -> dict[str, FileStatus]:
        """All files anywhere below a folder, by name; empty without the folder."""
        ...

    def temporaries(self) -> dict[str, FileStatus]:
        """Files that killed writers left, by name."""
        ...

    def create(self, name: str, parts: Iterable[Any], *, lasting: bool = True, after: Iterable[str] = ()) -> bool:
        """Write a new file from buffers, whole. False, and no change, if the name exists.

        ``lasting`` survives a power cut. Files that were created without it are named in ``after``: the new file is
        not seen before they last as well, their folder, and the folder of that.
        """
        ...

    def replace(self, name: str, parts: Iterable[Any], *, lasting: bool = True) -> None:
        """Write a file from buffers; readers see the old bytes or the new. ``lasting`` survives a power cut."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; names that are not there are no error."""
        ...

    def claim_shard(self) -> int:
        """A shard number that was never given before and never will be again."""
        ...

    def make_folders(self, names: Iterable[str]) -> None:
        """Make folders, where a place has such things."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other processes out of a block, where a place has locks; never needed for correctness."""
        ...


def open_files(place: str | Place) -> Files:
    """The files below a place; nothing is touched."""
    place = parse_place(place)
    if isinstance(place, ObjectUrl):
        from embedcache.store.objects import ObjectFiles

        return ObjectFiles(place)
    return LocalFiles(place)


class LocalFiles:
    """See ``Files``; raises OSError where the disk does not do what is asked."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def read(self, name: str) -> bytes:  # noqa: D102
        with reading(self.place / name):
            return (self.place / name).read_bytes()

    def read_array(self, name: str) -> NDArray[np.uint8]:  # noqa: D102
        with reading(self.place / name):
            return np.fromfile(self.place / name, np.uint8)

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:  # noqa: D102
        root = os.fspath(self.place)  # a Path a name would take longer than to read it
        for name in names:
            with reading(f"{root}/{name}"), open(f"{root}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
                yield file.read()

    def exists(self, name: str) -> bool:  # noqa: D102
        return os.path.exists(self.place / name)  # noqa: PTH110 - False, not an error, for what cannot be looked at

    def names(self, folder: str) -> list[str]:  # noqa: D102
        with reading(self.place / folder):
            return sorted([name for name in os.listdir(self.place / folder) if name[0] != "."])  # noqa: PTH208

    def statuses(self, folder: str) -> dict[str, FileStatus]:  # noqa: D102
        return {name: status for name, status in self._walk(folder) if not name.rpartition("/")[2].startswith(".")}

    def temporaries(self) -> dict[str, FileStatus]:  # noqa: D102
        # .lock has no second dot: it stays
        return {name: status for name, status in self._walk("") if name.rpartition("/")[2].count(".") > 1}

    def _walk(self, folder: str) -> Iterator[tuple[str, FileStatus]]:
        for parent, _, files in os.walk(self.place / folder):
            for file in files:
                path = Path(parent) / file
                with suppress(FileNotFoundError, UnreadableError), reading(path):  # removed meanwhile, or no file
                    found = path.stat()
                    tag = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
                    name = path.relative_to(self.place).as_posix()
                    yield name, FileStatus(found.st_size, found.st_mtime, tag)

    def create(  # noqa: D102
        self, name: str, parts: Iterable[Any], *, lasting: bool = True, after: Iterable[str] = ()
    ) -> bool:
        return create_file(self._with_parent(name), parts, lasting=lasting, after=[self.place / one for one in after])

    def replace(self, name: str, parts: Iterable[Any], *, lasting: bool = True) -> None:  # noqa: D102
        path = self._with_parent(name)
        if lasting:
            replace_file(path, parts)
        else:
            _write_temporary(path, parts, lasting=False).replace(path)

    def _with_parent(self, name: str) -> Path:
        path = self.place / name
        if not path.parent.is_dir():
            make_directory(path.parent)
        return path

    def remove(self, names: Iterable[str]) -> None:  # noqa: D102
        parents = set()
        for name in names:
            path = self.place / name
            try:
                path.unlink()
                parents.add(path.parent)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise CacheError(
                    f"{path} cannot be removed: {error.strerror}. Remove it by hand, then run the same command again."
                ) from error
        for parent in parents:
            sync_directory(parent)

    def claim_shard(self) -> int:
        """A mkdir succeeds once. Directories are never removed, so no number is given twice.

        A power cut may take back a number whose shard was not flushed: nothing is left of it then.
        """
        shards = self.place / "tokens" / "c"
        given = [name for name in os.listdir(shards) if re.fullmatch("[0-9]{1,9}", name)]  # noqa: PTH208
        number = max(map(int, given), default=-1)
        while True:
            number += 1
            with suppress(FileExistsError):
                (shards / str(number)).mkdir()
                return number

    def make_folders(self, names: Iterable[str]) -> None:  # noqa: D102
        for name in names:
            make_directory(self.place / name)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:  # noqa: D102
        with (self.place / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def make_directory(path: Path) -> None:
    """Make a directory and those above it, durably; one that is there is no error."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_directory(one.parent)


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory to disk."""
    _sync(path)


def _sync(path: Path) -> None:
    """Flush a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_file(path: Path, parts: Iterable[Any], *, lasting: bool = True, after: Iterable[Path] = ()) -> bool:
    """Write buffers to a new file, durably. False, and no change, if the path exists already."""
    temporary = _write_temporary(path, parts, lasting=False)
    try:
        if lasting:
            _sync_together({temporary, *(place for one in after for place in (one, *one.parents[:2]))})
        with suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename it never overwrites
        created = temporary.stat().st_nlink == 2  # NFS may report the failure of a link that it made
    finally:
        temporary.unlink()
    if lasting:
        sync_directory(path.parent)
    return created


def _sync_together(paths: Collection[Path]) -> None:
    """Flush files and directories: a disk takes about as long for many as for one."""
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(_sync, paths))


def replace_file(path: Path, parts: Iterable[Any]) -> None:
    """Write buffers to a file, durably, in place of an older one: readers see the old bytes or the new."""
    _write_temporary(path, parts).replace(path)
    sync_directory(path.parent)


def _write_temporary(path: Path, parts: Iterable[Any], *, lasting: bool = True) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            begun = written = 0
            for part in parts:
                written += file.write(part)
                if written - begun >= HANDED_OVER_BYTES:
                    file.flush()
                    _begin_to_write(file.fileno(), begun, written - begun)
                    begun = written
            if lasting:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _begin_to_write(descriptor: int, start: int, size: int) -> None:
    """Let the disk write a part of a file while the next one is prepared. Promises nothing: fsync does, and tells."""
    if _sync_file_range is not None:
        start_writing = 2  # SYNC_FILE_RANGE_WRITE
        _sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(size), ctypes.c_uint(start_writing))
