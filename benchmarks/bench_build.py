"""Wall time of a build over the wall time of the bare forward passes on the same packs.

Everything that is not the network counts against the build: planning, tokenising, rounding, checksums, writing and
flushing shards. Imports, loading the model and its self-test, which come once a process, are left out of both; the
self-test has a row of its own. Bare passes run before and after each build, so
that a busy minute hits both, and the median of the ratios is printed; that of CPU seconds too, which other work on the
machine disturbs less.

    python benchmarks/bench_build.py [--encoder esm2-8m] [--sequences 300] [--rounds 5] [--threads 1] [--json]
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from report import Result, add_json_option, report

from embedcache.build import build_products
from embedcache.encoders.registry import card, load_encoder
from embedcache.encoders.selftest import check_encoder
from embedcache.products import Product
from embedcache.sequences import SequenceRecord

LETTERS = {"protein": "ACDEFGHIKLMNPQRSTVWY", "rna": "ACGT", "dna": "ACGT"}
BAR, MOONSHOT = 1.05, 1.01


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    found = card(options.encoder)
    modality = found.modalities[0]
    encoder = load_encoder(
        options.encoder, modality, random_init=None if found.weights else 0, dtype=options.dtype, device=options.device
    )
    records = make_records(modality, options.sequences)
    packs = record_packs(encoder, records, options.tokens_per_batch)
    bare, builds = [time_bare(encoder, packs)], []
    for _ in range(options.rounds):
        builds.append(time_build(encoder, records, options.tokens_per_batch))
        bare.append(time_bare(encoder, packs))
    tokens, seconds = (
        sum(encoder.spec.n_tokens(one.sequence) for one in records),
        statistics.median(one[0] for one in builds),
    )
    print(
        f"{encoder.spec.name} in {options.dtype} on {options.device}, {options.threads} thread(s), {len(packs)} packs"
    )
    print(
        f"{len(records)} sequences, {tokens:,} tokens, build {seconds:.2f} s: {tokens / seconds:,.0f} tokens a second"
    )
    results = []
    for k, (what, *aims) in enumerate((("wall time", BAR, MOONSHOT), ("CPU time", None, None))):
        ratios = [2 * one[k] / (a[k] + b[k]) for one, a, b in zip(builds, bare[:-1], bare[1:], strict=True)]
        note = f"{min(ratios):.3f} to {max(ratios):.3f}"
        name = f"build over bare packed forward passes, {what}, {options.encoder} {options.dtype}"
        results.append(Result(name, statistics.median(ratios), *aims, better="lower", note=note))
    started = time.perf_counter()
    check_encoder(encoder)
    what = f"self-test, once a process, {options.encoder} {options.dtype}, s"
    results.append(Result(what, time.perf_counter() - started, better="lower"))
    report(results, options.json)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="esm2-8m")
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    add_json_option(parser)
    return parser.parse_args()


def make_records(modality, n: int) -> list[SequenceRecord]:
    """Random sequences with the lengths of proteins or transcripts: log-normal, 50 to 1,000 tokens."""
    rng = np.random.default_rng(0)
    factor = 1 if modality == "protein" else 6
    lengths = np.clip(rng.lognormal(5.6, 0.6, n), 50, 1000).astype(int) * factor
    letters = np.array(list(LETTERS[modality]))
    return [SequenceRecord(f"s{i}", "".join(rng.choice(letters, length)), modality) for i, length in enumerate(lengths)]


def record_packs(encoder, records, tokens_per_batch: int) -> list:
    """Inputs of every forward pass that the build makes."""
    packs, network = [], encoder.network

    def spy(model, inputs, layers):
        packs.append((inputs, layers))
        return network.run(model, inputs, layers)

    encoder.network = replace(network, run=spy)
    time_build(encoder, records, tokens_per_batch)
    encoder.network = network
    computed = sum(inputs["input_ids"].numel() for inputs, _ in packs)
    special = (encoder.vocabulary.before is not None) + (encoder.vocabulary.after is not None)
    assert computed == sum(encoder.spec.n_tokens(one.sequence) + special for one in records), "not the passes of all"
    return packs


def time_build(encoder, records, tokens_per_batch: int) -> tuple[float, float]:
    """Seconds on the wall, and of the CPU."""
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter(), time.process_time()
        product = Product(encoder.spec, Path(directory, "store"))
        build_products(records, encoder, [product], tokens_per_batch=tokens_per_batch)
        return time.perf_counter() - started[0], time.process_time() - started[1]


@torch.inference_mode()
def time_bare(encoder, packs) -> tuple[float, float]:
    """As ``time_build``, for the network alone."""
    started = time.perf_counter(), time.process_time()
    for inputs, layers in packs:
        encoder.network.run(encoder.model, inputs, layers)
    if encoder.model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started[0], time.process_time() - started[1]


if __name__ == "__main__":
    main()
