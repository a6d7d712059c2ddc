"""What a fine-tuning step costs over the encoder alone, and what an inner store saves.

Proteins are encoded live by an ESM-2 shape with drawn weights; RNA and DNA come from the cache. A step is that of
``heads train --finetune protein``: tokens, cross-attention head, loss, backward pass, both optimisers. It is held
against forward and backward pass of the encoder over the same proteins, without any head or optimiser.

Then ``last:4`` of a deep shape: from a store of the layer below, over the same with the blocks below run in every step.
Their losses are compared after two steps. Rounds take turns, the best of each counts; CPU seconds on one thread.

    python benchmarks/bench_finetune.py [--encoder esm2-8m] [--deep esm2-150m] [--batch-size 16] [--rounds 3] [--json]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from random_study import Shape, Study, make_study
from report import Result, add_json_option, report

from embedcache.build import build_cache
from embedcache.dataset import read_dataset
from embedcache.encoders.registry import load_encoder
from embedcache.sequences import SequenceRecord
from embedcache.store import store_path
from heads.config import ModelConfig, TrainConfig
from heads.data import Batch
from heads.finetune.config import FinetuneConfig
from heads.finetune.run import TunedRun
from heads.finetune.setup import Start, open_tuned
from heads.setup import open_study

CACHED = {"dna": Shape(96, 256), "rna": Shape(400, 256)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="esm2-8m")
    parser.add_argument("--deep", default="esm2-150m")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300, help="residues of a protein, mean")
    parser.add_argument("--deep-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        report(
            [step_cost(Path(directory) / "whole", options), *inner_gain(Path(directory) / "deep", options)],
            options.json,
        )


def step_cost(folder: Path, options: argparse.Namespace) -> Result:
    """A step of fine-tuning over forward and backward pass of its encoder."""
    study = build(folder, options.encoder, 2 * options.batch_size, options.tokens)
    run, batch = opened(study, options.encoder, "full", options.batch_size)
    proteins = [run.live["protein"].sequences[i] for i in np.unique(run.live["protein"].which[batch.rows.numpy()])]
    encoder = run.encoders["protein"]

    def alone() -> None:
        encoder.embed(proteins).values.square().mean().backward()
        for one in encoder.trained.values():
            one.grad = None

    step, other = best(options.rounds, lambda: take_step(run, batch), alone)
    note = (
        f"{step:.2f} s over {other:.2f} s; {options.encoder}, {sum(map(len, proteins)):,} residues, RNA and DNA cached"
    )
    return Result("a fine-tuning step over the encoder's own passes", step / other, 1.1, better="lower", note=note)


def inner_gain(folder: Path, options: argparse.Namespace) -> list[Result]:
    """``last:4`` with all blocks live over the same from a store of the layer below."""
    study = build(folder, options.deep, 2 * options.deep_batch, options.tokens)
    live, batch = opened(study, options.deep, "last:4", options.deep_batch)
    done = (live.encoders["protein"].n_blocks or 0) - 4
    build_store(study, options.deep, layer=done, keep_special=True)
    inner, other_batch = opened(study, options.deep, "last:4", options.deep_batch)
    assert inner.inner and not live.inner
    losses = []
    for run, one in ((live, batch), (inner, other_batch)):
        found = []
        for _ in range(2):
            before = run._loss[0].item()
            take_step(run, one)
            found.append(run._loss[0].item() - before)
        losses.append(found)
    slow, fast = best(options.rounds, lambda: take_step(live, batch), lambda: take_step(inner, other_batch))
    note = f"{slow:.2f} s over {fast:.2f} s; {options.deep}, {options.deep_batch} proteins, RNA and DNA cached"
    apart = float(np.abs(np.subtract(*losses) / losses[0]).max())
    return [
        Result("last:4 with the bottom run live over last:4 from an inner store", slow / fast, 2.0, note=note),
        Result("largest relative difference of their losses in two steps", apart, 1e-5, better="lower"),
    ]


def build(folder: Path, encoder: str, n_rows: int, tokens: int) -> Study:
    """Stores of random numbers for DNA and RNA, and of the encoder for proteins."""
    study = make_study(folder, 4 * n_rows, {**CACHED, "protein": Shape(tokens, 8)})
    build_store(study, encoder)
    return study


def build_store(study: Study, name: str, **options: Any) -> None:
    encoder = load_encoder(name, "protein", random_init=0, store_dtype="float32", **options)
    records = [
        SequenceRecord(key.hex(), one, "protein") for key, one in read_dataset(study.dataset).sequences("protein")
    ]
    build_cache(records, encoder, store_path(study.cache, encoder.spec))


def opened(study: Study, encoder: str, method: str, batch_size: int) -> tuple[TunedRun, Batch]:
    """A run before its first step, and its first batch."""
    model = ModelConfig(modalities=("dna", "rna", "protein"), width=64, heads=4)
    config = TrainConfig(batch_size=batch_size, device="cpu", max_tokens_per_batch=None)
    encoders: Any = {"dna": "random", "rna": "random", "protein": f"{encoder}-random0"}
    frozen = open_study(study.dataset, study.cache, model, encoders)
    start = Start(finetune=FinetuneConfig(modalities=("protein",), method=method))
    run, tuned = open_tuned(model, config, study=frozen, device=torch.device("cpu"), start=start)
    (batch,) = tuned.data.batches([tuned.rows["train"][:batch_size]], reads=run.reads)
    kept = {name: one._replace(values=one.values.clone()) for name, one in batch.tokens.items()}
    return run, replace(batch, tokens=kept)


def take_step(run: TunedRun, batch: Batch) -> None:
    run.accumulate(batch, int(batch.measured.sum()))
    run.update()


def best(rounds: int, *functions: Callable[[], None]) -> list[float]:
    """CPU seconds of each, the best of some rounds in turns."""
    found = [float("inf")] * len(functions)
    for function in functions:
        function()
    for _ in range(rounds):
        for i, function in enumerate(functions):
            started = time.process_time()
            function()
            found[i] = min(found[i], time.process_time() - started)
    return found


if __name__ == "__main__":
    main()
