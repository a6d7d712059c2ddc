"""Opening a store of 200,000 sequences in 2,667 commits: with its index at hand, and rebuilt from the commits.

The records are written by ``commit_task``, with rows of a few bytes: opening a store touches no shard. Files are in
the page cache. ``index at hand`` is shown without and with the first look-up of a batch of 64 keys, for what opening
puts off must be paid there. ``a quarter is newer`` is a store that another process is still building. The CPU time
beside each figure is what other work on the machine adds less to.

Expected from a prototype: 2.1 ms, and 125 ms rebuilt. Measured on 2 shared cores at load 2: 2.5 ms and 92 ms.

    python benchmarks/bench_open.py [--sequences 200000] [--tasks 2667] [--repeats 21] [--json]
"""

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from random_store import random_spec, spread
from report import Result, add_json_option, report

from embedcache.store import EmbeddingStore, commit_task, create_store, write_index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=200_000)
    parser.add_argument("--tasks", type=int, default=2667)
    parser.add_argument("--repeats", type=int, default=21)
    add_json_option(parser)
    options = parser.parse_args()
    keys = [hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in range(options.sequences)]
    with tempfile.TemporaryDirectory() as directory:
        root, index = Path(directory, "store"), Path(directory, "store", "index.npy")
        behind = write_records(root, keys, options.tasks)
        batch = keys[:: len(keys) // 64][:64]
        results = [
            measure(
                f"opening {len(keys):,} sequences, index at hand, ms", lambda: open_store(root), options.repeats, 20, 5
            ),
            measure("opening, and the first 64 keys, ms", lambda: open_store(root).find(batch), options.repeats),
        ]
        shutil.copy(behind, index)
        title = "opening, a quarter is newer than the index, ms"
        results.append(measure(title, lambda: open_store(root), options.repeats))
        index.unlink()
        title = "opening, rebuilt from the commits, ms"
        results.append(measure(title, lambda: open_store(root), options.repeats, 400, 150))
        assert (open_store(root).find(keys) >= 0).all()
    report(results, options.json)


def write_records(root: Path, keys: list[bytes], n_tasks: int) -> Path:
    """Commit all keys; returns a copy of the index from when three quarters were there."""
    create_store(root, random_spec(4))
    rng, behind = np.random.default_rng(0), root.parent / "behind.npy"
    for i, part in enumerate(np.array_split(np.arange(len(keys)), n_tasks)):
        commit_task(root, [(keys[j], np.zeros((rng.integers(1, 9), 4), np.float16)) for j in part])
        if i == n_tasks * 3 // 4:
            write_index(root)
            shutil.copy(root / "index.npy", behind)
    write_index(root)
    return behind


def open_store(root: Path) -> EmbeddingStore:
    return EmbeddingStore(root)


def measure(
    what: str, call: Callable[[], object], repeats: int, bar: float | None = None, moonshot: float | None = None
) -> Result:
    call()
    wall, cpu = list[float](), list[float]()
    for _ in range(repeats):
        started, began = time.perf_counter(), time.process_time()
        call()
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - began))
    note = f"{spread(wall)}; CPU {statistics.median(cpu):.3g}"
    return Result(what, statistics.median(wall), bar, moonshot, better="lower", note=note)


if __name__ == "__main__":
    main()
