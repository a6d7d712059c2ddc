"""What pretraining of the mini encoders is worth on yeast: one frozen head, over pretrained and over drawn weights.

The head is linear, over the mean of the tokens of a transcript: ridge regression whose penalty is chosen on training
rows. Each gene is predicted by the head of the four fifths of the genes that it is not in. The interval of the
difference in R2 comes from resampling genes. Beside them: the same head on shares of k-mers and codons and on lengths.
The encoders have seen the sequences of most chromosomes in pretraining, but no expression of any.

    python benchmarks/mini_on_yeast.py --data ../shared/data [--modalities dna,rna,protein] [--folder DIR]
"""

import argparse
import logging
import os
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedcache import EmbeddingStore
from embedcache.dataset import Dataset
from embedcache.encoders.registry import EncoderOptions
from embedcache.job import BuildJob, run_job
from embedcache.prepare.genome import prepare_genome
from embedcache.sequences import Modality
from heads.features import composition_features, length_features
from heads.statistics import difference_by_gene, interval_by_gene

DNA_LENGTH = 1536
FOLDS = 5
PENALTIES = np.logspace(0, 5, 11)
COLUMNS = ("encoder", "drawn weights", "pretrained", "pretrained - drawn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--modalities", default="dna,rna,protein")
    parser.add_argument("--folder", type=Path, help="keeps the dataset and the caches")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as silence, redirect_stderr(silence):
        base = options.folder or Path(name)
        dataset = prepare(options.data / "yeast", base / "dataset")
        assert dataset.targets is not None
        targets = dataset.targets.to_numpy(dtype=np.float64)
        genes = np.unique(dataset.samples["gene_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
        counted = np.concatenate([length_features(dataset), composition_features(dataset)], axis=1)
        found = interval_by_gene("r2", targets, predictions(counted, targets, genes), genes)
        print(f"{len(targets):,} transcripts, R2 of log1p TPM, mean of {targets.shape[1]} conditions")
        print(f"the same head on k-mers, codons and lengths: {found}")
        print("".join(f"{column:<26}" for column in COLUMNS), flush=True)
        for modality in options.modalities.split(","):
            drawn, pretrained = (
                predictions(mean_tokens(base, dataset, modality, options), targets, genes)
                for options in ({"random_init": 0}, {})
            )
            cells = [interval_by_gene("r2", targets, one, genes) for one in (drawn, pretrained)]
            cells.append(difference_by_gene("r2", targets, pretrained, drawn, genes))
            print(f"{'mini-' + modality:<26}" + "".join(f"{cell!s:<26}" for cell in cells), flush=True)


def prepare(yeast: Path, output: Path) -> Dataset:
    return prepare_genome(
        genome=yeast / "genome.fa.gz",
        gtf=yeast / "annotation.gtf.gz",
        expression=yeast / "transcript_tpm.gct.gz",
        samples=yeast / "sample_attributes.tsv",
        output=output,
        dna_length=DNA_LENGTH,
        genetic_codes={"Mito": 3},
        only_measured=True,
    )


def mean_tokens(base: Path, dataset: Dataset, modality: Modality, options: EncoderOptions) -> np.ndarray:
    """Means of the tokens of each transcript, (transcripts, width)."""
    cache = base / f"cache-{'drawn' if options else 'pretrained'}"
    job = {"dataset": dataset.path, "cache": cache, "modality": modality, "encoder": f"mini-{modality}"}
    run_job(BuildJob(**job, options=options, poolings=("mean",)))
    store = EmbeddingStore(next((cache / modality).iterdir()))
    missing = np.zeros(store.spec.width, np.float32)
    return np.stack([missing if key is None else store[key][0].astype(np.float32) for key in dataset.keys(modality)])


def predictions(features: np.ndarray, targets: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """What the head of the other folds predicts for each transcript."""
    found = np.empty_like(targets)
    for train, asked in GroupKFold(FOLDS, shuffle=True, random_state=0).split(features, groups=genes):
        head = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        found[asked] = head.fit(features[train], targets[train]).predict(features[asked])
    return found


if __name__ == "__main__":
    main()
