"""How close the rows that are tested on come to those that are trained on.

Shapes: N rows of a dataset, S distinct sequences, G genes in alphabetical order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from heads.splits.genes import genes_of
from heads.splits.kmers import KMER_LENGTH, Kmers
from heads.splits.related import uses_of
from heads.splits.shared import gene_profiles, sequence_profiles, similar_pairs

__all__ = ["Nearest", "nearest_genes"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LEAST = 0.01


class Nearest(NamedTuple):
    """The most similar gene among those trained on, for every row that was asked about."""

    rows: Ints
    """(R,): those that have the modality."""
    similarity: NDArray[np.float64]
    """(R,), from 0 (no common k-mers) to 1."""
    gene: Ints
    """(R,): -1 where nothing is similar."""


def nearest_genes(dataset: Dataset, kmers: Kmers, asked: Mask, trained: Mask) -> Nearest:
    """Find for each row that is asked about the most similar gene among the rows that are trained on.

    Args:
        dataset: The rows.
        kmers: Of its sequences of one modality.
        asked: Rows to look at, (N,).
        trained: Rows to compare them with, (N,); no gene may be on both sides.
    """
    genes, gene_of_row = genes_of(dataset)
    rows, sequence = uses_of(dataset, kmers.modality, kmers.numbers)
    known, wanted = trained[rows], np.flatnonzero(asked[rows])
    by_gene = gene_profiles(kmers, gene_of_row[rows[known]], sequence[known], len(genes))
    distinct, place = np.unique(sequence[wanted], return_inverse=True)
    best, best_gene = np.zeros(len(distinct)), np.full(len(distinct), -1, dtype=np.int64)
    for pairs in similar_pairs(sequence_profiles(kmers, distinct), by_gene, KMER_LENGTH[kmers.modality], _LEAST):
        order = np.lexsort((pairs.gene, -pairs.similarity, pairs.sequence))
        numbers, first = np.unique(pairs.sequence[order], return_index=True)
        best[numbers] = pairs.similarity[order][first]
        best_gene[numbers] = pairs.gene[order][first]
    # Equal sequences count even where they have no k-mer.
    user = np.full(len(kmers.numbers), -1, dtype=np.int64)
    user[sequence[known][::-1]] = gene_of_row[rows[known]][::-1]
    equal = user[distinct] >= 0
    best[equal], best_gene[equal] = 1, user[distinct][equal]
    return Nearest(rows[wanted], best[place], best_gene[place])
