"""Long input through an encoder with a limit: overlapping windows, stitched by distance to their edges.

Windows are cut between tokens. A part of the tokens of a sequence, written as its letters, has just these
tokens again, under every token rule: 6-mers keep their frame, since a window begins where a token begins, and
what is left over before an N stays left over. Each token takes its row from the window in which it is
farthest from an inner edge, where context is missing on one side only because the window ends. The ends of the
sequence are no such edges. So every row is, bit for bit, a row of the plain pass of one window, and a sequence
that fits one window is embedded as without the rule.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.layers import OneLayer
from embedcache.encoders.spec import Encoder, LayeredEncoder
from embedcache.encoders.tokens import token_spans
from embedcache.errors import EmbedCacheError

__all__ = ["Window", "WindowedEncoder", "plan_windows", "window_letters"]

TOKENS_PER_CALL = 16_384
"""Fills a GPU; an encoder on a CPU takes as many tokens of a call at a time as suit it."""
Rows = NDArray[np.float32]


class Window(NamedTuple):
    """Tokens [start, stop) of a sequence are embedded together; rows of [first, last) among them are kept."""

    start: int
    stop: int
    first: int
    last: int


def plan_windows(n_tokens: int, size: int, overlap: int) -> list[Window]:
    """Windows over the tokens of a sequence.

    Args:
        n_tokens: Tokens of the sequence.
        size: Tokens of a window, at least 1.
        overlap: Tokens that neighbours share at least, less than ``size``.

    Returns:
        One window up to ``size`` tokens; else full-sized ones, of which the last is moved back to the end of
        the sequence. What they keep covers every token once, in order. Ties go to the earlier window.
    """
    starts = [*range(0, max(n_tokens - size, 0), size - overlap), max(n_tokens - size, 0)]
    stops = [min(start + size, n_tokens) for start in starts]
    # a token is nearer to the end of one window than to the start of the next from half of what they share
    borders = [0, *((stop + start + 1) // 2 for stop, start in zip(stops[:-1], starts[1:], strict=True)), n_tokens]
    return [Window(*fields) for fields in zip(starts, stops, borders[:-1], borders[1:], strict=True)]


def window_letters(sequence: str, rule: str, windows: Sequence[Window]) -> list[str]:
    """Letters of each window; tokenised by the rule they are its tokens."""
    if len(windows) == 1:
        return [sequence]
    spans = token_spans(sequence, rule)
    return [sequence[spans[window.start, 0] : spans[window.stop - 1, 1]] for window in windows]


class _Part(NamedTuple):
    """One window of one sequence of a batch."""

    sequence: int
    window: Window
    letters: str


class WindowedEncoder:
    """An encoder of the crop ``windows``: cuts sequences, embeds the windows, stitches. A ``LayeredEncoder``.

    Attributes:
        spec: That of the encoder.
        encoder: Embeds one window as if it were a sequence.
        tokens_per_call: Tokens of windows that it gets at a time, so that a sequence of any length needs no
            more memory than its rows and one such call.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.spec = encoder.spec
        self.encoder: LayeredEncoder = encoder if isinstance(encoder, LayeredEncoder) else OneLayer(encoder)
        self.tokens_per_call = TOKENS_PER_CALL

    def encode(self, sequences: Sequence[str]) -> list[Rows]:
        """Embed normalised sequences of any length: (tokens, width) each, in their order."""
        return self.encode_layers(sequences, [self.spec.layer])[self.spec.layer]

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[Rows]]:
        """Embed sequences once for several layers, see ``spec.LayeredEncoder``."""
        lengths = [self.spec.n_tokens(sequence) for sequence in sequences]
        stitched = {layer: [np.empty((0, self.spec.width), np.float32)] * len(sequences) for layer in layers}
        for call in self._calls(sequences, lengths):
            found = self.encoder.encode_layers([part.letters for part in call], layers)
            for layer in layers:
                for part, rows in zip(call, found[layer], strict=True):
                    self._put(stitched[layer], part, rows, lengths[part.sequence])
        return stitched

    def _calls(self, sequences: Sequence[str], lengths: Sequence[int]) -> Iterator[list[_Part]]:
        """All windows in order, as many together as a call takes."""
        call: list[_Part] = []
        used = 0
        for i, (sequence, n_tokens) in enumerate(zip(sequences, lengths, strict=True)):
            windows = plan_windows(n_tokens, self.spec.max_tokens, self.spec.overlap)
            for window, letters in zip(windows, window_letters(sequence, self.spec.tokens, windows), strict=True):
                tokens = window.stop - window.start
                if call and used + tokens > self.tokens_per_call:
                    yield call
                    call, used = [], 0
                call.append(_Part(i, window, letters))
                used += tokens
        if call:
            yield call

    def _put(self, stitched: list[Rows], part: _Part, rows: Rows, n_tokens: int) -> None:
        """Keep the rows of a window that are its own."""
        start, stop, first, last = part.window
        if rows.shape != (stop - start, self.spec.width):
            raise EmbedCacheError(
                f"encoder {self.spec.name} returned rows {rows.shape} for a window of {stop - start} tokens, expected "
                f"{(stop - start, self.spec.width)}: special tokens dropped, nothing cut. Mend the encoder."
            )
        if last - first == n_tokens:
            stitched[part.sequence] = rows
            return
        if first == 0:
            stitched[part.sequence] = np.empty((n_tokens, self.spec.width), np.float32)
        stitched[part.sequence][first:last] = rows[first - start : last - start]
