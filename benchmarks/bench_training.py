"""What training from a cache costs over training without one to read, over running the encoders, and in memory.

step     steps that read the cache over the same steps on float32 batches that lie in memory, warm; they take turns, and
         CPU seconds are compared, those of the thread that reads ahead included
epoch    an epoch from the cache over one that runs ESM2-150M and NT-v2-250M (random weights) on every transcript; the
         encoders are timed on a few sequences and counted for all, each distinct sequence once
memory   peak of a training's own memory, cache 4x over 1x, each in a process of its own

The study has an RNA of 6-mers and a protein a transcript. Cross-attention projects to --width; "paper" keeps the
widths of the encoders. One thread.

    python benchmarks/bench_training.py [--parts step,epoch,memory] [--transcripts 600] [--rounds 7] [--json]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from bench_memory import Watch
from random_study import LETTERS, Shape, Study, make_study, size_megabytes
from report import Result, add_json_option, report

from embedcache.encoders.registry import load_encoder
from embedcache.sequences import Modality
from heads import setup
from heads.config import ModelConfig, TrainConfig
from heads.data import Batch, Rows, epoch_steps
from heads.run import Run

SHAPES: dict[Modality, Shape] = {"rna": Shape(500, 768), "protein": Shape(300, 640)}
ENCODERS: dict[Modality, str] = {"rna": "nt-v2-250m", "protein": "esm2-150m"}
NARROW: dict[Modality, Shape] = {"rna": Shape(500, 256), "protein": Shape(300, 320)}
N_READ = 64
"""Rows of tokens that training reads at a time."""
FLAT = 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="step,epoch,memory")
    parser.add_argument("--transcripts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--steps",
        type=int,
        default=6,
        help="steps a round of cross-attention, an epoch has six; of concat 25 times as many",
    )
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=3, help="that the encoders are timed on")
    parser.add_argument("--times", type=int, default=4, help="how much larger the larger cache is")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        print(peak(Study(Path(options.child[0]) / "dataset", Path(options.child[0]) / "cache"), options.child[1]))
        return
    parts = options.parts.split(",")
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as directory:
        if "step" in parts or "epoch" in parts:
            study = make_study(Path(directory) / "study", options.transcripts, SHAPES)
            print(f"cache of {size_megabytes(study.cache):,.0f} MB, {options.transcripts} transcripts")
            results += against_others(study, options, parts)
        if "memory" in parts:
            results += memory(Path(directory), options.transcripts, options.times)
    report(results, options.json)


def models(width: int) -> dict[str, ModelConfig]:
    chosen: tuple[Modality, ...] = ("rna", "protein")
    return {
        "concat": ModelConfig(modalities=chosen, aggregator="concat"),
        f"cross-attention, width {width}": ModelConfig(modalities=chosen, width=width),
        "cross-attention, paper": ModelConfig(modalities=chosen),
    }


def against_others(study: Study, options: argparse.Namespace, parts: list[str]) -> Iterator[Result]:
    """Steps over steps in memory, epochs over epochs of encoders."""
    seconds_a_transcript = encoders(options.sequences) if "epoch" in parts else 0.0
    for name, model in models(options.width).items():
        opened = setup.open_study(study.dataset, study.cache, model)
        config = TrainConfig(device="cpu")
        run = Run(model, config, study=opened, device=torch.device("cpu"))
        is_paper = name.endswith("paper")  # half a minute a step
        n_steps, rounds = (1, 1) if is_paper else (options.steps, options.rounds)
        n_steps *= 25 if run.reads != "tokens" else 1
        steps = [
            step
            for epoch in range(50)
            for step in epoch_steps(opened.rows["train"], config, epoch, opened.data.lengths)
        ]
        steps = [step for step in steps if len(step) == config.batch_size][:n_steps]
        started = time.perf_counter()
        ready = [list(opened.data.batches(one, reads=run.reads)) for one in read_together(steps, run)]
        ready = [[copied(batch) for batch in step] for step in ready]
        first_pass = time.perf_counter() - started if run.reads != "tokens" else 0.0
        cached, in_memory, cpu = [], [], []
        for i in range(rounds + 1):
            taken = {}
            for kind in ("cached", "memory") if i % 2 else ("memory", "cached"):
                batches = from_cache(opened, steps, run) if kind == "cached" else iter(ready)
                taken[kind] = train(run, batches)
            if i:  # the first is for warming up
                cached.append(taken["cached"][0])
                in_memory.append(taken["memory"][0])
                cpu.append(taken["cached"][1] / taken["memory"][1])
        rows = sum(map(len, steps))
        if "step" in parts:
            yield step_result(name, cached, in_memory, cpu, steps=len(steps))
        if "epoch" in parts:
            yield epoch_result(
                name, statistics.median(cached) / rows, seconds_a_transcript, first_pass / options.transcripts
            )


def read_together(steps: list[Rows], run: Run) -> list[list[Rows]]:
    """Rows of each step as training reads them."""
    if run.reads != "tokens":
        return [[step] for step in steps]
    return [[step[i : i + N_READ] for i in range(0, len(step), N_READ)] for step in steps]


def from_cache(opened: setup.Study, steps: list[Rows], run: Run) -> Iterator[list[Batch]]:
    """Batches of each step, read ahead."""
    together = read_together(steps, run)
    batches = opened.data.batches([part for step in together for part in step], reads=run.reads)
    for step in together:
        yield [next(batches) for _ in step]


def copied(batch: Batch) -> Batch:
    """A batch that stays: the numbers of the reader lie in memory that is used again."""
    tokens = {name: part._replace(values=part.values.clone()) for name, part in batch.tokens.items()}
    return Batch(tokens=tokens, lengths=batch.lengths, targets=batch.targets, measured=batch.measured, rows=batch.rows)


def train(run: Run, steps: Iterator[list[Batch]]) -> tuple[float, float]:
    """Wall and CPU seconds of steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    for batches in steps:
        n_cells = sum(int(batch.measured.sum()) for batch in batches)
        for batch in batches:
            run.accumulate(batch, n_cells)
        run.update()
    return time.perf_counter() - wall, time.process_time() - cpu


