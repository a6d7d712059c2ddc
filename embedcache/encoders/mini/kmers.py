"""What counting tells of a masked token: rates of tokens given their neighbours, to compare a network with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHAINS", "KmerRates"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

CHAINS = (((0, 0), (1, 0), (2, 0), (3, 0)), ((0, 0), (1, 0), (1, 1), (2, 1), (2, 2)))
"""Neighbours to the left and to the right, each longer context leaning on the one before: a chain from the left as in
a Markov model, and one that sees both sides, as the network does."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Counts of one context length."""

    contexts: Integers
    totals: Integers
    pairs: Integers
    counts: Integers


class KmerRates:
    """Counts of tokens after contexts, in training sequences; probabilities with each length leaning on the shorter.

    The probability of token t in context c is ``(n(c, t) + s * p(t)) / (n(c) + s)``, with p that of the context one
    step shorter, and the strength s given.
    """

    def __init__(self, sequences: Sequence[Integers], size: int) -> None:
        """Count; ``size`` is the number of tokens in the vocabulary."""
        self._size = size
        flat, bounds = _joined(sequences, size)
        self._tables = {}
        for context in sorted({context for chain in CHAINS for context in chain}):
            codes = _codes(flat, bounds, *context, size)
            contexts, totals = np.unique(codes, return_counts=True)
            pairs, counts = np.unique(codes * size + flat[bounds], return_counts=True)
            self._tables[context] = _Table(contexts, totals, pairs, counts)

    def perplexities(
        self, sequences: Sequence[Integers], masked: Sequence[Integers], strength: float
    ) -> dict[str, float]:
        """Exponential of the mean negative log probability of tokens, for each context length.

        Args:
            sequences: Token ids of held-out sequences.
            masked: Places of the tokens that are asked for, in each sequence.
            strength: How many observations the shorter context is worth.

        Returns:
            By context such as ``2+1`` for two tokens to the left and one to the right; ``0+0`` are the plain rates.
        """
        flat, bounds = _joined(sequences, self._size)
        starts = np.cumsum([0, *(len(one) for one in sequences[:-1])])
        chosen = bounds[np.concatenate([start + places for start, places in zip(starts, masked, strict=True)])]
        found: dict[str, float] = {}
        for chain in CHAINS:
            p: Floats = np.full(len(chosen), 1.0 / self._size)
            for context in chain:
                p = self._mixed(
                    _codes(flat, chosen, *context, self._size), flat[chosen], self._tables[context], p, strength
                )
                found["+".join(map(str, context))] = float(np.exp(-np.log(p).mean()))
        return found

    def _mixed(self, codes: Integers, tokens: Integers, table: _Table, p: Floats, strength: float) -> Floats:
        total = _looked_up(table.contexts, table.totals, codes)
        count = _looked_up(table.pairs, table.counts, codes * self._size + tokens)
        mixed: Floats = (count + strength * p) / (total + strength)
        return mixed


def _joined(sequences: Sequence[Integers], size: int) -> tuple[Integers, Integers]:
    """All tokens with three of a token outside the vocabulary around each sequence, and where the tokens are."""
    edge = np.full(3, size - 1, np.int64)
    flat = np.concatenate([part for one in sequences for part in (edge, one)] + [edge])
    lengths = np.array([len(one) for one in sequences])
    firsts = np.cumsum([3, *(lengths[:-1] + 3)])
    places = np.arange(lengths.sum()) + np.repeat(firsts - np.cumsum([0, *lengths[:-1]]), lengths)
    return flat, places


def _codes(flat: Integers, places: Integers, left: int, right: int, size: int) -> Integers:
    """One number for the neighbours of each place."""
    codes: Integers = np.zeros(len(places), np.int64)
    for offset in (*range(-left, 0), *range(1, right + 1)):
        codes = codes * size + flat[places + offset]
    return codes


def _looked_up(keys: Integers, values: Integers, wanted: Integers) -> Integers:
    """Values of sorted keys; 0 for a key that is not there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Integers = np.where(keys[at] == wanted, values[at], 0)
    return found
