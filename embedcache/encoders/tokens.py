"""From letters to tokens: how many, which letters each covers, their ids, and what a crop keeps.

Three rules. ``letter``: one token a letter. ``nt-6mer``: the Nucleotide Transformer cuts each run between
Ns into 6-mers from its left end; the up to five bases left over, and each N, are tokens of their own.
``bins-<n>``: one token per n letters, the last bin may be shorter. Special tokens are never counted.
Sequences come normalised (``embedcache.sequences.normalise``). Table look-ups, no tokenizer object: 100 M
letters a second, and one token a letter even where EsmTokenizer merges unknown letters into one.
"""

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidSequenceError, UnknownNameError

__all__ = [
    "ESM_CLS",
    "ESM_EOS",
    "ESM_MASK",
    "ESM_PAD",
    "ESM_VOCABULARY",
    "NT_CLS",
    "NT_MASK",
    "NT_PAD",
    "NT_V1_SPECIAL",
    "NT_V2_SPECIAL",
    "Crop",
    "count_tokens",
    "crop_bounds",
    "crop_sequence",
    "esm_ids",
    "nt_ids",
    "nt_vocabulary",
    "token_spans",
]

Crop = Literal["error", "keep-3-prime", "keep-5-prime", "center", "windows"]
Integers = NDArray[np.int64]

ESM_VOCABULARY = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")
ESM_CLS, ESM_PAD, ESM_EOS, ESM_MASK = 0, 1, 2, 32
_ESM_UNKNOWN = 3

NT_V2_SPECIAL = ("<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>")
NT_V1_SPECIAL = NT_V2_SPECIAL[:4]  # so that the 6-mers of version 1 have ids two lower
NT_CLS, NT_PAD, NT_MASK = 3, 1, 2
_NT_BASES = "ATCGN"  # this order, not A C G T
_K = 6

_ESM_TABLE = np.full(256, _ESM_UNKNOWN, np.int64)
for _index, _token in enumerate(ESM_VOCABULARY):
    if len(_token) == 1:
        _ESM_TABLE[ord(_token)] = _index

_NT_TABLE = np.full(256, _NT_BASES.index("N"), np.int64)
for _index, _token in enumerate(_NT_BASES):
    _NT_TABLE[ord(_token)] = _index
_PLACE_VALUES = 4 ** np.arange(_K - 1, -1, -1)


