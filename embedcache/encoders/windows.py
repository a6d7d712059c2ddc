"""Long input through an encoder with a limit: overlapping windows, stitched by distance to their edges.

Windows are cut between tokens. A part of the tokens of a sequence, written as its letters, has just these
tokens again, under every token rule: 6-mers keep their frame, since a window begins where a token begins, and
what is left over before an N stays left over. Each token takes its row from the window in which it is
farthest from an inner edge, where context is missing on one side only because the window ends. The ends of the
sequence are no such edges. So every row is, bit for bit, a row of one window embedded alone, and a sequence
that fits one window is embedded as without the rule.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.layers import OneLayer, Starting, start_layers
from embedcache.encoders.memory import OUT_OF_MEMORY, empty_cache, is_out_of_memory
from embedcache.encoders.spec import Encoder, LayeredEncoder, Pending
from embedcache.encoders.tokens import token_spans
from embedcache.errors import EmbedCacheError

if TYPE_CHECKING:
    from embedcache.ragged import Ragged

__all__ = ["Window", "WindowedEncoder", "plan_windows", "window_letters"]

TOKENS_PER_CALL = 16_384
"""Fills a GPU; an encoder on a CPU takes as many tokens of a call at a time as suit it."""
Rows = NDArray[np.float32]
ByLayer = dict[int, list[Rows]]


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


class WindowedEncoder(Starting):
    """An encoder of the crop ``windows``: cuts sequences, embeds the windows, stitches. A ``LayeredEncoder``.

    Attributes:
        spec: That of the encoder.
        encoder: Embeds one window as if it were a sequence.
        tokens_per_call: Tokens of windows that it gets at a time, so that a sequence of any length needs no
            more memory than its rows and two such calls; it falls when memory runs out.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.spec = encoder.spec
        self.encoder: LayeredEncoder = encoder if isinstance(encoder, LayeredEncoder) else OneLayer(encoder)
        self.tokens_per_call = TOKENS_PER_CALL

    def start_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Pending[ByLayer]:
        """Begin what ``encode_layers`` does with the first windows; see ``spec.StartingEncoder``."""
        return _Stitching(self, sequences, layers)

    def encode_packed(self, sequences: Sequence[str]) -> "Ragged":
        """Embed sequences, at least one, all windows in one call of the encoder, open to gradients."""
        import torch

        from embedcache.encoders.output import to_device
        from embedcache.ragged import Ragged

        encoder: Any = self.encoder
        parts: list[str] = []
        kept, starts, lengths = [], 0, []
        for sequence in sequences:
            lengths.append(self.spec.n_tokens(sequence))
            windows = plan_windows(lengths[-1], self.spec.max_tokens, self.spec.overlap)
            parts += window_letters(sequence, self.spec.tokens, windows)
            for start, stop, first, last in windows:
                kept.append(np.arange(first - start, last - start) + starts)
                starts += stop - start
        embedded = encoder.encode_packed(parts)
        rows = to_device(np.concatenate(kept), embedded.values.device)
        return Ragged(embedded.values[rows], torch.from_numpy(np.cumsum([0, *lengths])))

    def calls(self, sequences: Sequence[str], lengths: Sequence[int]) -> Iterator[list[_Part]]:
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


class _Stitching:
    """Rows of a batch, ``Pending``: each call is begun before the rows of the one before are put in their places."""

    def __init__(self, encoder: WindowedEncoder, sequences: Sequence[str], layers: Sequence[int]) -> None:
        self._encoder, self._layers = encoder, layers
        self._name, self._width = encoder.spec.name, encoder.spec.width
        self._lengths = [encoder.spec.n_tokens(sequence) for sequence in sequences]
        self._calls = encoder.calls(sequences, self._lengths)
        self._begun = self._begin_next()

    def result(self) -> ByLayer:
        """Embed what is left, and give the rows by layer."""
        none = np.empty((0, self._width), np.float32)
        stitched = {layer: [none] * len(self._lengths) for layer in self._layers}
        while self._begun is not None:
            (call, pending), self._begun = self._begun, self._begin_next()
            found = self._rows(call, pending)
            for layer in self._layers:
                for part, rows in zip(call, found[layer], strict=True):
                    self._put(stitched[layer], part, rows)
        return stitched

    def _begin_next(self) -> tuple[list[_Part], Pending[ByLayer] | None] | None:
        call = next(self._calls, None)
        return None if call is None else (call, self._begin(call))

    def _begin(self, call: list[_Part]) -> Pending[ByLayer] | None:
        """Start a call; None if the memory does not hold it now, beside the call before."""
        try:
            return start_layers(self._encoder.encoder, [part.letters for part in call], self._layers)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _rows(self, call: list[_Part], pending: Pending[ByLayer] | None) -> ByLayer:
        """Rows of a call; halved if it does not fit the memory, for the sequence is not to blame."""
        try:
            if pending is None:
                return self._encoder.encoder.encode_layers([part.letters for part in call], self._layers)
            return pending.result()
        except OUT_OF_MEMORY as error:
            if len(call) == 1 or not is_out_of_memory(error):
                raise
        tokens = sum(part.window.stop - part.window.start for part in call)
        self._encoder.tokens_per_call = min(self._encoder.tokens_per_call, max(1, tokens // 2))
        empty_cache()
        half = len(call) // 2
        first, second = (self._rows(part, None) for part in (call[:half], call[half:]))
        return {layer: first[layer] + second[layer] for layer in self._layers}

    def _put(self, stitched: list[Rows], part: _Part, rows: Rows) -> None:
        """Keep the rows of a window that are its own."""
        start, stop, first, last = part.window
        n_tokens = self._lengths[part.sequence]
        if rows.shape != (stop - start, self._width):
            raise EmbedCacheError(
                f"encoder {self._name} returned rows {rows.shape} for a window of {stop - start} tokens, expected "
                f"{(stop - start, self._width)}: special tokens dropped, nothing cut. Mend the encoder."
            )
        if last - first == n_tokens:
            stitched[part.sequence] = rows
            return
        if first == 0:
            stitched[part.sequence] = np.empty((n_tokens, self._width), np.float32)
        stitched[part.sequence][first:last] = rows[first - start : last - start]