def step_result(name: str, cached: list[float], in_memory: list[float], cpu: list[float], steps: int) -> Result:
    """CPU seconds are judged: the thread that reads ahead counts in full, and other work on the machine less."""
    ratios = [one / other for one, other in zip(cached, in_memory, strict=True)]
    note = f"CPU seconds, {min(cpu):.3f} to {max(cpu):.3f} of {len(cpu)}; wall {statistics.median(ratios):.3f}, "
    note += f"{min(ratios):.3f} to {max(ratios):.3f}; {1000 * min(in_memory) / steps:,.1f} ms in memory"
    what = f"step from cache over step in memory, {name}"
    return Result(what, statistics.median(cpu), 1.15, 1.03, "lower", note)


def epoch_result(name: str, seconds: float, encoders: float, once: float) -> Result:
    note = f"1/{encoders / seconds:,.0f}: {1000 * seconds:,.2f} ms a transcript over {encoders:,.2f} s"
    if once:
        note += f"; first epoch 1/{encoders / (seconds + once):,.0f}, for it reads all tokens once"
    what = f"epoch from cache over epoch with encoders, {name}"
    is_paper = name.endswith("paper")  # not the head of a table that has a bar, but what its widths cost
    return Result(what, seconds / encoders, None if is_paper else 0.01, None if is_paper else 0.001, "lower", note)


def encoders(n_sequences: int) -> float:
    """Seconds that the encoders take for a transcript."""
    rng, total = np.random.default_rng(0), 0.0
    for modality, name in ENCODERS.items():
        encoder = load_encoder(name, modality, random_init=0)
        letters = SHAPES[modality].tokens * (6 if modality == "rna" else 1)
        drawn = ["".join(rng.choice(list(LETTERS[modality]), letters)) for _ in range(n_sequences + 1)]
        seconds = [clocked(lambda one=one, encoder=encoder: encoder.encode([one])) for one in drawn][1:]
        print(f"{name}: {statistics.median(seconds):.2f} s a sequence of {SHAPES[modality].tokens} tokens", flush=True)
        total += statistics.median(seconds)
        del encoder
    return total


def clocked(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def memory(directory: Path, n_transcripts: int, times: int) -> Iterator[Result]:
    """Peaks of trainings that read tokens, and means."""
    places = {n: directory / f"memory{n}" for n in (n_transcripts, n_transcripts * times)}
    sizes = {n: size_megabytes(make_study(place, n, NARROW).cache) for n, place in places.items()}
    small, large = places
    for pooling in ("attention", "mean"):
        peaks = {}
        for n, place in places.items():
            command = [sys.executable, __file__, "--child", str(place), pooling]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[n] = float(done.stdout.split()[-1])
        reads = "tokens" if pooling == "attention" else "means"
        what = f"memory of training on {reads}, cache of {sizes[large]:,.0f} MB over {sizes[small]:,.0f} MB"
        note = f"{peaks[small]:,.0f} to {peaks[large]:,.0f} MB"
        yield Result(what, peaks[large] / peaks[small], FLAT, better="lower", note=note)


def peak(study: Study, pooling: str) -> float:
    """MB of this process's own memory in a training of two epochs."""
    from heads.train import train as train_run

    model = ModelConfig(modalities=("rna", "protein"), aggregator="concat", pooling=pooling, hidden=64)  # type: ignore[arg-type]
    with Watch() as watch, tempfile.TemporaryDirectory() as directory:
        train_run(
            dataset=study.dataset, cache=study.cache, run=Path(directory) / "run", model=model,
            config=TrainConfig(epochs=2, device="cpu"),
        )  # fmt: skip
    return watch.peaks["RssAnon"]


if __name__ == "__main__":
    main()
