"""How alike sequences and genes are, from the k-mers they share; pairs that share none are never looked at.

Shapes: S sequences, G genes, C distinct k-mers, P pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from heads.splits.kmers import Kmers

__all__ = ["Pairs", "genes_by_kmers", "similar_pairs"]

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


def genes_by_kmers(kmers: Kmers, gene: Ints, sequence: Ints, n_genes: int) -> csr_array:
    """Which gene has which k-mer in any of its sequences, (G, C).

    Args:
        kmers: Of the sequences.
        gene: Gene of each use of a sequence.
        sequence: Number of the sequence of each use.
        n_genes: Genes have the numbers below it.
    """
    shape = (n_genes, kmers.matrix.shape[0])
    found = csr_array((np.ones(len(gene), dtype=np.int32), (gene, sequence)), shape=shape) @ kmers.matrix
    found.data[:] = 1
    return found


def similar_pairs(sequences: csr_array, genes: csr_array, k: int, least: float) -> Iterator[Pairs]:
    """Pairs of a sequence and a gene whose similarity is at least ``least``, in blocks of sequences.

    Similarity is the share c of the smaller one's k-mers that the other one has too, as ``c ** (1 / k)``: the share of
    equal letters at which that many k-mers of length k stay whole, if differences are spread evenly.

    Args:
        sequences: (S, C), as in ``Kmers.matrix``.
        genes: (G, C), from ``genes_by_kmers``; also of the genes of the sequences.
        k: Length of a k-mer.
        least: Above 0.
    """
    n_sequence, n_gene = np.diff(sequences.indptr), np.diff(genes.indptr)
    transposed = _thin(genes, n_gene).T.tocsr()
    work = np.concatenate([[0], np.cumsum(np.diff(transposed.indptr)[sequences.indices])])[sequences.indptr]
    start = 0
    while start < sequences.shape[0]:
        end = max(int(np.searchsorted(work, work[start] + _AT_ONCE, side="right")) - 1, start + 1)
        product = (sequences[start:end] @ transposed).tocoo()
        row, gene = product.row.astype(np.int64) + start, product.col.astype(np.int64)
        share = product.data / np.minimum(n_sequence[row], n_gene[gene])
        similarity = share ** (1 / k)
        near = (similarity >= least) & (product.data >= _LEAST_SHARED)
        yield Pairs(row[near], gene[near], similarity[near])
        start = end


def _thin(genes: csr_array, sizes: Ints) -> csr_array:
    """Of each k-mer that is in very many genes, keep the gene with the most k-mers, the first one of equals."""
    counts = np.bincount(genes.indices, minlength=genes.shape[1])
    common = counts[genes.indices] > _COMMON
    if not common.any():
        return genes
    row = np.repeat(np.arange(genes.shape[0]), np.diff(genes.indptr))
    entries = np.flatnonzero(common)
    order = entries[np.lexsort((row[entries], -sizes[row[entries]], genes.indices[entries]))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = genes.indices[order][1:] != genes.indices[order][:-1]
    keep = ~common
    keep[order[first]] = True
    shape = genes.shape
    return csr_array((genes.data[keep], (row[keep], genes.indices[keep])), shape=shape)
