"""What can be counted in a sequence without any encoder: lengths, k-mers, codons, residues.

Shapes: N rows of a dataset, F features.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.sequences import Modality

__all__ = ["composition_features", "count_kmers", "length_features"]

Array = NDArray[np.float64]

_KMER = 4
_NUCLEOTIDES = np.full(256, -1, dtype=np.int64)
_NUCLEOTIDES[list(b"ACGT")] = range(4)


def length_features(dataset: Dataset) -> Array:
    """Log lengths of RNA, 5' UTR, CDS, 3' UTR and protein, whichever the dataset has, (N, F).

    A length that is not known is 0, and a column beside says where. DNA windows have one length and are left out.
    """
    n_rows = len(dataset.samples)
    lengths: dict[str, Array] = {}
    for modality in ("rna", "protein"):
        if modality in dataset.modalities:
            by_key = {key: len(sequence) for key, sequence in dataset.sequences(modality)}
            lengths[modality] = np.array([np.nan if key is None else by_key[key] for key in dataset.keys(modality)])
    start, end = _cds_bounds(dataset)
    rna = lengths.get("rna", np.full(n_rows, np.nan))
    lengths |= {"5utr": start, "cds": end - start, "3utr": rna - end}
    columns = []
    for values in lengths.values():
        missing = np.isnan(values)
        if missing.all():
            continue
        columns.append(np.log1p(np.where(missing, 0, values)))
        if missing.any():
            columns.append(missing.astype(np.float64))
    return np.stack(columns, axis=1) if columns else np.zeros((n_rows, 0))


def composition_features(dataset: Dataset) -> Array:
    """Shares of 4-mers in DNA and RNA, of codons in the CDS and of residues in the protein, (N, F).

    Whatever the dataset has; a modality that a row lacks gives zeros, and a column beside says where.
    """
    blocks: list[Array] = []
    for modality in dataset.modalities:
        blocks += _shares(dataset, modality)
        lacks = np.array([key is None for key in dataset.keys(modality)], dtype=np.float64)
        if lacks.any():
            blocks.append(lacks[:, None])
    return np.concatenate(blocks, axis=1)


def count_kmers(sequence: str, k: int, step: int = 1) -> Array:
    """Shares of the 4^k k-mers among those without N, in the order of A C G T; zeros if there is none.

    Args:
        sequence: Letters A C G T N.
        k: Length of a k-mer.
        step: Distance of their starts: 3 with k = 3 counts the codons of a CDS.
    """
    letters = _NUCLEOTIDES[np.frombuffer(sequence.encode(), dtype=np.uint8)]
    n = max(len(letters) - k + 1, 0)
    codes, whole = np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool)
    for i in range(k):
        codes = 4 * codes + letters[i : i + n]
        whole &= letters[i : i + n] >= 0
    counts = np.bincount(codes[::step][whole[::step]], minlength=4**k).astype(np.float64)
    shares: Array = counts / max(counts.sum(), 1)
    return shares


def _shares(dataset: Dataset, modality: Modality) -> list[Array]:
    """Blocks (N, F) of one modality, from one pass over its sequences."""
    rows_of = defaultdict(list)
    for row, key in enumerate(dataset.keys(modality)):
        rows_of[key].append(row)
    n_rows = len(dataset.samples)
    if modality == "protein":
        residues = np.zeros((n_rows, 26))
        for key, sequence in dataset.sequences("protein"):
            letters = np.frombuffer(sequence.encode(), dtype=np.uint8) - ord("A")
            residues[rows_of[key]] = np.bincount(letters, minlength=26) / len(letters)
        return [residues]
    kmers, codons = np.zeros((n_rows, 4**_KMER)), np.zeros((n_rows, 64))
    start, end = _cds_bounds(dataset)
    for key, sequence in dataset.sequences(modality):
        kmers[rows_of[key]] = count_kmers(sequence, _KMER)
        for row in rows_of[key] if modality == "rna" else ():
            if not np.isnan(start[row]):
                codons[row] = count_kmers(sequence[int(start[row]) : int(end[row])], 3, step=3)
    return [kmers, codons] if codons.any() else [kmers]


def _cds_bounds(dataset: Dataset) -> tuple[Array, Array]:
    """Start and end of the CDS of each row as floats, NaN where there is none."""
    bounds: list[Array] = [
        np.asarray(dataset.samples[name].astype("Float64").to_numpy(np.float64, na_value=np.nan), np.float64)
        for name in ("cds_start", "cds_end")
    ]
    return bounds[0], bounds[1]
