"""Reading a store that is not in memory: ``prefetch`` over a plain memory map of the same bytes, and what is read.

Each round takes all files out of the page cache (and looks whether they are gone), reads random batches of 64
sequences with one of the two, and counts the bytes that came from the disk for this process. ``epoch`` reads each
sequence once, which favours the plain map: what it read ahead in vain is wanted later, and memory is large enough to
keep it. ``sample`` reads a part of the store, as an epoch does that is larger than memory. Both have the same bar.

Expected from a prototype: 1.3 to 1.6 times a plain map for an epoch, 1.00 bytes for a byte (a map: 8, where the disk
reads 8 MiB ahead as here). Measured on 2 shared cores at load 2: 1.4 (1.1 to 2.2) for an epoch and 3.5 for a sample,
1.00 bytes (5 by the map). The disk gives 1,650 MB/s at best, to readers of whole megabytes in four threads; prefetch
had 1,480 to 1,660 and the map 1,000 to 1,200 of it, so that 1.5 is about the most there can be in an epoch. Populating
the maps, reading into the ring (``pread``), a thread for advice alone and twice the depth changed nothing beyond the
noise. Where the machine is busy both wait for the processor, of which they use the same: 1.2 and 2.9 at load 6, 1.1 and
1.7 at load 8.

    python benchmarks/bench_cold.py [--width 640] [--megabytes 2000] [--rounds 5] [--sample 0.15] [--json]
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from random_store import bytes_read, draw_lengths, drop_pages, files_below, spread, write_store
from report import Result, add_json_option, report

from embedcache.store import EmbeddingStore

BATCH = 64


class Reading(NamedTuple):
    """One pass over some batches."""

    seconds: float
    cpu_seconds: float
    read_over_asked: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=float, default=0.15)
    parser.add_argument("--directory", help="where to write; a disk, not memory")
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        lengths = draw_lengths(options.megabytes * 10**6, options.width)
        print(f"{len(lengths)} sequences of width {options.width}, float16, {options.megabytes:,} MB; {BATCH} a batch")
        write_store(Path(directory, "store"), Path(directory, "flat"), lengths, options.width)
        results = []
        for name, share in (("epoch", 1.0), ("sample", options.sample)):
            results += compare(Path(directory), lengths, options, name, share)
    report(results, options.json)


def compare(directory: Path, lengths: np.ndarray, options: argparse.Namespace, name: str, share: float) -> list[Result]:
    width, rng = options.width, np.random.default_rng(2)
    ours, plain = list[Reading](), list[Reading]()
    for i in range(options.rounds):
        order = rng.permutation(len(lengths))[: max(BATCH, int(share * len(lengths)))]
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        for read, found in ((by_prefetch, ours), (by_memory_map, plain))[:: 1 if i % 2 else -1]:
            found.append(time_cold(read, directory, width, lengths, batches))
    ratios = [theirs.seconds / own.seconds for theirs, own in zip(plain, ours, strict=True)]
    rates = [share * lengths.sum() * width * 2 / 1e6 / own.seconds for own in ours]
    amplified, theirs = (statistics.median(one.read_over_asked for one in found) for found in (ours, plain))
    cpu = statistics.median(theirs.cpu_seconds / own.cpu_seconds for theirs, own in zip(plain, ours, strict=True))
    title = f"cold {name}, width {width}"
    return [
        Result(f"{title}: prefetch, MB/s", statistics.median(rates), note=spread(rates)),
        Result(
            f"{title}: prefetch over plain memory map",
            statistics.median(ratios),
            1.15,
            1.5,
            note=f"{spread(ratios)}; CPU {cpu:.3g}",
        ),
        Result(
            f"{title}: bytes read for a byte asked for",
            round(amplified, 2),  # whole pages are read
            1.1,
            1.0,
            better="lower",
            note=f"plain memory map {theirs:.3g}",
        ),
    ]


Read = Callable[[Path, int, np.ndarray, list[np.ndarray]], None]


def time_cold(read: Read, directory: Path, width: int, lengths: np.ndarray, batches: list[np.ndarray]) -> Reading:
    gc.collect()  # a map that is still there keeps its pages
    stayed = drop_pages([path for name in ("store", "flat") for path in files_below(directory / name)])
    assert stayed < 0.01, f"{stayed:.1%} of the pages stayed in memory: this is no cold read"
    before, started, began = bytes_read(), time.perf_counter(), time.process_time()
    read(directory, width, lengths, batches)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - began
    asked = sum(int(lengths[batch].sum()) for batch in batches) * width * 2
    return Reading(seconds, cpu_seconds, (bytes_read() - before) / asked)


def by_prefetch(directory: Path, width: int, lengths: np.ndarray, batches: list[np.ndarray]) -> None:
    for batch, ragged in zip(batches, EmbeddingStore(directory / "store").prefetch(batches), strict=True):
        assert len(ragged.values) == lengths[batch].sum()


def by_memory_map(directory: Path, width: int, lengths: np.ndarray, batches: list[np.ndarray]) -> None:
    rows = np.memmap(directory / "flat", np.float16, "r").reshape(-1, width)
    ends = np.cumsum(lengths)
    out = np.zeros((max(int(lengths[batch].sum()) for batch in batches), width), np.float16)
    for batch in batches:
        row = 0
        for i in batch:
            out[row : row + lengths[i]] = rows[ends[i] - lengths[i] : ends[i]]
            row += lengths[i]


if __name__ == "__main__":
    main()
