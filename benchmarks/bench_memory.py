"""Memory of a build and of a reader against the size of the cache, 1x and 4x: both should be flat.

Each figure is the peak of a process of its own. The build embeds random sequences with an encoder that costs nothing,
so that the writer is always behind. The reader goes through the whole store with ``prefetch``. Its own memory is
``RssAnon``; the pages of the mapped shards come on top of it in ``VmRSS``, but they are the page cache, which the
kernel takes back when it needs the room. They are shown too: giving them back ourselves would keep ``VmRSS`` flat,
and was measured to make a warm batch take 80 % longer, for its pages are mapped again each time.

Expected: flat, at what two shards, a batch and the imports take. Measured: 380 to 396 MB of a build and 342 to 349 MB
of a reader (of which a ring of three batches 200 MB), 778 to 1,955 MB with mapped pages.

    python benchmarks/bench_memory.py [--megabytes 400] [--times 4] [--width 640] [--json]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from random_store import FreeEncoder, random_records
from report import Result, add_json_option, report

from embedcache.build import build_cache
from embedcache.store import EmbeddingStore

BATCH = 64
FLAT = 1.1
"""Largest ratio of peaks, 4x over 1x, that counts as flat."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        work, store = options.child
        print((build if work == "build" else read)(store, options.megabytes, options.width))
        return
    with tempfile.TemporaryDirectory() as directory:
        report(compare(Path(directory), options), options.json)


def compare(directory: Path, options: argparse.Namespace) -> list[Result]:
    peaks: dict[str, list[float]] = {"build": [], "reader (its own)": [], "reader with its mapped pages": []}
    sizes = [options.megabytes, options.megabytes * options.times]
    for size in sizes:
        store = str(directory / str(size))
        peaks["build"] += run_child("build", store, size, options.width)
        own, mapped = run_child("read", store, size, options.width)
        peaks["reader (its own)"].append(own)
        peaks["reader with its mapped pages"].append(mapped)
    results = []
    for name, (small, large) in peaks.items():
        what = f"peak memory of a {name}, cache of {sizes[1]:,} MB over {sizes[0]:,} MB"
        bar = None if "mapped" in name else FLAT
        results.append(Result(what, large / small, bar, better="lower", note=f"{small:.0f} to {large:.0f} MB"))
    return results


def run_child(work: str, store: str, megabytes: int, width: int) -> list[float]:
    """Peaks of a fresh process in MB."""
    arguments = ["--child", work, store, "--megabytes", str(megabytes), "--width", str(width)]
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.split()[-1].split(",")]


def build(store: str, megabytes: int, width: int) -> str:
    build_cache(random_records(megabytes, width), FreeEncoder(width), store)
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}"


def read(name: str, megabytes: int, width: int) -> str:
    store = EmbeddingStore(name)
    order = np.random.default_rng(0).permutation(len(store))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    with Watch() as watch:
        total = sum(len(ragged.values) for ragged in store.prefetch(batches))
    assert total == store.n_tokens
    return f"{watch.peaks['RssAnon']},{watch.peaks['VmRSS']}"


class Watch:
    """Peaks in MB of what ``/proc/self/status`` says, looked at every 5 ms."""

    def __init__(self) -> None:
        self.peaks = {"RssAnon": 0.0, "VmRSS": 0.0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peaks:
                    self.peaks[name] = max(self.peaks[name], int(value.split()[0]) / 1e3)
            time.sleep(0.005)


if __name__ == "__main__":
    main()
