"""Tokens, sizes and recipes of the mini encoders, each trained shortly: what a frozen head reaches over them.

Every trial sees the same part of the training sequences. Its perplexity on the validation split is a token's and stands
beside that of the best k-mer rates of the same tokens; trials of other tokens are compared by the frozen head of
``mini_on_yeast.py`` alone, over trained and over drawn weights of the same shape, on every fourth gene. Rows are for
``embedcache/encoders/mini/TRIED.md``.

    python -m embedcache.encoders.mini corpus --data ../shared/data --output CORPUS
    python benchmarks/mini_tried.py --corpus CORPUS --data ../shared/data [--epochs 0.2] [--only dna]
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from mini_on_yeast import Study, predictions, prepare

from embedcache.encoders.mini.measure import measure
from embedcache.encoders.mini.network import load, vocabulary
from embedcache.encoders.mini.publish import read_trained, save_trained
from embedcache.encoders.mini.recipes import mini_spec, recipe_of
from embedcache.encoders.mini.training import train
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.pooling import pool_rows
from embedcache.sequences import Modality
from heads.statistics import difference_by_gene, interval_by_gene

EVERY = 4
"""One gene of so many is scored."""
HEADS: dict[Modality, tuple[str, int]] = {"dna": ("adaptive-4", 4), "rna": ("mean", 1), "protein": ("mean", 1)}
"""Pooling under the head, and its rows."""
COLUMNS = (
    "modality", "tokens", "width x layers", "recipe", "perplexity", "best k-mers", "head, drawn", "head, trained",
    "trained - drawn", "CPU minutes",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What differs from the published encoder of a modality."""

    modality: Modality
    shape: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


TRIALS = (
    Trial(modality="dna"),
    Trial(modality="dna", shape={"tokens": "nt-6mer"}),
    Trial(modality="rna"),
    Trial(modality="rna", shape={"tokens": "nt-3mer"}),
    Trial(modality="rna", shape={"tokens": "nt-6mer"}),
    Trial(modality="protein"),
    Trial(modality="dna", recipe={"masked": 0.15}),
    Trial(modality="dna", recipe={"initial": 0.02}),
    Trial(modality="dna", recipe={"learning_rate": 4e-3}),
    Trial(modality="dna", shape={"layers": 2}),
    Trial(modality="dna", shape={"width": 96}),
    Trial(modality="rna", shape={"layers": 2}),
    Trial(modality="rna", shape={"width": 96}),
    Trial(modality="protein", shape={"layers": 2}),
    Trial(modality="protein", shape={"width": 96}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=float, default=0.2)
    parser.add_argument("--only", default="dna,rna,protein")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        study = prepare(options.data / "yeast", Path(name, "dataset"))
        print(f"{options.epochs:g} epochs each\n\n{_row(COLUMNS)}\n{_row(['---'] * len(COLUMNS))}", flush=True)
        over_drawn: dict[str, np.ndarray] = {}
        for number, trial in enumerate(TRIALS):
            if trial.modality in options.only.split(","):
                folder = Path(name, str(number))
                cells = run(trial, study, options.corpus, options.epochs, folder=folder, over_drawn=over_drawn)
                print(_row(cells), flush=True)


def run(
    trial: Trial, study: Study, corpus: Path, epochs: float, *, folder: Path, over_drawn: dict[str, np.ndarray]
) -> list[str]:
    """Train, measure, score; the cells of a row. What the head says over drawn weights is kept for other recipes."""
    spec = mini_spec(trial.modality, **trial.shape)
    recipe = replace(recipe_of(trial.modality), epochs=epochs, **trial.recipe)
    began = time.process_time()
    save_trained(train(corpus, spec, recipe), spec, folder)
    minutes = (time.process_time() - began) / 60
    found = measure(trial.modality, corpus, folder, "validation")
    rows = study.genes % EVERY == 0
    targets, genes = study.targets[rows], study.genes[rows] // EVERY
    if spec.digest not in over_drawn:
        drawn = load(replace(spec, model_id="random", weights="seed:0"), None, "cpu")
        over_drawn[spec.digest] = predictions(pooled(drawn, study, rows), targets, genes)
    trained = PackedEncoder(spec, read_trained(folder, spec).esm, vocabulary(spec.tokens))
    first, second = over_drawn[spec.digest], predictions(pooled(trained, study, rows), targets, genes)
    return [
        trial.modality,
        spec.tokens,
        f"{spec.width} x {spec.architecture['layers']}",
        ", ".join(f"{name} {value:g}" for name, value in trial.recipe.items()) or "as published",
        f"{found['perplexity']:.2f}",
        f"{found['best_kmer']:.2f}",
        f"{interval_by_gene('r2', targets, first, genes).estimate:.3f}",
        f"{interval_by_gene('r2', targets, second, genes).estimate:.3f}",
        str(difference_by_gene("r2", targets, second, first, genes)),
        f"{minutes:.1f}",
    ]


def pooled(encoder: PackedEncoder, study: Study, rows: np.ndarray) -> np.ndarray:
    """What the head sees of each transcript, (transcripts, rows of the pooling x width)."""
    modality = encoder.spec.modality
    rule, most = HEADS[modality]
    keys = [key for key, wanted in zip(study.dataset.keys(modality), rows, strict=True) if wanted]
    wanted = {key for key in keys if key is not None}
    found: dict[bytes | None, np.ndarray] = {None: np.zeros((most, encoder.spec.width), np.float32)}
    for key, sequence in study.dataset.sequences(modality):
        if key in wanted:
            found[key] = pool_rows(encoder.encode([sequence])[0], rule)
    return np.stack([found[key][np.minimum(np.arange(most), len(found[key]) - 1)] for key in keys]).reshape(
        len(keys), -1
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