def count_tokens(sequence: str, rule: str) -> int:
    """Tokens of a normalised sequence, special tokens not counted.

    Raises:
        UnknownNameError: The rule is not ``letter``, ``nt-6mer`` or ``bins-<letters>``.
    """
    if rule == "nt-6mer":
        runs = sequence.split("N") if "N" in sequence else (sequence,)
        return len(runs) - 1 + sum(len(run) // _K + len(run) % _K for run in runs)
    return -(-len(sequence) // _letters_a_token(rule))


def token_spans(sequence: str, rule: str) -> Integers:
    """Letters [start, stop) that each token covers, shape (tokens, 2)."""
    size = len(sequence)
    if rule == "nt-6mer":
        starts, is_kmer = _nt_starts(_NT_TABLE[_bytes(sequence)])
        stops = starts + np.where(is_kmer, _K, 1)
    else:
        per_token = _letters_a_token(rule)
        starts = np.arange(0, size, per_token, dtype=np.int64)
        stops = np.minimum(starts + per_token, size)
    return np.stack([starts, stops], axis=1)


def crop_sequence(sequence: str, rule: str, max_tokens: int, crop: Crop) -> str:
    """The part of a sequence that a crop keeps, see ``crop_bounds``."""
    start, stop = crop_bounds(sequence, rule, max_tokens, crop)
    return sequence[start:stop]


def crop_bounds(sequence: str, rule: str, max_tokens: int, crop: Crop) -> tuple[int, int]:
    """Letters [start, stop): the longest part that fits ``max_tokens``, from the place that the crop names.

    ``keep-3-prime`` keeps a suffix, ``keep-5-prime`` a prefix, ``center`` the middle: the letter at
    ``len // 2`` stays there (a TSS stays in the centre of its window). Under ``nt-6mer`` a few letters
    less may be more tokens (12,282 bases are 2,047, 12,281 are 2,051), so every length is tried.

    ``windows`` keeps all: windows of the sequence are embedded, see ``windows``.

    Raises:
        InvalidSequenceError: The sequence is too long and the crop is ``error``.
    """
    found = count_tokens(sequence, rule)
    if found <= max_tokens or crop == "windows":
        return 0, len(sequence)
    if crop == "error":
        raise InvalidSequenceError(
            f"{len(sequence)} letters are {found} tokens, more than the {max_tokens} allowed. "
            "Choose a crop (windows, keep-3-prime, keep-5-prime or center), or shorter input."
        )
    size = len(sequence)
    longest = max_tokens * (_K if rule == "nt-6mer" else _letters_a_token(rule))
    lengths = np.arange(min(longest, size), -1, -1)  # longest first
    middle = size // 2 - lengths // 2
    start = {"keep-3-prime": size - lengths, "keep-5-prime": 0 * lengths, "center": middle}[crop]
    if rule == "nt-6mer":
        fits = _count_between(_NT_TABLE[_bytes(sequence)], start, start + lengths) <= max_tokens
        best = int(np.argmax(fits))  # the first that fits; length 0 always does
    else:
        best = 0
    return int(start[best]), int(start[best] + lengths[best])


def esm_ids(sequence: str) -> Integers:
    """Ids of residues for ESM-2, one a letter, without ``<cls>`` and ``<eos>``; J is ``<unk>``."""
    ids: Integers = _ESM_TABLE[_bytes(sequence)]
    return ids


def nt_ids(sequence: str, special: int = len(NT_V2_SPECIAL)) -> Integers:
    """Ids of 6-mers and single bases for the Nucleotide Transformer, without ``<cls>``.

    Args:
        sequence: Letters A C G T N; any other letter counts as N.
        special: Special tokens before the first 6-mer: 6 in version 2, 4 in version 1.
    """
    codes = _NT_TABLE[_bytes(sequence)]
    starts, is_kmer = _nt_starts(codes)
    ids: Integers = special + 4**_K + codes[starts]
    ids[is_kmer] = special + codes[starts[is_kmer][:, None] + np.arange(_K)] @ _PLACE_VALUES
    return ids


def nt_vocabulary(special: tuple[str, ...] = NT_V2_SPECIAL) -> list[str]:
    """All tokens in the order of their ids: special, 6-mers (AAAAAA, AAAAAT, AAAAAC, ...), A T C G N."""
    kmers = [""]
    for _ in range(_K):
        kmers = [kmer + base for kmer in kmers for base in "ATCG"]
    return [*special, *kmers, *_NT_BASES]


def _bytes(sequence: str) -> NDArray[np.uint8]:
    return np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)


def _letters_a_token(rule: str) -> int:
    if rule == "letter":
        return 1
    if found := re.fullmatch(r"bins-([1-9]\d*)", rule):
        return int(found[1])
    raise UnknownNameError("token rule", rule, ["letter", "nt-6mer", "bins-<letters>"])


def _run_bounds(is_n: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """First letter and end of the run between Ns around each letter; an N begins after itself."""
    size = len(is_n)
    where = np.arange(size)
    begin = np.maximum.accumulate(np.where(is_n, where + 1, 0))
    end = np.minimum.accumulate(np.where(is_n, where, size)[::-1])[::-1]
    return begin, end


def _nt_starts(codes: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """First letter of each token, and whether it is a 6-mer."""
    size = len(codes)
    is_n = codes == _NT_BASES.index("N")
    if not is_n.any():
        kmers = size // _K
        starts = np.concatenate([np.arange(kmers) * _K, np.arange(kmers * _K, size)])
        return starts, np.arange(len(starts)) < kmers
    begin, end = _run_bounds(is_n)
    offset = np.arange(size) - begin
    in_kmer = ~is_n & (offset < (end - begin) // _K * _K)
    is_start = ~in_kmer | (offset % _K == 0)
    starts = np.flatnonzero(is_start)
    return starts, in_kmer[starts]


def _count_between(codes: Integers, start: Integers, stop: Integers) -> Integers:
    """Tokens of each part [start, stop) of a sequence."""
    is_n = codes == _NT_BASES.index("N")
    begin, end = _run_bounds(is_n)
    last_run = np.arange(len(codes) + 1) - np.append(0, begin)  # letters after the last N of each prefix
    closed = np.where(is_n, _tokens_in_run(last_run[:-1]) + 1, 0)  # an N, and the run that it ends
    prefix = np.append(0, np.cumsum(closed)) + _tokens_in_run(last_run)
    first_end = np.minimum(np.append(end, len(codes))[start], stop)
    counts: Integers = _tokens_in_run(first_end - start) + prefix[stop] - prefix[first_end]
    # within one run the prefix says nothing: the 6-mers begin at ``start``
    return np.where(first_end < stop, counts, _tokens_in_run(stop - start))


def _tokens_in_run(letters: Integers) -> Integers:
    return letters // _K + letters % _K
