"""What pretraining of the mini encoders is worth: one frozen head on yeast, over pretrained and over drawn weights.

Transcripts of whole chromosomes that no mini encoder has seen are the test (XIV, XVI); XI stops training early. Each
head is an MLP over the mean of the tokens; predictions are means over its seeds, and the interval of the difference in
R2 comes from resampling genes. Beside them: ridge over k-mers and lengths, and the mean of each condition.

    python benchmarks/mini_on_yeast.py --data ../shared/data [--modalities dna,rna,protein] [--seeds 3] [--weights DIR]
"""

import argparse
import logging
import os
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pyarrow.parquet as pq

from embedcache.dataset import Dataset
from embedcache.encoders.mini.corpus import HELD_OUT, VALIDATION
from embedcache.encoders.registry import EncoderOptions
from embedcache.job import BuildJob, run_job
from embedcache.prepare.genome import prepare_genome
from embedcache.sequences import Modality
from embedcache.splits import SplitRule
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import evaluate
from heads.predict import predict
from heads.statistics import Interval, difference_by_gene, interval_by_gene
from heads.train import train

DNA_LENGTH = 1536
COLUMNS = ("modality", "k-mer ridge", "drawn weights", "pretrained", "pretrained - drawn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--modalities", default="dna,rna,protein")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="directory with mini-dna, mini-rna, mini-protein; the package's")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    print("".join(f"{column:<26}" for column in COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as silence:
        base = Path(name)
        with redirect_stderr(silence):
            dataset = prepare(options.data / "yeast", base / "dataset")
        for modality in options.modalities.split(","):
            with redirect_stderr(silence):
                row = compare(base, dataset, modality, options.seeds, options.weights)
            print(f"{modality:<26}" + "".join(f"{cell!s:<26}" for cell in row), flush=True)


def prepare(yeast: Path, output: Path) -> Dataset:
    held_out = {"validation_chromosomes": on_yeast(VALIDATION), "test_chromosomes": on_yeast(HELD_OUT)}
    return prepare_genome(
        genome=yeast / "genome.fa.gz",
        gtf=yeast / "annotation.gtf.gz",
        expression=yeast / "transcript_tpm.gct.gz",
        samples=yeast / "sample_attributes.tsv",
        output=output,
        dna_length=DNA_LENGTH,
        genetic_codes={"Mito": 3},
        only_measured=True,
        splits=SplitRule(kind="chromosomes", **held_out),
    )


def on_yeast(contigs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(contig for contig in contigs if not contig.startswith("chr"))


def compare(
    base: Path, dataset: Dataset, modality: Modality, seeds: int, weights: Path | None
) -> tuple[float, Interval, Interval, Interval]:
    """Scores of the baseline, of both encoders, and the difference, on test rows."""
    name = f"mini-{modality}"
    folder = None if weights is None else weights / name
    drawn, ridge = predictions(base, modality, name, {"random_init": 0}, seeds)
    pretrained, _ = predictions(base, modality, name, {"weights": folder}, seeds)
    assert dataset.targets is not None
    rows = (dataset.samples["split"] == "test").to_numpy(dtype=bool)
    targets = dataset.targets.to_numpy(dtype=np.float64)[rows]
    genes = np.unique(dataset.samples["gene_id"].to_numpy()[rows], return_inverse=True)[1].astype(np.int64)
    scores = [interval_by_gene("r2", targets, found[rows], genes) for found in (drawn, pretrained)]
    return round(ridge, 3), *scores, difference_by_gene("r2", targets, pretrained[rows], drawn[rows], genes)


def predictions(
    base: Path, modality: Modality, name: str, options: EncoderOptions, seeds: int
) -> tuple[np.ndarray, float]:
    """Mean over heads of what they predict for all rows, and R2 of the ridge over k-mers on the test rows."""
    cache = base / f"cache-{'drawn' if 'random_init' in options else 'pretrained'}"
    job = BuildJob(
        dataset=base / "dataset", cache=cache, modality=modality, encoder=name, options=options, poolings=("mean",)
    )
    run_job(job)
    encoder = next(path.name for path in (cache / modality).iterdir())
    found, ridge = [], float("nan")
    for seed in range(seeds):
        run = base / "runs" / f"{encoder}-{seed}"
        model = ModelConfig(modalities=(modality,), aggregator="concat", hidden=256)
        config = TrainConfig(seed=seed, data_seed=seed)
        train(dataset=base / "dataset", cache=cache, run=run, model=model, config=config, encoders={modality: encoder})
        predict(run, base / "dataset", cache, base / "predicted.parquet")
        table = pq.read_table(base / "predicted.parquet")
        found.append(np.stack([column.to_numpy() for column in table.columns[2:]], axis=1))
        if seed == 0:
            ridge = next(m.overall.r2 for m in evaluate(run, resamples=100).models if m.name.startswith("k-mers"))
    return np.mean(found, axis=0), ridge


if __name__ == "__main__":
    main()
