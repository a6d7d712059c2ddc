"""Groups of genes whose proteins or RNAs are alike: single linkage, so that no pair is cut apart.

Shapes: N rows of a dataset, G distinct genes in alphabetical order, U uses of a sequence by a gene.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError
from embedcache.sequences import Modality
from heads.split_config import SplitConfig
from heads.splits.genes import genes_of, join
from heads.splits.kmers import KMER_LENGTH, Kmers, count_kmers
from heads.splits.shared import gene_profiles, sequence_profiles, similar_pairs
from heads.splits.tools import cluster_by_tool

__all__ = ["COMPARED", "compared", "dataset_kmers", "homology_groups", "least_similarity", "uses_of"]

Ints = NDArray[np.int64]
Key = TypeVar("Key")
Value = TypeVar("Value")

COMPARED: tuple[Modality, ...] = ("rna", "protein")
"""What is compared. DNA windows of neighbouring genes overlap: a split by chromosome is the answer to that."""

_LEAST_RNA = 0.9
"""Below it, repeats such as Alu, a part of many longer RNAs, would chain unrelated genes into one huge group."""
_KEPT = 4
_groups: dict[tuple[str, float, str], Ints] = {}
_kmers: dict[tuple[str, Modality], Kmers] = {}


def homology_groups(dataset: Dataset, config: SplitConfig) -> Ints:
    """Number of the group of each gene, (G,), genes in alphabetical order; kept for the next call in this process.

    Genes with an equal sequence are in one group, and so are genes that ``config.tool`` finds alike.

    Raises:
        InvalidInputError: The dataset has neither RNAs nor proteins.
        MissingDependencyError: The program that was asked for is not installed.
    """
    if not (modalities := compared(dataset)):
        raise InvalidInputError(
            f"{dataset.path} has neither RNAs nor proteins to compare. Split by gene or chromosome."
        )
    wanted = dataset.digest, config.similarity, config.tool
    genes, gene_of_row = genes_of(dataset)
    if (found := _groups.get(wanted)) is not None and len(found) == len(genes):
        return found
    edges = [_edges(dataset, modality, config, gene_of_row, len(genes)) for modality in modalities]
    left, right, n_nodes = list[Ints](), list[Ints](), len(genes)
    for gene, sequence, n_sequences in edges:
        left.append(gene)
        right.append(sequence + n_nodes)  # a node for each sequence, which joins its genes
        n_nodes += n_sequences
    groups = join(len(genes), np.concatenate(left), np.concatenate(right))
    _keep(_groups, wanted, groups, most=_KEPT)
    return groups


def compared(dataset: Dataset) -> tuple[Modality, ...]:
    """Modalities of a dataset that are compared."""
    return tuple(modality for modality in COMPARED if modality in dataset.modalities)


def least_similarity(modality: Modality, similarity: float) -> float:
    """From which similarity on two genes stay together."""
    return similarity if modality == "protein" else max(similarity, _LEAST_RNA)


def dataset_kmers(dataset: Dataset, modality: Modality) -> Kmers:
    """K-mers of the distinct sequences of a modality; kept for the next call in this process."""
    wanted = dataset.digest, modality
    if wanted not in _kmers:
        _keep(_kmers, wanted, count_kmers(dataset.sequences(modality), modality), most=len(COMPARED))
    return _kmers[wanted]


def uses_of(dataset: Dataset, modality: Modality, numbers: Mapping[bytes, int]) -> tuple[Ints, Ints]:
    """Rows that have the modality, and the number of the sequence of each, both (U,)."""
    keys = dataset.keys(modality)
    rows = [row for row, key in enumerate(keys) if key is not None]
    sequences = [numbers[key] for key in keys if key is not None]
    return np.array(rows, dtype=np.int64), np.array(sequences, dtype=np.int64)


def _edges(
    dataset: Dataset, modality: Modality, config: SplitConfig, gene_of_row: Ints, n_genes: int
) -> tuple[Ints, Ints, int]:
    """Genes and sequences that belong together: by use, and by similarity; and the number of sequences."""
    least = least_similarity(modality, config.similarity)
    if config.tool != "built-in":
        numbers, first = cluster_by_tool(dataset.sequences(modality), modality, tool=config.tool, similarity=least)
        rows, sequence = uses_of(dataset, modality, numbers)
        return gene_of_row[rows], first[sequence], len(numbers)
    kmers = dataset_kmers(dataset, modality)
    rows, sequence = uses_of(dataset, modality, kmers.numbers)
    gene = gene_of_row[rows]
    by_gene = gene_profiles(kmers, gene, sequence, n_genes)
    by_sequence = sequence_profiles(kmers, np.arange(len(kmers.numbers)))
    pairs = list(similar_pairs(by_sequence, by_gene, KMER_LENGTH[modality], least))
    genes = np.concatenate([gene, *(pair.gene for pair in pairs)])
    sequences = np.concatenate([sequence, *(pair.sequence for pair in pairs)])
    return genes, sequences, len(kmers.numbers)


def _keep(memory: dict[Key, Value], key: Key, value: Value, *, most: int) -> None:
    """Remember a value, and forget the oldest ones."""
    memory[key] = value
    for old in list(memory)[:-most]:
        del memory[old]
