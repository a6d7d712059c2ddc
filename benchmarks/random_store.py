"""Stores of random rows, and what the benchmarks of reading and writing share. Not a benchmark itself."""

import ctypes
import mmap
import os
import statistics
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from embedcache.encoders.spec import EncoderSpec
from embedcache.sequences import SequenceRecord
from embedcache.store import commit_task, create_store, write_index

SHARD_BYTES = 64 << 20


def random_spec(width: int) -> EncoderSpec:
    return EncoderSpec(
        name="random",
        modality="protein",
        adapter="none",
        model_id="random",
        weights="seed:0",
        width=width,
        tokens="letter",
    )


def draw_lengths(size_bytes: int, width: int, seed: int = 0) -> np.ndarray:
    """Tokens of as many sequences as fill ``size_bytes`` of float16: log-normal, mean about 700, 30 to 2,048."""
    rng = np.random.default_rng(seed)
    enough = size_bytes // (2 * width * 300) + 1000
    lengths = np.clip(rng.lognormal(6.35, 0.7, enough), 30, 2048).astype(int)
    return lengths[: max(128, int(np.searchsorted(lengths.cumsum(), size_bytes // (2 * width))))]


def random_rows(lengths: Sequence[int], width: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Random float16 bits, (length, width): cut from one block, for drawing takes longer than writing."""
    rng = np.random.default_rng(seed)
    n_rows = max(*lengths, 8192)
    block = np.frombuffer(rng.bytes(2 * n_rows * width), np.float16).reshape(-1, width)
    for length in lengths:
        start = int(rng.integers(0, n_rows - length + 1))
        yield block[start : start + length]


def random_tasks(lengths: Sequence[int], width: int, seed: int = 0) -> Iterator[list[tuple[bytes, np.ndarray]]]:
    """Tasks of one full shard each, as a build makes them. The key of sequence i is i, and so is its position."""
    task: list[tuple[bytes, np.ndarray]] = []
    n_bytes = 0
    for i, rows in enumerate(random_rows(lengths, width, seed)):
        if n_bytes + rows.nbytes > SHARD_BYTES - (256 * 2 * width):
            yield task
            task, n_bytes = [], 0
        task.append((i.to_bytes(16, "big"), rows))
        n_bytes += rows.nbytes
    yield task


PLACES = 64
"""So many sequences get rows of their own."""


class FreeEncoder:
    """Rows of one random block, as many as there are letters, from a place that the letters say."""

    def __init__(self, width: int) -> None:
        self.spec = random_spec(width)
        self._block = np.random.default_rng(0).standard_normal((2048 + PLACES, width), np.float32)

    def encode(self, sequences: Sequence[str]) -> list[np.ndarray]:  # noqa: D102
        starts = [zlib.crc32(sequence.encode()) % PLACES for sequence in sequences]
        return [self._block[start : start + len(one)] for start, one in zip(starts, sequences, strict=True)]


def random_records(megabytes: int, width: int) -> Iterator[SequenceRecord]:
    rng = np.random.default_rng(0)
    for i, length in enumerate(draw_lengths(megabytes * 10**6, width)):
        yield SequenceRecord(
            str(i), rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length).tobytes().decode("utf-32"), "protein"
        )


def write_store(root: Path, flat: Path, lengths: Sequence[int], width: int) -> None:
    """The same rows as a store and, laid end to end, as one file."""
    create_store(root, random_spec(width))
    with flat.open("wb") as file:
        for task in random_tasks(lengths, width):
            commit_task(root, task)
            for _, rows in task:
                rows.tofile(file)
        file.flush()
        os.fsync(file.fileno())
    write_index(root)


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else [root]


def drop_pages(paths: Sequence[Path]) -> float:
    """Take files out of the page cache; returns the share of their pages that stayed. Nobody may map them."""
    kept = total = 0
    for path in paths:
        if not (size := path.stat().st_size):
            continue
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                resident = _resident(mapped, size)
        kept += int(resident.sum())
        total += len(resident)
    return kept / total


def _resident(mapped: mmap.mmap, size: int) -> np.ndarray:
    """For each page of a map, 1 if it is in memory."""
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    where = np.frombuffer(mapped, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_void_p(where.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
    if libc.mincore(*arguments):
        raise OSError(ctypes.get_errno(), "mincore failed")
    return pages & 1


def bytes_read() -> int:
    """Bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def spread(values: Sequence[float]) -> str:
    """Quartiles, as the note of a result."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"quartiles {low:.3g} to {high:.3g} of {len(values)}"
