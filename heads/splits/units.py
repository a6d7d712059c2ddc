"""What stays together in a split: genes, or groups of genes joined by a chromosome, a column or their sequences.

Shapes: N rows of a dataset, G distinct genes in alphabetical order.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.errors import UnknownNameError
from embedcache.splits import SplitError
from heads.split_config import SplitConfig
from heads.splits.genes import genes_of, join

__all__ = ["split_units", "unit_of_rows", "units_word"]

Ints = NDArray[np.int64]


def split_units(dataset: Dataset, config: SplitConfig) -> Ints:
    """Number of the unit of each row, (N,), from 0 on in the order of each unit's first gene ID.

    Rows of one gene have one unit, so units that share a gene are one.

    Raises:
        SplitError: A row has no gene, or no value of what is split by.
        UnknownNameError: There is no such column.
    """
    genes, gene_of_row = genes_of(dataset)
    if config.unit in {"given", "gene"}:
        return gene_of_row
    if config.unit == "similarity":
        from heads.splits.related import homology_groups

        return homology_groups(dataset, config)[gene_of_row]
    column = "chromosome" if config.unit == "chromosome" else config.column
    labels = _labels(dataset, column)
    return join(len(genes), gene_of_row, len(genes) + labels)[gene_of_row]


def unit_of_rows(dataset: Dataset, config: SplitConfig) -> Ints:
    """Number of the unit of statistics of each row, (N,): what is resampled for an interval.

    That is the homology group where the split is by similarity, and the gene everywhere else: whole chromosomes
    keep homologues apart only by chance, and are too few to resample.
    """
    return split_units(dataset, config) if config.unit == "similarity" else genes_of(dataset)[1]


def units_word(config: SplitConfig) -> str:
    """What the units are, for messages and tables."""
    return {
        "given": "genes",
        "gene": "genes",
        "chromosome": "groups of chromosomes that share genes",
        "similarity": "homology groups",
        "column": f"values of {config.column}",
    }[config.unit]


def _labels(dataset: Dataset, column: str) -> Ints:
    """Number of the value of a column in each row, (N,)."""
    samples = dataset.samples
    if column not in samples.columns:
        raise UnknownNameError("column", column, [str(name) for name in samples.columns])
    missing = samples[column].isna().to_numpy()
    if missing.any():
        first = samples["transcript_id"].iloc[int(missing.argmax())]
        raise SplitError(
            f"{dataset.path}: {int(missing.sum()):,} of {len(samples):,} transcripts have no {column}, the first is "
            f"{first}. Split by gene or similarity, or prepare the dataset with it."
        )
    labels: Ints = pd.factorize(samples[column])[0].astype(np.int64)
    return labels
