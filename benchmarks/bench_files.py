"""Files and folders of 100 GB of embeddings, from those of a store that ``build_cache`` made.

The store is built with an encoder that costs nothing. Its shards are counted, and how full they are but the last; what
is there once (metadata, the index, leases) is added. A shard of 64 MiB is a file in a folder of its own, as Zarr wants
it, and has a commit record: 1,490 of each is the least there can be for 100 GB, and 2,980 files; shards of 256 MiB
would give 750 for four times the memory of a build, and four times the work that a kill can cost.

Expected: a little over 2,980 files, for shards hold whole sequences. Measured: 3,029.

    python benchmarks/bench_files.py [--megabytes 1500] [--width 640] [--json]
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from random_store import FreeEncoder, files_below, random_records
from report import Result, add_json_option, report

from embedcache.build import build_cache
from embedcache.store import EmbeddingStore

TARGET_BYTES = 100e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--width", type=int, default=640)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "store")
        build_cache(random_records(options.megabytes, options.width), FreeEncoder(options.width), root)
        report(count(root), options.json)


def count(root: Path) -> list[Result]:
    store = EmbeddingStore(root)
    places = np.array(list(store._places(np.arange(len(store)))))
    shard_bytes = np.bincount(places[:, 0], places[:, 2]) * store.layout.row_bytes
    files = [path.relative_to(root).parts for path in files_below(root)]
    shards = sum(parts[:2] == ("tokens", "c") for parts in files)
    records = sum(parts[0] == "commits" for parts in files)
    folders = sum(path.is_dir() for path in root.rglob("*"))
    assert shards == len(shard_bytes), "a shard without sequences, or without a file"
    full = float(np.sort(shard_bytes)[1:].mean())  # the last task had fewer sequences
    times = TARGET_BYTES / full / shards
    others = len(files) - shards - records
    print(f"{len(files)} files: {shards} shards of {full / 2**20:.1f} MiB, {records} records, {others} others")
    what = f"100 GB of embeddings, width {store.width}"
    note = f"{shards * times:,.0f} shards, {records * times:,.0f} records"
    n_files, n_folders = round((shards + records) * times + others), round(shards * times + folders - shards)
    return [
        Result(f"files for {what}", n_files, 3500, 800, better="lower", note=note),
        Result(f"folders for {what}", n_folders, better="lower"),
    ]


if __name__ == "__main__":
    main()
