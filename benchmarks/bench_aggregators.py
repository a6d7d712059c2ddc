"""A training step of each aggregator: milliseconds, parameters, and the ratio to concat.

A step is forward, loss, backward and AdamW on random tokens of DNA, RNA and protein with lengths like those of
transcripts; a fifth of the samples lack the protein. Each model is given the least that it reads, as in training:
concat and gated-sum means, linear two vectors a modality, the others all tokens. Rounds take turns over the aggregators
and the best of each counts. On a CPU these are CPU seconds, which other work on the machine disturbs less.

    python benchmarks/bench_aggregators.py [--widths 160 768] [--batch-size 64] [--shorter 1] [--rounds 3] [--json]
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from report import Result, add_json_option, report

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import AGGREGATORS, ModelConfig
from heads.model import ExpressionModel, count_parameters
from heads.pooling import summarise

TOKENS: dict[Modality, tuple[float, float]] = {"dna": (96, 0), "rna": (400, 0.7), "protein": (400, 0.7)}
"""Median and log sd: bins of Enformer, 6-mers of an RNA, residues."""
N_TISSUES = 30


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    results = []
    for width in options.widths:
        torch.manual_seed(0)
        tokens = make_tokens(width, options.batch_size, options.shorter, options.device)
        steps, models = {}, {}
        for name in options.aggregators:
            models[name] = make_model(ModelConfig(aggregator=name), width, options.device)
            steps[name] = make_step(models[name], tokens)
        found = {name: float("inf") for name in steps}
        for _ in range(options.rounds):
            for name, step in steps.items():
                found[name] = min(found[name], time_step(step, options.device))
        counts = ", ".join(f"{sum(map(len, part.to_list())):,} of {m}" for m, part in tokens.items())
        print(f"width {width}, batch {options.batch_size}, tokens: {counts}; {options.device}")
        for name, seconds in found.items():
            note = f"{count_parameters(models[name]):,} parameters, reads {models[name].reads}"
            if "concat" in found:
                note += f", {seconds / found['concat']:,.1f} x concat"
            what = f"step of {name}, width {width}, ms"
            results.append(Result(what, 1000 * seconds, better="lower", note=note))
    report(results, options.json)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[160, 768])
    parser.add_argument("--aggregators", nargs="+", default=list(AGGREGATORS), choices=list(AGGREGATORS))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--shorter", type=float, default=1, help="divide all lengths, where a full step takes minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    add_json_option(parser)
    return parser.parse_args()


def make_tokens(width: int, n_samples: int, shorter: float, device: str) -> dict[Modality, Ragged]:
    """Random tokens; every fifth sample has no protein."""
    tokens = {}
    for modality, (median, log_sd) in TOKENS.items():
        drawn = median / shorter * (torch.randn(n_samples) * log_sd).exp()
        lengths = drawn.long().clamp(1, 2048)
        if modality == "protein":
            lengths[::5] = 0
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        tokens[modality] = Ragged(torch.randn(int(offsets[-1]), width, device=device), offsets)
    return tokens


def make_model(config: ModelConfig, width: int, device: str) -> ExpressionModel:
    config = replace(config, modalities=tuple(TOKENS))
    return ExpressionModel(config, dict.fromkeys(TOKENS, width), N_TISSUES).to(device).train()


def make_step(model: ExpressionModel, tokens: dict[Modality, Ragged]) -> Callable[[], None]:
    """One training step on what the model reads."""
    if model.reads != "tokens":
        tokens = {m: as_summary(part, model.reads) for m, part in tokens.items()}
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    targets = torch.randn(len(tokens["dna"].lengths), N_TISSUES, device=tokens["dna"].values.device)

    def step() -> None:
        (model(tokens) - targets).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def as_summary(tokens: Ragged, reads: str) -> Ragged:
    """A summary as training reads it: its rows for samples that have the modality, none for others."""
    found, present = summarise(tokens, reads), tokens.lengths > 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (present * found.shape[1]).cumsum(0)])
    return Ragged(found[present.to(found.device)].flatten(0, 1), offsets)


def time_step(step: Callable[[], None], device: str) -> float:
    """Seconds of one step, after one that is not counted; of several steps if they are short."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    best, spent = float("inf"), 0.0
    step()
    while spent < 0.2:
        synchronise(device)
        started = clock()
        step()
        synchronise(device)
        best = min(best, clock() - started)
        spent += clock() - started
    return best


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
