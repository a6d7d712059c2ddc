"""Bases cut into k-mers: each run between Ns from its left end; what is left over, and each N, stands alone."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASES", "base_codes", "count_between", "kmer_ids", "kmer_names", "kmer_starts"]

Integers = NDArray[np.int64]

BASES = "ATCGN"
"""In the order of the Nucleotide Transformers, not A C G T."""
_TABLE = np.full(256, BASES.index("N"), np.int64)
for _index, _letter in enumerate(BASES):
    _TABLE[ord(_letter)] = _index


def base_codes(letters: NDArray[np.uint8]) -> Integers:
    """Place of each letter in ``BASES``; any other letter counts as N."""
    codes: Integers = _TABLE[letters]
    return codes


def kmer_names(k: int) -> list[str]:
    """All k-mers in the order of their ids: AAAAAA, AAAAAT, AAAAAC, ..."""
    names = [""]
    for _ in range(k):
        names = [name + base for name in names for base in BASES[:4]]
    return names


def kmer_starts(codes: Integers, k: int, before: int = 0) -> tuple[Integers, NDArray[np.bool_]]:
    """First letter of each token, and whether it is a k-mer.

    Args:
        codes: Of ``base_codes``.
        k: Bases of a k-mer.
        before: Letters in front that stand alone whatever they are.
    """
    if before:
        starts, is_kmer = kmer_starts(codes[before:], k)
        alone = np.arange(min(before, len(codes)))
        return np.concatenate([alone, starts + before]), np.concatenate([alone < 0, is_kmer])
    size = len(codes)
    is_n = codes == BASES.index("N")
    if not is_n.any():
        kmers = size // k
        starts = np.concatenate([np.arange(kmers) * k, np.arange(kmers * k, size)])
        return starts, np.arange(len(starts)) < kmers
    begin, end = _run_bounds(is_n)
    offset = np.arange(size) - begin
    in_kmer = ~is_n & (offset < (end - begin) // k * k)
    is_start = ~in_kmer | (offset % k == 0)
    starts = np.flatnonzero(is_start)
    return starts, in_kmer[starts]


def kmer_ids(codes: Integers, k: int, special: int, before: int = 0) -> Integers:
    """Ids of the tokens: after ``special`` others come all k-mers, then single bases. Arguments as ``kmer_starts``."""
    starts, is_kmer = kmer_starts(codes, k, before)
    ids: Integers = special + 4**k + codes[starts]
    values = 4 ** np.arange(k - 1, -1, -1)
    ids[is_kmer] = special + codes[starts[is_kmer][:, None] + np.arange(k)] @ values
    return ids


def count_between(codes: Integers, start: Integers, stop: Integers, k: int) -> Integers:
    """Tokens of each part [start, stop) of a sequence."""
    is_n = codes == BASES.index("N")
    begin, end = _run_bounds(is_n)
    last_run = np.arange(len(codes) + 1) - np.append(0, begin)  # letters after the last N of each prefix
    closed = np.where(is_n, _tokens_in_run(last_run[:-1], k) + 1, 0)  # an N, and the run that it ends
    prefix = np.append(0, np.cumsum(closed)) + _tokens_in_run(last_run, k)
    first_end = np.minimum(np.append(end, len(codes))[start], stop)
    counts: Integers = _tokens_in_run(first_end - start, k) + prefix[stop] - prefix[first_end]
    # within one run the prefix says nothing: the k-mers begin at ``start``
    return np.where(first_end < stop, counts, _tokens_in_run(stop - start, k))


def _tokens_in_run(letters: Integers, k: int) -> Integers:
    return letters // k + letters % k


def _run_bounds(is_n: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """First letter and end of the run between Ns around each letter; an N begins after itself."""
    size = len(is_n)
    where = np.arange(size)
    begin = np.maximum.accumulate(np.where(is_n, where + 1, 0))
    end = np.minimum.accumulate(np.where(is_n, where, size)[::-1])[::-1]
    return begin, end
