"""Genes of a dataset as numbers, and groups of genes that something joins.

Shapes: N rows of a dataset, G distinct genes in alphabetical order.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedcache.dataset import Dataset
from embedcache.splits import check_splits

__all__ = ["genes_of", "join"]

Ints = NDArray[np.int64]


def genes_of(dataset: Dataset) -> tuple[list[str], Ints]:
    """Distinct gene IDs in alphabetical order, and the number of the gene of each row, (N,).

    Raises:
        SplitError: A row has no gene.
    """
    ids = dataset.samples["gene_id"].tolist()
    check_splits(ids, ["train"] * len(ids))  # any one split: this asks for the genes only
    genes, of_row = np.unique(np.asarray(ids, dtype=object), return_inverse=True)
    return genes.tolist(), of_row.astype(np.int64)


def join(n_genes: int, left: Ints, right: Ints) -> Ints:
    """Groups of genes that are joined by edges, (G,), numbered by their first gene.

    Args:
        n_genes: Genes have the numbers below it.
        left: One end of each edge.
        right: The other end; numbers from ``n_genes`` on are things that join genes, such as chromosomes.
    """
    n_nodes = max(n_genes, int(right.max(initial=0)) + 1, int(left.max(initial=0)) + 1)
    graph = coo_array((np.ones(len(left), dtype=np.float32), (left, right)), shape=(n_nodes, n_nodes))
    found = connected_components(graph, directed=False)[1][:n_genes]
    _, first, group = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    groups: Ints = rank[group]
    return groups
