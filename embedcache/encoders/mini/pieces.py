"""Training sequences cut into pieces of tokens, in a new way each epoch, and put together in packs."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.packing import Vocabulary
from embedcache.encoders.tokens import kmer_of
from embedcache.genome import reverse_complement

__all__ = ["cut_genome", "cut_tokens", "packs", "windows_of_genome"]

Integers = NDArray[np.int64]
MOST_N = 0.1
"""A window of DNA with a larger share of N is left out."""


def cut_tokens(tokens: Sequence[Integers], most: int, draw: np.random.Generator) -> Iterator[Integers]:
    """Pieces of at most ``most`` tokens of each sequence; those that are longer are cut at a new place each time."""
    for one in tokens:
        if len(one) <= most:
            yield one
            continue
        first = int(draw.integers(1, most + 1))
        bounds = [0, *range(first, len(one), most), len(one)]
        yield from (one[a:b] for a, b in pairwise(bounds))


def windows_of_genome(contigs: Sequence[str], letters: int, draw: np.random.Generator | None) -> Iterator[str]:
    """Windows over all contigs: with a generator from a new place and on a drawn strand each time."""
    for contig in contigs:
        first = 0 if draw is None else int(draw.integers(0, letters))
        for start in range(first, len(contig) - letters + 1, letters):
            window = contig[start : start + letters]
            if window.count("N") <= MOST_N * letters:
                yield reverse_complement(window) if draw is not None and draw.random() < 0.5 else window


def cut_genome(
    contigs: Sequence[str], rule: str, vocabulary: Vocabulary, most: int, draw: np.random.Generator | None
) -> Iterator[Integers]:
    """Token ids of such windows, of at most ``most`` tokens."""
    for window in windows_of_genome(contigs, most * max(1, kmer_of(rule)), draw):
        yield vocabulary.ids(window)[:most]


def packs(pieces: list[Integers], budget: int, draw: np.random.Generator) -> Iterator[list[Integers]]:
    """All pieces in a drawn order, about ``budget`` tokens together, longest first."""
    pack: list[Integers] = []
    used = 0
    for i in draw.permutation(len(pieces)):
        pack.append(pieces[i])
        used += len(pieces[i])
        if used >= budget:
            yield sorted(pack, key=len, reverse=True)
            pack, used = [], 0
    if pack:
        yield sorted(pack, key=len, reverse=True)
