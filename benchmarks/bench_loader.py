"""A torch DataLoader on a store over the store's own ``prefetch``: random batches of 64 sequences, warm.

All read the same batches. A worker hands a batch over in shared memory, which costs pages that nobody used before, in
both processes; ``prefetch`` reads into memory that is reused. The time to start the workers is left out: the
first batches of each epoch are not counted.

    python benchmarks/bench_loader.py [--width 640] [--megabytes 500] [--batches 80] [--json]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from random_store import draw_lengths, spread, write_store
from report import Result, add_json_option, report
from torch.utils.data import DataLoader

from embedcache.ragged import Ragged
from embedcache.store import EmbeddingStore
from embedcache.torch_dataset import EmbeddingDataset, collate

BATCH = 64
FIRST = 6  # batches that are not counted
ROUNDS = 3
OURS = "prefetch"
AHEAD = "EmbeddingDataset.batches"


class ItemByItem(torch.utils.data.Dataset):
    """What one would write by hand: a copy of one sequence an item."""

    def __init__(self, store: EmbeddingStore, keys: list[bytes]) -> None:
        self.store, self.keys = store, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(self.store[self.keys[i]].copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--batches", type=int, default=80)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        lengths = draw_lengths(options.megabytes * 10**6, options.width)
        write_store(Path(directory) / "store", Path(directory) / "flat", lengths, options.width)
        results = compare(EmbeddingStore(Path(directory) / "store"), options.batches)
    report(results, options.json)


def compare(store: EmbeddingStore, n_batches: int) -> list[Result]:
    rng = np.random.default_rng(1)
    batches = [rng.choice(len(store), BATCH, replace=False) for _ in range(n_batches)]
    for part in np.array_split(np.arange(len(store)), -(-len(store) // BATCH)):
        store.packed(part)  # all pages are in memory, and mapped
    megabytes = sum(int(store.lengths[batch].sum()) for batch in batches) * store.layout.row_bytes / 1e6
    print(f"{len(store)} sequences of width {store.width}; {n_batches} batches of {BATCH}, {megabytes:,.0f} MB")
    names = [
        OURS,
        AHEAD,
        *(f"{kind}, {n} workers" for kind in ("EmbeddingDataset", "an item a sequence") for n in (0, 2)),
    ]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS):
        for name in names[turn:] + names[:turn]:
            rates[name].append(measure(name, store, batches))
    results = [Result(f"{OURS}, width {store.width}, GB/s", statistics.median(rates[OURS]), note=spread(rates[OURS]))]
    for name in names[1:]:
        ratios = [one / ours for one, ours in zip(rates[name], rates[OURS], strict=True)]
        results.append(Result(f"rate of {name}, over {OURS}", statistics.median(ratios), note=spread(ratios)))
    return results


def measure(name: str, store: EmbeddingStore, batches: list[np.ndarray]) -> float:
    """GB/s of the batches after the first few."""
    size_bytes, started = 0, 0.0
    for i, tokens in enumerate(epoch(name, store, batches)):
        if i == FIRST - 1:
            started = time.perf_counter()
        elif i >= FIRST:
            size_bytes += tokens.values.nbytes
    return size_bytes / (time.perf_counter() - started) / 1e9


def epoch(name: str, store: EmbeddingStore, batches: list[np.ndarray]) -> Iterator[Ragged]:
    """The tokens of each batch."""
    if name == OURS:
        yield from store.prefetch(batches)
        return
    if name == AHEAD:
        parts = [batch.tolist() for batch in batches]
        yield from (batch.tokens[store.spec.modality] for batch in EmbeddingDataset(store, list(store)).batches(parts))
        return
    kind, _, workers = name.removesuffix(" workers").rpartition(", ")
    keys = list(store)
    options = {"batch_sampler": [batch.tolist() for batch in batches], "num_workers": int(workers)}
    if kind == "EmbeddingDataset":
        loader = DataLoader(EmbeddingDataset(store, keys), collate_fn=collate, **options)
        yield from (batch.tokens[store.spec.modality] for batch in loader)
    else:
        yield from DataLoader(ItemByItem(store, keys), collate_fn=Ragged.from_list, **options)


if __name__ == "__main__":
    main()
