"""How alike sequences and genes are, from the k-mers they share; pairs that share none are never looked at.

Shapes: S sequences, G genes, C k-mers, P pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from heads.splits.kmers import Kmers

__all__ = ["Pairs", "Profiles", "gene_profiles", "sequence_profiles", "similar_pairs"]

Ints = NDArray[np.int64]
Array = NDArray[np.float64]

_COMMON = 256
"""Of a k-mer in more genes than this, the longest gene alone is kept: all pairs of them would be too many."""
_LEAST_SHARED = 3
"""Fewer common k-mers than this are chance, however short the sequences."""
_AT_ONCE = 20_000_000
"""Products in memory at a time."""


class Pairs(NamedTuple):
    """Sequences and the genes that they are alike to, all (P,)."""

    sequence: Ints
    gene: Ints
    similarity: Array


class Profiles(NamedTuple):
    """Which sequence, or gene, has which k-mer."""

    matrix: csr_array
    """(S, C) or (G, C), 1 where it has a k-mer; columns as in ``Kmers.matrix``."""
    sizes: Ints
    """(S,) or (G,): all its k-mers, those without a column included."""


def sequence_profiles(kmers: Kmers, numbers: Ints) -> Profiles:
    """K-mers of some sequences, in the order of their numbers given."""
    matrix = kmers.matrix[numbers]
    return Profiles(matrix, np.diff(matrix.indptr) + kmers.alone[numbers])


def gene_profiles(kmers: Kmers, gene: Ints, sequence: Ints, n_genes: int) -> Profiles:
    """K-mers that a gene has in any of its sequences.

    Args:
        kmers: Of the sequences.
        gene: Gene of each use of a sequence.
        sequence: Number of the sequence of each use.
        n_genes: Genes have the numbers below it.
    """
    shape = (n_genes, kmers.matrix.shape[0])
    uses = csr_array((np.ones(len(gene), dtype=np.int32), (gene, sequence)), shape=shape)
    uses.sum_duplicates()
    uses.data[:] = 1
    matrix = uses @ kmers.matrix
    matrix.data[:] = 1
    return Profiles(matrix, np.diff(matrix.indptr) + uses @ kmers.alone)


def similar_pairs(sequences: Profiles, genes: Profiles, k: int, least: float) -> Iterator[Pairs]:
    """Pairs of a sequence and a gene whose similarity is at least ``least``, in blocks of sequences.

    Similarity is the share c of the smaller one's k-mers that the other one has too, as ``c ** (1 / k)``: the share of
    equal letters at which that many k-mers of length k stay whole, if differences are spread evenly.

    Args:
        sequences: Their numbers in the pairs are the rows here.
        genes: Of any sequences, those of ``sequences`` included.
        k: Length of a k-mer.
        least: Above 0.
    """
    transposed = _thin(genes).T.tocsr()
    products = np.concatenate([[0], np.cumsum(np.diff(transposed.indptr)[sequences.matrix.indices])])
    work = products[sequences.matrix.indptr]
    start = 0
    while start < len(sequences.sizes):
        end = max(int(np.searchsorted(work, work[start] + _AT_ONCE, side="right")) - 1, start + 1)
        product = (sequences.matrix[start:end] @ transposed).tocoo()
        row, gene = product.row.astype(np.int64) + start, product.col.astype(np.int64)
        similarity = (product.data / np.minimum(sequences.sizes[row], genes.sizes[gene])) ** (1 / k)
        near = (similarity >= least) & (product.data >= _LEAST_SHARED)
        yield Pairs(row[near], gene[near], similarity[near])
        start = end


def _thin(genes: Profiles) -> csr_array:
    """Of each k-mer that is in very many genes, keep the gene with the most k-mers, the first one of equals."""
    matrix, sizes = genes
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    common = counts[matrix.indices] > _COMMON
    if not common.any():
        return matrix
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    entries = np.flatnonzero(common)
    order = entries[np.lexsort((row[entries], -sizes[row[entries]], matrix.indices[entries]))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = matrix.indices[order][1:] != matrix.indices[order][:-1]
    keep = ~common
    keep[order[first]] = True
    return csr_array((matrix.data[keep], (row[keep], matrix.indices[keep])), shape=matrix.shape)
