"""Shards on a local disk, mapped into memory: rows are views of the files, nothing is copied."""

import errno
import mmap
import resource
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.store.layout import EMPTY_CHUNK, INNER_ROWS, REPAIR, Layout, crc32c

__all__ = ["MappedShards"]

_REFUSED = {
    errno.EMFILE: "A store takes one open file a shard: raise their limit (`ulimit -n`)",
    errno.ENFILE: "A store takes one open file a shard: raise the limit of the machine (`sysctl fs.file-max`)",
    errno.ENOMEM: "A store takes one map of memory a shard: raise their limit (`sysctl vm.max_map_count`)",
    errno.EACCES: "Mend its permissions",
    errno.EPERM: "Mend its permissions",
}
"""Errors of opening a shard that say nothing about its bytes, and what to do."""


class MappedShards:
    """See ``read.Shards``; a shard is mapped when it is first asked for."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root, self.layout = root, layout
        self._maps: dict[int, tuple[Tensor, int, mmap.mmap]] = {}
        _allow_many_files()

    def views(self, places: Iterable[tuple[int, int, int]]) -> list[Tensor]:
        """Rows (tokens, columns) of each (shard, start, length), without a copy."""
        views = []
        for shard, start, length in places:
            rows, n_rows, _ = self._maps.get(shard) or self._map(shard)
            if (end := start + length) > n_rows:
                raise CacheDamagedError(f"{self._path(shard)} is shorter than its record says. {REPAIR}")
            views.append(rows[start:end])
        return views

    def advise(self, places: Iterable[tuple[int, int, int]]) -> None:
        """Ask the kernel to read these rows; returns before it has."""
        row_bytes = self.layout.row_bytes
        for shard, start, length in places:
            first, size = start * row_bytes, length * row_bytes
            before = first % mmap.PAGESIZE
            mapped = (self._maps.get(shard) or self._map(shard))[2]
            mapped.madvise(mmap.MADV_WILLNEED, first - before, max(size + before, 1))

    def _path(self, number: int) -> Path:
        return self.root / "tokens" / "c" / str(number) / "0"

    def _map(self, number: int) -> tuple[Tensor, int, mmap.mmap]:
        # no lock: a process that is forked while another thread holds it would wait for ever; a second map is dropped
        return self._maps.setdefault(number, _map_shard(self._path(number), self.layout))


def _map_shard(path: Path, layout: Layout) -> tuple[Tensor, int, mmap.mmap]:
    """Rows (n, columns) of a shard, n, and its map, after its index was found to be that of plain C-order rows."""
    n_inner = layout.shard_rows // INNER_ROWS
    index_bytes = layout.index_bytes
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        if isinstance(error, OSError) and error.errno in _REFUSED:  # nothing is wrong with the file: do not repair it
            raise CacheError(
                f"{path} cannot be opened: {error.strerror}. {_REFUSED[error.errno]}, then run the same command again."
            ) from error
        reason = "missing" if isinstance(error, FileNotFoundError) else "empty or no file"
        raise CacheDamagedError(f"{path} is {reason} although it was committed. {REPAIR}") from error
    mapped.madvise(mmap.MADV_RANDOM)  # else a page fault reads ahead megabytes that nobody asked for
    if len(mapped) < index_bytes:
        raise CacheDamagedError(f"{path} has {len(mapped)} bytes, less than its index. {REPAIR}")
    index = np.frombuffer(bytearray(mapped[-index_bytes:-4]), "<u8").reshape(n_inner, 2)
    used = int((index[:, 0] != EMPTY_CHUNK).sum())
    plain = (index[:used, 0] == np.arange(used, dtype="u8") * np.uint64(layout.inner_bytes)).all()
    sized = len(mapped) == used * layout.inner_bytes + index_bytes
    if crc32c(index) != int.from_bytes(mapped[-4:], "little") or not plain or not sized:
        raise CacheDamagedError(f"{path} is damaged, or another program wrote it. {REPAIR}")
    numbers: NDArray[Any] = np.frombuffer(mapped, layout.stored, used * INNER_ROWS * layout.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no read-only tensors and says so
        rows = torch.from_numpy(numbers.reshape(-1, layout.columns)).view(getattr(torch, layout.spec.store_dtype))
    return rows, len(rows), mapped


def _allow_many_files() -> None:
    """A map keeps a file descriptor, and the usual limit of 1,024 is less than the shards of 64 GiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
