"""Codons: which of the three frames of an RNA to read, found from its letters alone.

The frame is that of the longest stretch without a stop codon. A stretch needs no start codon, so an RNA that was
cropped inside its coding sequence keeps its frame; of an RNA without coding sequence the frame means nothing, and is
the same each time.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["codon_frame"]

_CODES = np.full(256, 4, np.int64)
for _code, _letter in enumerate("ACGT"):
    _CODES[ord(_letter)] = _code
_STOPS = np.zeros(125, bool)
for _stop in ("TAA", "TAG", "TGA"):
    _STOPS[sum("ACGT".index(letter) * 5 ** (2 - place) for place, letter in enumerate(_stop))] = True


def codon_frame(letters: NDArray[np.uint8]) -> int:
    """Letters before the first codon: 0, 1 or 2.

    Args:
        letters: A normalised sequence as bytes, (letters,). Other letters than A C G T make no stop codon.

    Returns:
        The frame with the longest stretch free of stop codons (TAA, TAG, TGA); the first of equal ones.
    """
    codes = _CODES[letters]
    triplets = 25 * codes[:-2] + 5 * codes[1:-1] + codes[2:]
    is_stop = _STOPS[triplets]
    longest = [_longest_stretch(is_stop[frame::3]) for frame in range(3)]
    return int(np.argmax(longest))


def _longest_stretch(is_stop: NDArray[np.bool_]) -> int:
    """Most neighbouring codons none of which is a stop."""
    bounds = np.concatenate([[-1], np.flatnonzero(is_stop), [len(is_stop)]])
    return int(np.diff(bounds).max()) - 1
