"""From letters to tokens: how many, which letters each covers, their ids, and what a crop keeps.

Four rules. ``letter``: one token a letter. ``nt-6mer`` (or another k): the Nucleotide Transformer cuts each run
between Ns into 6-mers from its left end; the up to five bases left over, and each N, are tokens of their own.
``codon``: the up to two bases before the frame of the RNA (``codons``), then as ``nt-3mer``. ``bins-<n>``: one token
per n letters, the last bin may be shorter; ``bins-<n>-center-<m>``: of these the m in the middle, all if there are no
more. Special tokens are never counted.
Sequences come normalised (``embedcache.sequences.normalise``). Table look-ups, no tokenizer object: 100 M
letters a second, and one token a letter even where EsmTokenizer merges unknown letters into one.
"""

import re

import numpy as np
from numpy.typing import NDArray

from embedcache.choices import Crop
from embedcache.encoders.codons import codon_frame
from embedcache.encoders.kmers import BASES, base_codes, count_between, kmer_ids, kmer_names, kmer_starts
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
    "base_ids",
    "count_tokens",
    "crop_bounds",
    "esm_ids",
    "kept_bins",
    "kmer_of",
    "nt_ids",
    "nt_vocabulary",
    "token_spans",
]

Integers = NDArray[np.int64]

ESM_VOCABULARY = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")
ESM_CLS, ESM_PAD, ESM_EOS, ESM_MASK = 0, 1, 2, 32
_ESM_UNKNOWN = 3

NT_V2_SPECIAL = ("<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>")
NT_V1_SPECIAL = NT_V2_SPECIAL[:4]  # so that the 6-mers of version 1 have ids two lower
NT_CLS, NT_PAD, NT_MASK = 3, 1, 2
_K = 6

_ESM_TABLE = np.full(256, _ESM_UNKNOWN, np.int64)
for _index, _token in enumerate(ESM_VOCABULARY):
    if len(_token) == 1:
        _ESM_TABLE[ord(_token)] = _index


def count_tokens(sequence: str, rule: str) -> int:
    """Tokens of a normalised sequence, special tokens not counted.

    Raises:
        UnknownNameError: The rule is not ``letter``, ``nt-<k>mer``, ``codon`` or ``bins-<letters>``.
    """
    if k := kmer_of(rule):
        before = _frame(sequence, rule)
        runs = sequence[before:].split("N") if "N" in sequence else (sequence[before:],)
        return before + len(runs) - 1 + sum(len(run) // k + len(run) % k for run in runs)
    start, stop = kept_bins(-(-len(sequence) // _letters_a_token(rule)), rule)
    return stop - start


def kept_bins(n_bins: int, rule: str) -> tuple[int, int]:
    """Bins [start, stop) that have rows, of all that are computed: the middle one stays the middle one."""
    most = _bin_rule(rule)[1]
    start = n_bins // 2 - most // 2
    return (start, start + most) if 0 < most < n_bins else (0, n_bins)


def token_spans(sequence: str, rule: str) -> Integers:
    """Letters [start, stop) that each token covers, shape (tokens, 2)."""
    size = len(sequence)
    if k := kmer_of(rule):
        starts, is_kmer = kmer_starts(base_codes(_bytes(sequence)), k, _frame(sequence, rule))
        stops = starts + np.where(is_kmer, k, 1)
    else:
        per_token = _letters_a_token(rule)
        starts = np.arange(0, size, per_token, dtype=np.int64)
        starts = starts[slice(*kept_bins(len(starts), rule))]
        stops = np.minimum(starts + per_token, size)
    return np.stack([starts, stops], axis=1)


def crop_bounds(sequence: str, rule: str, max_tokens: int, crop: Crop) -> tuple[int, int]:
    """Letters [start, stop): the longest part that fits ``max_tokens``, from the place that the crop names.

    ``keep-3-prime`` keeps a suffix, ``keep-5-prime`` a prefix, ``center`` the middle: the letter at
    ``len // 2`` stays there (a TSS stays in the centre of its window). Under ``nt-6mer`` a few letters
    less may be more tokens (12,282 bases are 2,047, 12,281 are 2,051), so every length is tried. Under ``codon``
    what is kept has the frame of its own longest stretch.

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
    k = kmer_of(rule)
    longest = max_tokens * (k or _letters_a_token(rule))
    lengths = np.arange(min(longest, size), -1, -1)  # longest first
    middle = size // 2 - lengths // 2
    start = {"keep-3-prime": size - lengths, "keep-5-prime": 0 * lengths, "center": middle}[crop]
    best = 0
    if k:
        counts = count_between(base_codes(_bytes(sequence)), start, start + lengths, k)
        best = int(np.argmax(counts <= max_tokens))  # the first that fits; length 0 always does
    while rule == "codon" and count_tokens(sequence[start[best] : start[best] + lengths[best]], rule) > max_tokens:
        best += 1  # its frame may cost up to four tokens more than none
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
    return kmer_ids(base_codes(_bytes(sequence)), _K, special)


def base_ids(sequence: str, rule: str, special: int) -> Integers:
    """Ids of k-mers and single bases under ``nt-<k>mer`` or ``codon``, after so many special tokens."""
    return kmer_ids(base_codes(_bytes(sequence)), kmer_of(rule), special, _frame(sequence, rule))


def nt_vocabulary(special: tuple[str, ...] = NT_V2_SPECIAL) -> list[str]:
    """All tokens in the order of their ids: special, 6-mers (AAAAAA, AAAAAT, AAAAAC, ...), A T C G N."""
    return [*special, *kmer_names(_K), *BASES]


def _bytes(sequence: str) -> NDArray[np.uint8]:
    return np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)


def kmer_of(rule: str) -> int:
    """Bases of a k-mer under a rule; 0 under rules of other tokens."""
    found = re.fullmatch(r"nt-([1-9])mer", rule)
    return int(found[1]) if found else 3 if rule == "codon" else 0


def _frame(sequence: str, rule: str) -> int:
    """Letters before the first 3-mer, each a token of its own."""
    return codon_frame(_bytes(sequence)) if rule == "codon" else 0


def _letters_a_token(rule: str) -> int:
    return _bin_rule(rule)[0]


def _bin_rule(rule: str) -> tuple[int, int]:
    """Letters of a token, and how many tokens have rows, 0 for all."""
    if rule == "letter":
        return 1, 0
    if found := re.fullmatch(r"bins-([1-9]\d*)(?:-center-([1-9]\d*))?", rule):
        return int(found[1]), int(found[2] or 0)
    raise UnknownNameError("token rule", rule, ["letter", "nt-6mer", "codon", "bins-<letters>"])
