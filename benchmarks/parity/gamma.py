"""The rule of gamma position features: which one the original follows, and what the other changes.

``python gamma.py FOLDER`` in our environment, after ``gamma_reference.py`` for both; ``--embeddings BINS`` also embeds
a window of that many bins by both rules, with drawn and calibrated weights: of the published size, or with one head of
it (``--narrow``), for the convolutions of long windows take minutes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embedcache.encoders.bins import BinEncoder
from embedcache.encoders.cards import CARDS
from embedcache.encoders.enformer import position_features
from embedcache.encoders.registry import load_encoder
from embedcache.encoders.relative import RelativeAttention

ENFORMER = CARDS["enformer"]
FEATURES, COUNT = 192, 32  # of a head of the published size; gamma densities in each half of them


def ours(bins: int, rule: str) -> NDArray[np.float32]:
    """(2 * bins - 1, 32), without sign."""
    return position_features(bins, FEATURES, torch.device("cpu"), rule)[:, 2 * COUNT : 3 * COUNT].numpy()


def compare_tables(folder: Path) -> None:
    for name in ("original", "enformer-pytorch"):
        with np.load(folder / f"{name}.npz") as tables:
            for key in tables.files:
                bins = int(key.split()[-1])
                off = {rule: np.abs(ours(bins, rule) - tables[key]) for rule in ("position", "features")}
                said = "; ".join(f"{rule}: largest {one.max():.1e}, mean {one.mean():.1e}" for rule, one in off.items())
                print(f"{name} {key} bins, difference from ours by {said}", flush=True)


@torch.inference_mode()
def compare_embeddings(bins: int) -> None:
    """Convolutions once, the blocks by each rule; centred by channel, as rows differ by little else at random."""
    encoder = load_encoder("enformer", "dna", random_init=0)
    assert isinstance(encoder, BinEncoder)
    model, draw = encoder.model, np.random.default_rng(1)
    window = torch.from_numpy(np.eye(4, dtype=np.float32)[draw.integers(0, 4, bins * 128)])[None]
    x = model.conv_tower(model.stem(window.transpose(1, 2))).transpose(1, 2)
    rows = {}
    for rule in ("position", "features"):
        for module in model.modules():
            if isinstance(module, RelativeAttention):
                module.table.keywords["rule"] = rule  # type: ignore[attr-defined]
        rows[rule] = model.final_pointwise(model.transformer(x))[0]
    centred = rows["position"] - rows["position"].mean(0)
    off = rows["features"] - rows["position"]
    cosine = torch.cosine_similarity(centred, rows["features"] - rows["features"].mean(0)).mean()
    print(f"{bins} bins, embeddings by both rules: norm of the difference {off.norm() / centred.norm():.2f} of that of")
    print(f"the centred rows, cosine of centred rows {cosine:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--embeddings", type=int, action="append", default=[])
    given = parser.parse_args()
    compare_tables(given.folder)
    if given.narrow:
        narrow = {"width": 384, "heads": 1, "feed_forward": 384, "settings": {**ENFORMER.settings, "divisor": 12}}
        CARDS["enformer"] = replace(ENFORMER, **narrow)
    for bins in given.embeddings:
        compare_embeddings(bins)


if __name__ == "__main__":
    main()
