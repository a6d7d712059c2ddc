"""Memory and time of attention by region against whole attention maps, in the shape of NT-v2-500M at 2,048 tokens.

Each figure comes from a process of its own: the peak of its memory over what it held before the pass. Whole maps are
kept of every layer, as ``output_attentions=True`` does, and multiplied with the regions at the end; a few layers
are run and the rest is added by the growth from layer to layer, for all 29 would not fit into small machines. Ours is
the same with any number of layers. A whole pass also holds the inside of the feed-forward, 0.2 GB on either side, so
the attention is measured alone as well: the maps of 29 layers over the peak of our function.

Expected: 7.8 GB of maps (29 layers x 16 heads x 2,048 x 2,048 x 4 bytes) over 2 M weights at a time, twice, with the
rows that are read and the sums: 0.035 GB, 220 times less. Measured: 226 times less for the attention alone (0.035
GB); 37 times less at the peak of a whole pass, which is that of a pass without any analysis (1.1 x); 1.3 x as fast as
with whole maps, and 1.1 x the time of no analysis; the same bits.

    python benchmarks/bench_attention.py [--tokens 2048] [--layers 2] [--rounds 3] [--json]
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from report import Result, add_json_option, report
from torch import Tensor
from transformers import EsmConfig, EsmModel

from embedcache.encoders.nt import GatedIntermediate
from heads.interpret.attention.region_attention import Collector, attend_to_regions, attending_to_regions

HEADS, WIDTH, FEED_FORWARD, ALL_LAYERS, REGIONS = 16, 1024, 4096, 29, 4
MEMORY_BAR = 100


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    if options.child:
        print(measure(options.child, options.layers, options.tokens))
        return
    maps = ALL_LAYERS * HEADS * options.tokens**2 * 4 / 1e9
    few = {work: best(work, options.layers, options) for work in ("plain", "maps", "ours")}
    more = {work: best(work, 2 * options.layers, options) for work in ("plain", "maps", "ours")}
    growth = (more["maps"][0] - few["maps"][0]) / options.layers
    whole = more["maps"][0] + growth * (ALL_LAYERS - 2 * options.layers)
    alone = best("alone", 1, options)[0]
    note = f"{maps:.2f} GB of maps, {alone:.3f} GB"
    told = f"{whole:.2f} GB from {options.layers} and {2 * options.layers} layers, {more['ours'][0]:.3f} GB"
    shape = f"NT-v2-500M shape, {options.tokens:,} tokens"
    extra = more["ours"][0] / more["plain"][0]
    report(
        [
            Result(f"memory of attention, whole maps over ours, {shape}", maps / alone, bar=MEMORY_BAR, note=note),
            Result("peak of a whole pass, with whole maps over ours", whole / more["ours"][0], note=told),
            Result("peak of a whole pass, ours over no analysis", extra, better="lower"),
            Result("time of a pass, with whole maps over ours", more["maps"][1] / more["ours"][1]),
            Result("time of a pass, ours over no analysis", more["ours"][1] / more["plain"][1], better="lower"),
            Result("largest difference of the mass from that of whole maps", difference(options), better="lower"),
        ],
        options.json,
    )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=2, help="layers of the smaller of two networks that are run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=["plain", "maps", "ours", "alone"], help=argparse.SUPPRESS)
    add_json_option(parser)
    return parser.parse_args()


def best(work: str, layers: int, options: argparse.Namespace) -> tuple[float, float]:
    """GB and CPU seconds of a pass, the least of a few fresh processes."""
    arguments = ["--child", work, "--layers", str(layers), "--tokens", str(options.tokens)]
    command = [sys.executable, __file__, *arguments, "--threads", str(options.threads)]
    found = []
    for _ in range(options.rounds):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append([float(number) for number in done.stdout.split()[-1].split(",")])
    return min(gigabytes for gigabytes, _ in found), min(seconds for _, seconds in found)


@torch.inference_mode()
def measure(work: str, layers: int, tokens: int) -> str:
    """Peak over what was held before, in GB, and CPU seconds."""
    regions = make_regions(tokens)
    if work == "alone":
        q, k, v = (torch.randn(HEADS, tokens, WIDTH // HEADS) for _ in range(3))
        attend_to_regions(q[:, :64], k[:, :64], regions[:64], value=v[:, :64])  # what is loaded once
        return clock(lambda: attend_to_regions(q, k, regions, value=v))
    model = make_model(layers)
    passes: dict[str, Callable[[Tensor, Tensor], object]] = {
        "plain": lambda ids, _: model(input_ids=ids),
        "maps": lambda ids, shares: whole_maps(model, ids, shares),
        "ours": lambda ids, shares: ours(model, ids, shares),
    }
    ids = torch.randint(6, 4000, (1, tokens))
    passes[work](ids[:, :64], regions[:64])
    return clock(lambda: passes[work](ids, regions))


def clock(work: Callable[[], object]) -> str:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is held now
    before, started = memory("VmRSS"), time.process_time()
    work()
    return f"{memory('VmHWM') - before},{time.process_time() - started}"


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e9


def make_regions(tokens: int) -> Tensor:
    """CLS, a tenth 5'UTR, half CDS, and a token on each border that belongs to both."""
    found = torch.zeros(tokens, REGIONS)
    borders = [1, tokens // 10, 6 * tokens // 10, tokens]
    found[0, 3] = 1
    for i in range(3):
        found[borders[i] : borders[i + 1], i] = 1
    found[borders[1], :2] = 0.5
    found[borders[2], 1:3] = torch.tensor([1 / 6, 5 / 6])
    return found


def make_model(layers: int) -> EsmModel:
    """Random weights, queries large enough that attention is far from even."""
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=4107,
        pad_token_id=1,
        mask_token_id=2,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
        position_embedding_type="rotary",
        max_position_embeddings=2050,
        token_dropout=False,
        emb_layer_norm_before=False,
    )
    model = EsmModel(config, add_pooling_layer=False).eval()
    for layer in model.encoder.layer:
        layer.intermediate = GatedIntermediate(WIDTH, FEED_FORWARD)
        layer.attention.self.query.weight.data.mul_(20)
    return model


def whole_maps(model: EsmModel, ids: Tensor, regions: Tensor) -> list[Tensor]:
    """Sums over queries of each layer, (heads, R)."""
    model.set_attn_implementation("eager")
    maps = model(input_ids=ids, output_attentions=True).attentions
    return [(one[0] @ regions).double().sum(1) for one in maps]


def ours(model: EsmModel, ids: Tensor, regions: Tensor) -> list[Tensor]:
    collector = Collector(regions)
    with attending_to_regions(model):
        model(input_ids=ids, collector=collector)
    return collector.totals


@torch.inference_mode()
def difference(options: argparse.Namespace) -> float:
    model, regions = make_model(1), make_regions(options.tokens)
    ids = torch.randint(6, 4000, (1, options.tokens))
    both = zip(whole_maps(model, ids, regions), ours(model, ids, regions), strict=True)
    return max(float((one - other).abs().max()) for one, other in both)


if __name__ == "__main__":
    main()
