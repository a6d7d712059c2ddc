"""Builds killed with SIGKILL at random moments, then finished: nothing torn, nothing lost, the same bytes.

Each round starts two builds of one store, waits for a random time after their encoders are loaded, kills both and
reads every committed sequence again: its checksum, and its bytes against an undisturbed build.

    python benchmarks/kill_builds.py [--kills 50] [--encoder tiny-random-protein] [--sequences 6000]
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from bench_build import make_records

from embedcache.build import build_cache
from embedcache.encoders.registry import card, load_encoder
from embedcache.store import EmbeddingStore

SHARD_BYTES = 1 << 20  # many shards, so that a kill falls into every part of a commit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--encoder", default="tiny-random-protein")
    parser.add_argument("--sequences", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        encoder, records = prepare(options)
        print("ready", flush=True)
        build_cache(records, encoder, Path(options.child), shard_bytes=SHARD_BYTES)
        print("done", flush=True)
        return
    with tempfile.TemporaryDirectory() as directory:
        drill(Path(directory), options)


def prepare(options: argparse.Namespace):
    """What takes time before the first sequence is embedded."""
    found = card(options.encoder)
    encoder = load_encoder(options.encoder, found.modalities[0], random_init=None if found.weights else 0)
    return encoder, make_records(found.modalities[0], options.sequences)


def drill(directory: Path, options: argparse.Namespace) -> None:
    encoder, records = prepare(options)
    seconds = build_cache(records, encoder, directory / "undisturbed", shard_bytes=SHARD_BYTES).seconds
    whole = EmbeddingStore(directory / "undisturbed")
    print(f"undisturbed: {len(whole):,} sequences, {whole.n_tokens:,} tokens, {seconds:.1f} s", flush=True)
    rng, killed, committed, advanced = random.Random(options.seed), 0, 0, 0
    store = directory / "killed"
    while killed < options.kills:
        builds = [start(store, options) for _ in range(2)]
        for process in builds:
            wait_until_ready(process)
        time.sleep(rng.uniform(0, seconds / 2))
        for process in builds:
            killed += process.poll() is None
            process.kill()
            process.wait()
        before, committed = committed, check(store, whole)
        assert committed >= before, "a committed sequence was lost"
        advanced += committed > before
        print(f"{killed} kills: {committed:,} sequences committed, all right", flush=True)
        if committed == len(whole):
            store, committed = directory / f"killed{killed}", 0  # finished between kills: on with a new store
    assert advanced > options.kills / 8, "most kills came before anything was written: they show nothing"
    process = start(store, options)
    wait_until_ready(process)
    out, _ = process.communicate()
    assert process.returncode == 0 and "done" in out
    assert check(store, whole) == len(whole)
    orphans = len(list((store / "tokens" / "c").glob("*"))) - len(np.unique(EmbeddingStore(store)._entries["shard"]))
    print(
        f"finished: {len(whole):,} of {len(whole):,} sequences equal to the undisturbed build; {orphans} orphan shards"
    )


def start(store: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    arguments = ["--encoder", options.encoder, "--sequences", options.sequences, "--child", store]
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stdout.readline() == "ready\n"


def check(path: Path, whole: EmbeddingStore) -> int:
    """Number of committed sequences, every one of them read and compared."""
    if not (path / "zarr.json").exists():
        return 0
    store = EmbeddingStore(path)
    assert store.damaged() == []
    assert all(store[key].tobytes() == whole[key].tobytes() for key in store)
    return len(store)


if __name__ == "__main__":
    main()
