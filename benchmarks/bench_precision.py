"""What half precision costs: embeddings computed in bfloat16 and float16 against float32, for each encoder family.

The weights are drawn, the architecture is the published one in a smaller width and with fewer layers (``--layers``), or
the published size of each family with ``--full``. Random sequences with unknown letters among them; three figures over
all rows: the length of the error over the length of the embeddings (relative L2), the mean cosine between a row and the
one in float32, and the worst of these cosines. Trained weights have other numbers: a few channels of theirs may be
hundreds of times larger than the rest, where bfloat16 keeps its three digits and float16 may overflow. So these figures
say what the code adds, not what an encoder loses.

Expected: 2 ** -9 in bfloat16 and 2 ** -12 in float16 for each rounding of the residual stream, which grow with the root
of the layers: about 1 % and 0.1 % in transformers. Convolutions over drawn weights, with a sharp pooling seven times in
a row and nothing that normalises between, carry each rounding on: several times as much. No figure has a bar, for
nobody should take one for that of trained weights.

    python benchmarks/bench_precision.py [--layers 6] [--tokens 300] [--only esm2-8m,enformer] [--full] [--json]
"""

import argparse
import os
import random
import sys
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from report import Result, add_json_option, report

from embedcache.encoders.cards import CARDS, EncoderCard
from embedcache.encoders.registry import load_encoder, register_encoder

FAMILIES = (  # the smallest of each
    *("esm2-8m", "esmc-300m", "prott5-xl", "prostt5", "ankh-base", "nt-v1-500m-human-ref", "nt-v2-50m"),
    *("enformer", "borzoi-replicate-0", "borzoi-replicate-0-final", "flashzoi-replicate-0"),
)
LETTERS = {"protein": "ACDEFGHIKLMNPQRSTVWY" * 3 + "X", "dna": "ACGT" * 16 + "N", "rna": "ACGT" * 16 + "N"}
HALF = ("bfloat16", "float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6, help="blocks of each network")
    parser.add_argument("--tokens", type=int, default=300, help="of the longest sequence")
    parser.add_argument("--only", default="", help="names with commas between")
    parser.add_argument("--full", action="store_true", help="published sizes: gigabytes of weights for some")
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in options.only.split(",") if name] or list(FAMILIES)
    if unknown := sorted({*names} - CARDS.keys()):
        sys.exit(f"no encoder is named {unknown[0]!r}. Choose from: {', '.join(FAMILIES)}.")
    results = []
    for name in names:
        card = CARDS[name] if options.full else shrunken(CARDS[name], options.layers)
        results += compare(card, options.tokens)
    report(results, options.json)


def shrunken(card: EncoderCard, layers: int) -> EncoderCard:
    """The architecture of a card in a small size, under a name of its own."""
    small = {"name": f"small-{card.name}", "layers": min(layers, card.layers), "heads": 4}
    settings = dict(card.settings)
    if card.adapter.startswith("enformer"):
        small |= {"width": 384, "feed_forward": 384}
        settings |= {"key_dim": 16, "divisor": 6}
    elif card.tokens.startswith("bins"):
        channels = [64, 76, 92, 112, 132, 160]
        small |= {"width": 192 if settings["output"] == "trunk" else 240, "feed_forward": 384}
        settings |= {"dim": 192, "channels": channels}
        settings |= {"key_dim": 12, "value_dim": 48} if "key_dim" in settings else {"key_value_heads": 2}
        settings |= {"rotary_dim": 16} if "rotary_dim" in settings else {}
    else:
        small |= {"width": 256, "feed_forward": 512}
        settings |= {"key_dim": 64} if "key_dim" in settings else {}
    return replace(card, **small, settings=settings)


def compare(card: EncoderCard, tokens: int) -> list[Result]:
    """Figures of one encoder in both half precisions."""
    register_encoder(card)
    modality = card.modalities[0]
    spec_of = {"random_init": 0}
    exact = load_encoder(card.name, modality, **spec_of)
    sequences = draw_sequences(exact.spec, min(tokens, exact.spec.max_tokens or tokens))
    wanted = np.concatenate(exact.encode(sequences))
    del exact
    results = []
    for dtype in HALF:
        found = np.concatenate(load_encoder(card.name, modality, dtype=dtype, **spec_of).encode(sequences))
        error, cosines = relative_l2(found, wanted), row_cosines(found, wanted)
        print(f"{card.name} {dtype}: relative L2 {error:.2e}, cosine {cosines.mean():.6f}, worst {cosines.min():.6f}")
        what = f"{dtype} against float32, {card.name}, width {card.width}, {card.layers} layers: relative L2"
        note = f"cosine {cosines.mean():.5f}, worst of {len(cosines):,} rows {cosines.min():.5f}"
        results.append(Result(what, error, better="lower", note=note))
    return results


def draw_sequences(spec, tokens: int) -> list[str]:
    """Three random sequences: of so many tokens about, of a third, and of five."""
    draw, letters = random.Random(0), LETTERS[spec.modality]
    unit = 6 if spec.tokens == "nt-6mer" else int(spec.tokens.removeprefix("bins-")) if "bins" in spec.tokens else 1
    most = min(tokens, 16) if unit > 6 else tokens  # a bin is a long window
    drawn = ["".join(draw.choices(letters, k=unit * n)) for n in (most, most // 3, 5)]
    return [one[: unit * most // 2] if spec.n_tokens(one) > (spec.max_tokens or 10**9) else one for one in drawn]


def relative_l2(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted.astype(np.float64)))


def row_cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


if __name__ == "__main__":
    main()
