"""What two processes hold and how long a step takes when they share the weights of an encoder out (``--shard``).

A step is that of ``heads train --finetune protein --method full`` on an ESM-2 shape with drawn weights, each process
with half of the batch: with whole weights in both, and with weights in parts, in turns, on a CPU over gloo. Held are
weights, gradients and Adam's averages. Expected: a half of the memory but for the embeddings of tokens, and a longer
step, for the weights of every block travel three times. Wall-clock seconds, the best of some rounds.

    python benchmarks/bench_shard.py [--encoder esm2-35m] [--batch-size 8] [--rounds 3] [--json]
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from bench_finetune import build
from random_study import Study
from report import Result, add_json_option, read_json, report

from heads.config import ModelConfig, TrainConfig
from heads.finetune.config import FinetuneConfig
from heads.finetune.run import TunedRun
from heads.finetune.setup import Start, open_tuned
from heads.setup import open_study
from heads.shards import local
from heads.team import find_team

PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="esm2-35m")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=300, help="residues of a protein, mean")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)  # given to the processes
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.study is not None:
        results = measure(Study(options.study / "dataset", options.study / "cache"), options)
        if results:
            report(results, as_json=True)
        return
    with tempfile.TemporaryDirectory() as directory:
        build(Path(directory), options.encoder, 2 * options.batch_size, options.tokens)
        report(started(Path(directory)), options.json)


def started(folder: Path) -> list[Result]:
    """The results of the first of the processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, __file__, *sys.argv[1:], "--study", str(folder)]
    workers = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, text=True,
        )
        for rank in range(PROCESSES)
    ]  # fmt: skip
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("a process failed")
    return read_json(said[0])


def measure(study: Study, options: argparse.Namespace) -> list[Result]:
    """What a process does; the first one tells what came out."""
    team = find_team("cpu")
    cases = {}
    for shard in (False, True):
        team.shards = shard
        cases[shard] = Case(study, options, team, shard=shard)
    times = {shard: float("inf") for shard in cases}
    for turn in range(options.rounds + 1):
        for shard, case in cases.items():
            team.wait()
            begun = time.perf_counter()
            case.step()
            if turn:
                times[shard] = min(times[shard], time.perf_counter() - begun)
    if not team.is_first:
        return []
    held = {shard: case.held for shard, case in cases.items()}
    setting = f"{options.encoder}, {PROCESSES} processes on a CPU"
    return [
        Result(
            "memory of weights, gradients and averages, in parts over whole", held[True] / held[False], 0.6,
            better="lower", note=f"{held[True] / 1e6:,.0f} MB over {held[False] / 1e6:,.0f} MB; {setting}",
        ),
        Result(
            "a step with weights in parts over one with whole weights", times[True] / times[False], better="lower",
            note=f"{times[True]:.2f} s over {times[False]:.2f} s; {setting}",
        ),
    ]  # fmt: skip


class Case:
    """A run of this process before its first step, and its half of a batch."""

    def __init__(self, study: Study, options: argparse.Namespace, team: Any, *, shard: bool) -> None:
        model = ModelConfig(modalities=("dna", "rna", "protein"), width=64, heads=4)
        config = TrainConfig(batch_size=options.batch_size, device="cpu", max_tokens_per_batch=None)
        encoders: Any = {"dna": "random", "rna": "random", "protein": f"{options.encoder}-random0"}
        frozen = open_study(study.dataset, study.cache, model, encoders)
        start = Start(finetune=FinetuneConfig(modalities=("protein",)), shard=shard)
        self.team = team
        self.run: TunedRun
        self.run, tuned = open_tuned(model, config, study=frozen, device=torch.device("cpu"), start=start, team=team)
        rows = team.share(tuned.rows["train"][: options.batch_size])
        self.tuned, self.rows = tuned, rows
        self.held = 0
        """Bytes at the end of the backward pass, averages counted."""

    def step(self) -> None:
        """Forward and backward pass and the steps of both optimisers."""
        (batch,) = self.tuned.data.batches([self.rows], reads=self.run.reads)
        self.run.begin_step(self.team)
        self.run.accumulate(batch, 100)
        self.run.catch_up()
        learned = [one for encoder in self.run.encoders.values() for one in encoder.trained.values()]
        tensors = [*learned, *(one.grad for one in learned if one.grad is not None)]
        for optimizer, _ in self.run.groups:
            states = (optimizer.state[one] for one in learned if one in optimizer.state)
            tensors += [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
        self.held = sum(local(one).nbytes for one in tensors)
        self.run.update(self.team)


if __name__ == "__main__":
    main()
