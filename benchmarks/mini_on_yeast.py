"""What pretraining of the mini encoders is worth on yeast: one frozen head, over pretrained and over drawn weights.

The head is linear, over means of the tokens of a transcript, and the same for both: ridge regression whose penalty is
chosen on training rows. ``mean`` is one mean, ``adaptive-4`` four along the sequence: of a window of DNA the two
quarters in front of the start and the two behind it. Each gene is predicted by the head of the four fifths of the
genes that it is not in. The interval of the difference in R2 comes from resampling genes. Beside them: the same head
on shares of k-mers and codons and on lengths. The encoders have seen the sequences of most chromosomes in pretraining,
but no expression of any.

Windows that leave their chromosome are filled up with N, which the networks have not seen in such numbers; ``inside``
leaves these transcripts out, from training and from scores, of both weights.

    python benchmarks/mini_on_yeast.py --data ../shared/data [--modalities dna,rna,protein] [--pooling mean]
        [--layer -1] [--weights DIR] [--folder DIR]
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedcache import EmbeddingStore
from embedcache.dataset import Dataset
from embedcache.encoders.pooling import most_pooled
from embedcache.encoders.registry import EncoderOptions
from embedcache.job import BuildJob, run_job
from embedcache.prepare.genome import prepare_genome
from embedcache.sequences import Modality
from embedcache.store import list_stores
from heads.features import composition_features, length_features
from heads.statistics import difference_by_gene, interval_by_gene

DNA_LENGTH = 1536
FOLDS = 5
PENALTIES = np.logspace(0, 5, 11)
COLUMNS = ("encoder", "head over", "rows", "drawn weights", "pretrained", "pretrained - drawn")
WIDTHS = (14, 25, 16, 24, 24, 24)


@dataclass(frozen=True)
class Study:
    """What all heads are scored on."""

    dataset: Dataset
    targets: np.ndarray
    genes: np.ndarray
    """Number of the gene of each transcript."""

    def rows(self) -> Iterator[tuple[str, np.ndarray]]:
        """Which transcripts are looked at."""
        unknown = {key for key, sequence in self.dataset.sequences("dna") if "N" in sequence}
        inside = np.array([key not in unknown for key in self.dataset.keys("dna")])
        yield "all", np.ones_like(inside)
        if not inside.all():
            yield f"inside, {inside.sum():,}", inside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--modalities", default="dna,rna,protein")
    parser.add_argument("--pooling", action="append", help="mean, adaptive-4, ...; both of these by default")
    parser.add_argument("--layer", type=int, action="append", help="-1, the last, by default")
    parser.add_argument("--weights", type=Path, help="directory that training wrote, of one modality")
    parser.add_argument("--folder", type=Path, help="keeps the dataset and the caches")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    poolings, layers = tuple(options.pooling or ("mean", "adaptive-4")), tuple(options.layer or (-1,))
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as silence, redirect_stderr(silence):
        base = options.folder or Path(name)
        study = prepare(options.data / "yeast", base / "dataset")
        counted = np.concatenate([length_features(study.dataset), composition_features(study.dataset)], axis=1)
        found = interval_by_gene("r2", study.targets, predictions(counted, study.targets, study.genes), study.genes)
        print(f"{len(study.genes):,} transcripts, R2 of log1p TPM, mean of {study.targets.shape[1]} conditions")
        print(f"the same head on k-mers, codons and lengths: {found}")
        tell(COLUMNS)
        pretrained: EncoderOptions = {"weights": options.weights} if options.weights else {}
        for modality in options.modalities.split(","):
            caches = [base / "cache-drawn", base / "cache-pretrained"]
            for cache, weights in zip(caches, ({"random_init": 0}, pretrained), strict=True):
                embed(study.dataset, cache, modality, weights, layers=layers, poolings=poolings)
            for layer in layers:
                for pooling in poolings:
                    compare(study, modality, layer, pooling, caches)


def prepare(yeast: Path, output: Path) -> Study:
    dataset = prepare_genome(
        genome=yeast / "genome.fa.gz",
        gtf=yeast / "annotation.gtf.gz",
        expression=yeast / "transcript_tpm.gct.gz",
        samples=yeast / "sample_attributes.tsv",
        output=output,
        dna_length=DNA_LENGTH,
        genetic_codes={"Mito": 3},
        only_measured=True,
    )
    assert dataset.targets is not None
    genes = np.unique(dataset.samples["gene_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    return Study(dataset, dataset.targets.to_numpy(dtype=np.float64), genes)


def embed(
    dataset: Dataset, cache: Path, modality: Modality, options: EncoderOptions, *, layers: Sequence[int],
    poolings: Sequence[str],
) -> None:  # fmt: skip
    """Build the stores of all layers and heads from one pass."""
    job = {"dataset": dataset.path, "cache": cache, "modality": modality, "encoder": f"mini-{modality}"}
    run_job(BuildJob(**job, options=options, layers=tuple(layers), poolings=tuple(poolings)))


def compare(study: Study, modality: Modality, layer: int, pooling: str, caches: Sequence[Path]) -> None:
    """Print what one head reaches over drawn and over pretrained weights."""
    features = [pooled_rows(study.dataset, cache, modality, layer, pooling) for cache in caches]
    for said, rows in study.rows():
        targets, genes = study.targets[rows], np.unique(study.genes[rows], return_inverse=True)[1].astype(np.int64)
        drawn, pretrained = (predictions(one[rows], targets, genes) for one in features)
        cells = [str(interval_by_gene("r2", targets, one, genes)) for one in (drawn, pretrained)]
        difference = difference_by_gene("r2", targets, pretrained, drawn, genes)
        tell((f"mini-{modality}", f"{pooling} of layer {layer}", said, *cells, str(difference)))


def pooled_rows(dataset: Dataset, cache: Path, modality: Modality, layer: int, pooling: str) -> np.ndarray:
    """Pooled tokens of each transcript, (transcripts, rows x width); of very short ones the last row again."""
    stores = [EmbeddingStore(place) for place in list_stores(cache, modality)]
    fit = [one for one in stores if (one.spec.layer, one.spec.pooling) == (layer, pooling)]
    assert len(fit) == 1, f"{cache} holds stores of other weights as well: give another --folder"
    store = fit[0]
    most = most_pooled(pooling) or 1
    found = np.zeros((len(dataset.samples), most, store.spec.width), np.float32)
    for row, key in enumerate(dataset.keys(modality)):
        if key is not None:
            rows = store[key].astype(np.float32)
            found[row] = rows[np.minimum(np.arange(most), len(rows) - 1)]
    return found.reshape(len(found), -1)


def predictions(features: np.ndarray, targets: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """What the head of the other folds predicts for each transcript."""
    found = np.empty_like(targets)
    for train, asked in GroupKFold(FOLDS, shuffle=True, random_state=0).split(features, groups=genes):
        head = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        found[asked] = head.fit(features[train], targets[train]).predict(features[asked])
    return found


def tell(cells: Sequence[str]) -> None:
    print("".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    main()
