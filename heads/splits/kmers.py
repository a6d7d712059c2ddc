"""K-mers of sequences: which sequence has which, all of them or a fixed share.

Shapes: S sequences, E entries (a k-mer of a sequence), C distinct k-mers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embedcache.sequences import Modality

__all__ = ["KMER_LENGTH", "Kmers", "count_kmers"]

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]

KMER_LENGTH: dict[Modality, int] = {"dna": 16, "rna": 16, "protein": 6}
"""So long that two unrelated sequences share one by chance only now and then."""

_LEAST_LETTERS: dict[Modality, int] = {"dna": 3, "rna": 3, "protein": 4}
"""K-mers of fewer different letters, such as QQQQQN or a tail of A, are common to sequences without kinship."""
_LETTERS_AT_ONCE = 1 << 22
_ALPHABET: dict[Modality, bytes] = {"dna": b"ACGT", "rna": b"ACGT", "protein": b"ACDEFGHIKLMNPQRSTVWY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kmers:
    """Which of the distinct sequences of one modality has which k-mer."""

    modality: Modality
    numbers: dict[bytes, int]
    """Number of each sequence, by its key."""
    matrix: csr_array
    """(S, C), int32: 1 where a sequence has a k-mer; k-mers of one sequence only have no column."""
    alone: Ints
    """(S,): k-mers of each sequence that no other one has."""
    every: int
    """One k-mer in this many was looked at, the same ones in every sequence."""


def count_kmers(records: Iterable[tuple[bytes, str]], modality: Modality, *, most: int = 1 << 23) -> Kmers:
    """Find the k-mers of sequences, but those of few different letters.

    Letters such as N and X, of which nothing is known, are in none.

    Args:
        records: Key and sequence, each distinct sequence once.
        modality: Decides the alphabet and the length of a k-mer.
        most: Most k-mers to keep, which bounds time and memory. Where there are more, the same share of all
            possible k-mers is looked at in every sequence, so that shares of common ones stay what they are.
    """
    numbers, hashes, owners, every = dict[bytes, int](), list[Hashes](), list[Numbers](), 1
    for block in _blocks(records):
        first = len(numbers)
        numbers.update((key, first + i) for i, (key, _) in enumerate(block))
        found, owner = _hash_block([sequence for _, sequence in block], modality, every)
        hashes.append(found)
        owners.append(owner + np.int32(first))
        while sum(map(len, hashes)) > most:
            every *= 2
            kept = [_is_kept(part, every) for part in hashes]
            hashes = [part[mask] for part, mask in zip(hashes, kept, strict=True)]
            owners = [part[mask] for part, mask in zip(owners, kept, strict=True)]
    found = np.concatenate([np.zeros(0, dtype=np.uint64), *hashes])
    matrix, alone = _shared(found, np.concatenate([np.zeros(0, dtype=np.int32), *owners]), len(numbers))
    return Kmers(modality=modality, numbers=numbers, matrix=matrix, alone=alone, every=every)


def _shared(hashes: Hashes, owners: Numbers, n_sequences: int) -> tuple[csr_array, Ints]:
    """The matrix of k-mers that several sequences have, and how many others each sequence has."""
    # Most k-mers are in one sequence. Counting their first bits finds most of these without a sort.
    bits = np.uint64(64 - min(len(hashes).bit_length() + 1, 24))
    first_bits = (hashes >> bits).astype(np.int64)
    is_alone = np.bincount(first_bits)[first_bits] == 1
    alone = np.bincount(owners[is_alone], minlength=n_sequences)
    hashes, owners = hashes[~is_alone], owners[~is_alone]
    columns, n_columns = _rank(hashes)
    matrix = csr_array((np.ones(len(owners), dtype=np.int32), (owners, columns)), shape=(n_sequences, n_columns))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    users = np.bincount(matrix.indices, minlength=n_columns)
    shared = matrix[:, np.flatnonzero(users > 1)]
    return shared, alone + np.diff(matrix.indptr) - np.diff(shared.indptr)


def _blocks(records: Iterable[tuple[bytes, str]]) -> Iterable[list[tuple[bytes, str]]]:
    """Records in blocks whose arrays fit into memory."""
    block, letters = list[tuple[bytes, str]](), 0
    for record in records:
        block.append(record)
        letters += len(record[1]) + 1
        if letters >= _LETTERS_AT_ONCE:
            yield block
            block, letters = [], 0
    if block:
        yield block


def _hash_block(sequences: list[str], modality: Modality, every: int) -> tuple[Hashes, Numbers]:
    """Hashes of the k-mers of each sequence and the number of the sequence, both (E,)."""
    k, alphabet = KMER_LENGTH[modality], _ALPHABET[modality]
    table = np.full(256, -1, dtype=np.int8)
    table[list(alphabet)] = np.arange(len(alphabet))
    letters = table[np.frombuffer(("\0".join(sequences) + "\0" * k).encode(), dtype=np.uint8)]
    unknown = np.cumsum(letters < 0, dtype=np.int32)
    n = len(letters) - k + 1
    hashes = _mix(_codes(letters, k, len(alphabet)))
    # The first letter is known, and none becomes unknown up to the last.
    kept = (letters[:n] >= 0) & (unknown[k - 1 :] == unknown[:n])
    kept &= _different_letters(letters, k, len(alphabet)) >= _LEAST_LETTERS[modality]
    if every > 1:
        kept &= _is_kept(hashes, every)
    lengths = [len(sequence) + 1 for sequence in sequences]
    owners = np.repeat(np.arange(len(sequences), dtype=np.int32), lengths)
    return hashes[kept], owners[kept]


def _codes(letters: NDArray[np.int8], k: int, base: int) -> Hashes:
    """Number of the k-mer at each start; doubled in length again and again, which takes log k steps."""
    singles = np.maximum(letters, 0).astype(np.uint64)
    codes, length = singles, 1
    for bit in bin(k)[3:]:
        codes = codes[:-length] * np.uint64(base**length) + codes[length:]
        length *= 2
        if bit == "1":
            codes = codes[:-1] * np.uint64(base) + singles[length:]
            length += 1
    return codes


def _different_letters(letters: NDArray[np.int8], k: int, n_letters: int) -> NDArray[np.uint8]:
    """How many different letters the k-mer at each start has."""
    singles = np.uint32(1) << np.maximum(letters, 0).astype(np.uint32)
    n = len(letters) - k + 1
    found = np.bitwise_or.reduce([singles[i : i + n] for i in range(k)])
    counts = np.zeros(1 << n_letters, dtype=np.uint8)
    for letter in range(n_letters):
        counts[1 << letter : 2 << letter] = counts[: 1 << letter] + 1
    return counts[found]


def _mix(codes: Hashes) -> Hashes:
    """Scatter numbers over 64 bits, one to one (the finaliser of splitmix64)."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = codes ^ (codes >> np.uint64(31))
    return mixed


def _is_kept(hashes: Hashes, every: int) -> NDArray[np.bool_]:
    """Whether a k-mer is of the kept share, a power of two: the same k-mers in all sequences."""
    kept: NDArray[np.bool_] = (hashes & np.uint64(every - 1)) == 0
    return kept


def _rank(hashes: Hashes) -> tuple[Numbers, int]:
    """Rank of each hash among the distinct ones, and how many these are."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    ranks = np.zeros(len(hashes), dtype=np.int32)
    ranks[order[1:]] = np.cumsum(ordered[1:] != ordered[:-1], dtype=np.int32)
    return ranks, int(ranks.max(initial=-1)) + 1
