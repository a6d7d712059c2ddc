"""What a head explains of a simulated study, for every set of modalities, beside what was planted in it.

Each study is prepared, embedded with tiny random encoders, and a head is trained and scored for the seven sets, all as
the commands do it. ``possible`` is least squares on the planted features themselves, fitted on the training rows: what
the rows that are scored allow at best. A single study has few genes to score, and chance can reverse its order; the
mean over studies is what counts. Columns are R2, mean over tissues.

    python benchmarks/simulated_study.py [--studies 3] [--genes 300] [--epochs 12]
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from embedcache.dataset import Dataset
from embedcache.job import BuildJob, run_job
from embedcache.prepare.simulate import prepare_simulate
from embedcache.prepare.simulated_genes import gc_share, residue_score
from embedcache.sequences import MODALITIES, Modality
from embedcache.splits import SplitRule
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import evaluate
from heads.metrics import mean_defined, r2_columns
from heads.train import train

SETS = [chosen for size in (1, 2, 3) for chosen in combinations(MODALITIES, size)]
SHOWN_BY: dict[Modality, tuple[Modality, ...]] = {"dna": ("dna",), "rna": ("rna", "protein"), "protein": ("protein",)}
MEASURES = {"dna": gc_share, "rna": gc_share, "protein": residue_score}
COLUMNS = ("planted", "possible", "head, validation", "head, test", "pooled ridge, test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--heads", type=int, default=2)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    scores = []
    with tempfile.TemporaryDirectory() as directory, Path(os.devnull).open("w") as silence:
        for seed in range(options.studies):
            with redirect_stderr(silence):
                base = Path(directory) / str(seed)
                dataset = prepare(base, options.genes, seed)
                scores.append([score(base, dataset, c, options.epochs, options.heads) for c in SETS])
            show(f"study {seed}", np.array(scores[-1]))
    mean = np.mean(scores, axis=0)
    show(f"mean of {options.studies} studies", mean)
    singles = {name: row[3] for (name, *more), row in zip(SETS, mean, strict=True) if not more}
    ordered = singles["protein"] < singles["dna"] < singles["rna"] < mean[-1, 3]
    print(f"protein < dna < rna < all three on test rows, as planted: {'yes' if ordered else 'NO'}")


def prepare(base: Path, n_genes: int, seed: int) -> Dataset:
    splits = SplitRule(validation_fraction=0.15, test_fraction=0.25, seed=seed)
    dataset = prepare_simulate(output=base / "dataset", n_genes=n_genes, seed=seed, splits=splits)
    for modality in MODALITIES:
        run_job(BuildJob(dataset=base / "dataset", cache=base / "cache", modality=modality))
    return dataset


def score(base: Path, dataset: Dataset, chosen: tuple[Modality, ...], epochs: int, heads: int) -> tuple[float, ...]:
    """A row of the table."""
    run, name = base / "runs" / "+".join(chosen), "+".join(chosen)
    # one modality is averaged only: its epochs cost nothing, and early stopping ends them
    config = TrainConfig(epochs=100 if len(chosen) == 1 else epochs)
    model = ModelConfig(modalities=chosen, heads=heads)
    trained = train(dataset=base / "dataset", cache=base / "cache", run=run, model=model, config=config)
    found = {model.name: model.overall.r2 for model in evaluate(run, resamples=100).models}
    planted = dataset.info["truth"]["explainable_r2"][name]
    return planted, possible(dataset, chosen), trained.validation["r2"], found["this run"], found["pooled embeddings"]


def possible(dataset: Dataset, chosen: tuple[Modality, ...]) -> float:
    """R2 on the test rows of least squares on the features that the modalities show."""
    assert dataset.targets is not None
    shown = {feature for modality in chosen for feature in SHOWN_BY[modality]}
    design = np.stack([np.ones(len(dataset.samples)), *(feature for _, feature in features(dataset, shown))], axis=1)
    train_rows, test_rows = ((dataset.samples["split"] == split).to_numpy(dtype=bool) for split in ("train", "test"))
    targets = dataset.targets.to_numpy(dtype=np.float64)
    weights = np.linalg.lstsq(design[train_rows], targets[train_rows], rcond=None)[0]
    return mean_defined(r2_columns(targets[test_rows], design[test_rows] @ weights))


def features(dataset: Dataset, shown: set[Modality]) -> Iterator[tuple[Modality, np.ndarray]]:
    """The planted features, 0 where a transcript lacks the modality."""
    for modality in sorted(shown):
        by_key = {key: MEASURES[modality](sequence) for key, sequence in dataset.sequences(modality)}
        values = np.array([by_key.get(key, np.nan) for key in dataset.keys(modality)])
        yield modality, np.nan_to_num(values - np.nanmean(values))


def show(title: str, rows: np.ndarray) -> None:
    print(f"{title:<18}" + "".join(f"{column:>20}" for column in COLUMNS))
    for chosen, row in zip(SETS, rows, strict=True):
        print(f"{'+'.join(chosen):<18}" + "".join(f"{value:>20.3f}" for value in row))
    print(flush=True)


if __name__ == "__main__":
    main()
