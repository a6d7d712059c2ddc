"""Wall time of ``build_cache`` over the wall time of the bare forward passes on the same packs.

Everything that is not the network counts against the build: planning, tokenising, rounding, checksums, writing and
flushing shards. Imports and loading the model are left out of both. The two run in turn and the median ratio is
printed. Aim: 1.05.

    python benchmarks/bench_build.py [--encoder esm2-8m] [--sequences 300] [--rounds 5] [--threads 1]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from embedcache.build import build_cache
from embedcache.encoders.registry import card, load_encoder
from embedcache.sequences import SequenceRecord

LETTERS = {"protein": "ACDEFGHIKLMNPQRSTVWY", "rna": "ACGT", "dna": "ACGT"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="esm2-8m")
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = card(options.encoder)
    modality = found.modalities[0]
    encoder = load_encoder(options.encoder, modality, random_init=None if found.weights else 0)
    records = make_records(modality, options.sequences)
    packs = record_packs(encoder, records, options.tokens_per_batch)
    ratios, builds = [], []
    for _ in range(options.rounds):
        bare = time_bare(encoder, packs)
        builds.append(time_build(encoder, records, options.tokens_per_batch))
        ratios.append(builds[-1] / bare)
    tokens = sum(encoder.spec.n_tokens(record.sequence) for record in records)
    print(f"{encoder.spec.name}, {len(records)} sequences, {tokens:,} tokens, {options.threads} thread(s), cpu")
    print(f"build: {statistics.median(builds):.2f} s, {tokens / statistics.median(builds):,.0f} tokens a second")
    shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    print(f"build / bare forward passes: median {statistics.median(ratios):.3f} of {shown}; aim 1.05")


def make_records(modality, n: int) -> list[SequenceRecord]:
    """Random sequences with the lengths of proteins or transcripts: log-normal, 50 to 1,000 tokens."""
    rng = np.random.default_rng(0)
    factor = 1 if modality == "protein" else 6
    lengths = np.clip(rng.lognormal(5.6, 0.6, n), 50, 1000).astype(int) * factor
    letters = np.array(list(LETTERS[modality]))
    return [SequenceRecord(f"s{i}", "".join(rng.choice(letters, length)), modality) for i, length in enumerate(lengths)]


def record_packs(encoder, records, tokens_per_batch: int) -> list:
    """Token ids of every forward pass that the build makes."""
    packs, forward = [], encoder._forward

    def spy(ids):
        packs.append(ids)
        return forward(ids)

    encoder._forward = spy
    time_build(encoder, records, tokens_per_batch)
    encoder._forward = forward
    return packs


def time_build(encoder, records, tokens_per_batch: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        build_cache(records, encoder, Path(directory, "store"), tokens_per_batch=tokens_per_batch)
        return time.perf_counter() - started


@torch.inference_mode()
def time_bare(encoder, packs) -> float:
    started = time.perf_counter()
    for ids in packs:
        encoder._forward(ids)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
