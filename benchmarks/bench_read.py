"""Assembling random batches of 64 sequences: our reader over a memory-mapped array of the same bytes, and over others.

All read the same sequences in the same random order into memory that is reused, warm, one thread. The memory map is
copied sequence by sequence, as one would write it by hand. Ratios are paired batch by batch; medians are printed.

    python benchmarks/bench_read.py [--width 640] [--sequences 1500] [--batches 60]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import h5py
import numpy as np
import torch
import zarr

from embedcache.encoders.spec import EncoderSpec
from embedcache.store import EmbeddingStore, commit_task, create_store, write_index
from embedcache.store.index import load_entries

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--sequences", type=int, default=1500)
    parser.add_argument("--batches", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        compare(Path(directory), options.width, options.sequences, options.batches)


def compare(directory: Path, width: int, n: int, n_batches: int) -> None:
    store, flat, group = write_all(directory, width, n)
    rng = np.random.default_rng(1)
    longest = int(np.sort(store.lengths)[-BATCH:].sum())
    out = store.empty(longest).zero_()
    readers = {
        "memory map": by_memory_map(flat, store, out.numpy()),
        "this store": lambda batch: len(store.packed(batch, out).values),
        "zarr-python, same store": by_zarr(store, out.numpy()),
        "HDF5, one dataset a sequence": by_hdf5(group, store, out.numpy()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    rows = 0
    for _ in range(n_batches):
        batch = rng.choice(n, BATCH, replace=False)
        for name, read in readers.items():
            started = time.perf_counter()
            rows = read(batch)
            seconds[name].append(time.perf_counter() - started)
    check_equal(readers, out, batch)
    size = rows * width * 2
    size_mb = store.n_tokens * width * 2 / 1e6
    print(f"{n} sequences of width {width}, float16, {size_mb:,.0f} MB; batches of {BATCH}, warm")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["memory map"], times, strict=True))
        print(f"{name:30} {ratio:6.3f} of the memory map (last batch {size / times[-1] / 1e9:.1f} GB/s)")


def write_all(directory: Path, width: int, n: int):
    """The same random rows as a store, as one flat file and as HDF5; returns readers of the three."""
    spec = EncoderSpec(
        name="random",
        modality="protein",
        adapter="none",
        model_id="random",
        weights="seed:0",
        width=width,
        tokens="letter",
    )
    create_store(directory / "store", spec)
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(6.3, 0.7, n), 30, 2048).astype(int)
    with h5py.File(directory / "rows.h5", "w") as file, (directory / "flat").open("wb") as flat:
        for start in range(0, n, 100):
            task = []
            for i in range(start, min(start + 100, n)):
                rows = rng.standard_normal((lengths[i], width), np.float32).astype(np.float16)
                task.append((i.to_bytes(16, "big"), rows))
                file.create_dataset(str(i), data=rows)
                rows.tofile(flat)
            commit_task(directory / "store", task)
    write_index(directory / "store")
    flat_rows = np.memmap(directory / "flat", np.float16, "r").reshape(-1, width)
    return EmbeddingStore(directory / "store"), flat_rows, h5py.File(directory / "rows.h5")


def by_memory_map(flat, store, out):
    ends = np.cumsum(store.lengths)  # keys are numbers, so positions are numbers too

    def read(batch):
        row = 0
        for i in batch:
            length = store.lengths[i]
            out[row : row + length] = flat[ends[i] - length : ends[i]]
            row += length
        return row

    return read


def by_zarr(store, out):
    array = zarr.open_array(store.root / "tokens", mode="r")
    entries = load_entries(store.root)[0]
    first = entries["shard"].astype(int) * store.layout.shard_rows + entries["start"]

    def read(batch):
        row = 0
        for i in batch:
            length = store.lengths[i]
            out[row : row + length] = array[first[i] : first[i] + length]
            row += length
        return row

    return read


def by_hdf5(file, store, out):
    def read(batch):
        row = 0
        for i in batch:
            length = store.lengths[i]
            file[str(i)].read_direct(out, dest_sel=np.s_[row : row + length])
            row += length
        return row

    return read


def check_equal(readers, out, batch) -> None:
    """Every reader gives the same bytes."""
    results = []
    for read in readers.values():
        rows = read(batch)
        results.append(out[:rows].numpy().tobytes())
    assert len(set(results)) == 1


if __name__ == "__main__":
    main()
