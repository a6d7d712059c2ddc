"""Writing a store, every shard flushed and committed, over appending the same bytes to one file with fsync.

Each task is a shard of 64 MiB, as a build makes them, handed over as rows in the stored type: rounding and the
network are not part of this. One fsync a task on both sides; the store also flushes its directories and its record.
Ratios are paired task by task, and who comes first changes with each task. zarr-python and HDF5 are shown for
comparison; neither flushes anything to the disk.

Expected from a prototype: 0.70 to 0.87 of the append. Measured on 2 shared cores at load 2: 0.78 while a shard was
written to memory first and flushed then; 0.88 to 0.91 since the disk is told to begin after each 8 MiB. The store
flushes twice a task where the append does once: what the record speaks of, then the folder with the record's name.

    python benchmarks/bench_write.py [--width 640] [--tasks 24] [--json]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import zarr
from random_store import SHARD_BYTES, draw_lengths, random_spec, random_tasks, spread
from report import Result, add_json_option, report

from embedcache.store import commit_task, create_store, write_index

Task = list[tuple[bytes, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--directory", help="where to write; a disk, not memory")
    add_json_option(parser)
    options = parser.parse_args()
    tasks = list(random_tasks(draw_lengths(options.tasks * SHARD_BYTES, options.width), options.width))[:-1]
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        results = compare(Path(directory), options.width, tasks)
    report(results, options.json)


def compare(directory: Path, width: int, tasks: list[Task]) -> list[Result]:
    create_store(directory / "store", random_spec(width))
    writers: dict[str, Callable[[Task], object]] = {
        "this store": lambda task: commit_task(directory / "store", task),
        "plain append with fsync": by_append(directory / "flat"),
        "zarr-python, sharded, no fsync": by_zarr(directory / "zarr", width, len(tasks)),
        "HDF5, one dataset a sequence, no fsync": by_hdf5(directory / "rows.h5"),
    }
    names, seconds = list(writers), {name: list[float]() for name in writers}
    for i, task in enumerate(tasks):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            started = time.perf_counter()
            writers[name](task)
            seconds[name].append(time.perf_counter() - started)
            os.sync()  # or the next one waits for what this one left in memory
    write_index(directory / "store")
    size = sum(rows.nbytes for task in tasks for _, rows in task)
    own, plain = seconds["this store"], seconds["plain append with fsync"]
    print(
        f"{len(tasks)} tasks, width {width}, float16, {size / 1e6:,.0f} MB; append {size / sum(plain) / 1e6:,.0f} MB/s"
    )
    results = [Result(f"writing, width {width}: this store, MB/s", size / sum(own) / 1e6)]
    for name in names[1:]:
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], own, strict=True)]
        bar, moonshot = (0.65, 0.8) if name == names[1] else (None, None)
        what = f"writing, width {width}: rate over {name}"
        results.append(Result(what, statistics.median(ratios), bar, moonshot, note=spread(ratios)))
    return results


def by_append(path: Path) -> Callable[[Task], None]:
    def write(task: Task) -> None:
        with path.open("ab") as file:
            for _, rows in task:
                file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())

    return write


def by_zarr(path: Path, width: int, n_tasks: int) -> Callable[[Task], None]:
    shard_rows = SHARD_BYTES // (2 * width) // 256 * 256
    array = zarr.create_array(
        path,
        shape=(n_tasks * shard_rows, width),
        dtype="float16",
        chunks=(256, width),
        shards=(shard_rows, width),
        compressors=None,
        config={"write_empty_chunks": True},
    )
    done: list[int] = []

    def write(task: Task) -> None:
        # the whole shard in one call: row by row, it would be read and written again each time
        rows = np.concatenate([rows for _, rows in task])
        start = len(done) * shard_rows
        array[start : start + len(rows)] = rows
        done.append(len(rows))

    return write


def by_hdf5(path: Path) -> Callable[[Task], None]:
    file = h5py.File(path, "w")

    def write(task: Task) -> None:
        for key, rows in task:
            file.create_dataset(key.hex(), data=rows)
        file.flush()

    return write


if __name__ == "__main__":
    main()
