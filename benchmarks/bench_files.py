"""Files and folders of 100 GB of embeddings, counted in stores that ``build_cache`` made.

Two stores of the same kind, one twice as large, are built with an encoder that costs nothing. What the larger one has
more than the smaller is what more embeddings cost; the rest (metadata, the index, leases) is there once. A shard of
64 MiB is a file in a folder of its own, as Zarr wants it, and has a commit record: 1,490 of each is the least there can
be for 100 GB, and 2,980 files; shards of 256 MiB would give 750, for four times the memory of a build.

Expected: 3,300 files, for shards hold whole sequences and the last of a task is never quite full.

    python benchmarks/bench_files.py [--megabytes 1500] [--width 640] [--json]
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from random_store import FreeEncoder, files_below, random_records
from report import Result, add_json_option, report

from embedcache.build import build_cache
from embedcache.store import EmbeddingStore

TARGET_BYTES = 100e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1500, help="size of the larger store")
    parser.add_argument("--width", type=int, default=640)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        small, large = (
            count(Path(directory), size, options.width) for size in (options.megabytes / 2, options.megabytes)
        )
    share = (TARGET_BYTES - large["bytes"]) / (large["bytes"] - small["bytes"])
    at_target = {kind: round(found + share * (found - small[kind])) for kind, found in large.items()}
    print(", ".join(f"{found:,} {kind}" for kind, found in large.items()))
    note = f"{at_target['shards']:,} shards, {at_target['records']:,} records"
    what = f"100 GB of embeddings, width {options.width}"
    report(
        [
            Result(f"files for {what}", at_target["files"], 3500, 800, better="lower", note=note),
            Result(f"folders for {what}", at_target["folders"], better="lower"),
        ],
        options.json,
    )


def count(directory: Path, megabytes: float, width: int) -> dict[str, int]:
    """Files of each kind in a new store, and the bytes of its embeddings."""
    root = directory / f"{megabytes:.0f}"
    build_cache(random_records(round(megabytes), width), FreeEncoder(width), root)
    files = files_below(root)
    return {
        "files": len(files),
        "shards": sum(path.parent.parent.name == "c" for path in files),
        "records": sum(path.parent.name == "commits" for path in files),
        "folders": sum(path.is_dir() for path in root.rglob("*")),
        "bytes": EmbeddingStore(root).n_tokens * width * 2,
    }


if __name__ == "__main__":
    main()
