"""What the short way of the last cross-attention saves: passes that read for every token over passes for means only.

A forward and a backward pass of the model of RNA (500 tokens, 768 wide) and protein (300 tokens, 640 wide), on tokens
in memory; both ways take turns on the same model and batch, whose outputs are compared first. CPU seconds, one thread.

    python benchmarks/bench_means.py [--widths 128,256,512,paper] [--samples 10] [--rounds 5] [--json]
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from report import Result, add_json_option, report

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.aggregators.cross_attention import CrossAttentionAggregator
from heads.config import ModelConfig
from heads.model import ExpressionModel

TOKENS: dict[Modality, int] = {"rna": 500, "protein": 300}
WIDTHS: dict[Modality, int] = {"rna": 768, "protein": 640}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="128,256,512,paper", help="paper: those of the encoders")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(width, options.samples, options.rounds) for width in options.widths.split(",")]
    report(results, options.json)


def measure(width: str, n_samples: int, rounds: int) -> Result:
    torch.manual_seed(0)
    config = ModelConfig(modalities=("rna", "protein"), width=None if width == "paper" else int(width))
    model = ExpressionModel(config, WIDTHS, 30)
    aggregator = model.aggregator
    assert isinstance(aggregator, CrossAttentionAggregator) and aggregator.only_means
    tokens = {
        m: Ragged(torch.randn(n_samples * n, WIDTHS[m]), torch.arange(n_samples + 1) * n) for m, n in TOKENS.items()
    }
    seconds: dict[bool, list[float]] = {True: [], False: []}
    outputs = {}
    for i in range(rounds + 1):
        for is_short in (True, False) if i % 2 else (False, True):
            aggregator.only_means = is_short
            model.zero_grad()
            started = time.process_time()
            outputs[is_short] = model(tokens)
            outputs[is_short].square().mean().backward()
            seconds[is_short].append(time.process_time() - started)
    torch.testing.assert_close(outputs[True], outputs[False], atol=1e-5, rtol=1e-4)
    ratios = [slow / fast for slow, fast in zip(seconds[False][1:], seconds[True][1:], strict=True)]  # 0 is to warm up
    note = f"{min(ratios):.2f} to {max(ratios):.2f}; {1000 * min(seconds[True][1:]) / n_samples:.0f} ms a sample"
    what = (
        f"cross-attention for every token over means only, {'paper widths' if width == 'paper' else f'width {width}'}"
    )
    return Result(what, statistics.median(ratios), note=note)


if __name__ == "__main__":
    main()
