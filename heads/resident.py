"""A store kept whole in the memory of a device: epochs after the first read no disk and cross no bus.

Shapes: N packed tokens, D width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from heads.sources import TokenSource
from heads.train_config import Resident

__all__ = ["ResidentSource", "keep_resident"]

Rows = NDArray[np.int64]

_SHARE = 0.5  # of the free memory of a GPU that stores may take under ``auto``
_ROWS_AT_ONCE = 256


class ResidentSource:
    """See ``TokenSource``: the tokens of another source, as stored, on a device.

    Each distinct sequence is held once where the source can tell (``positions``).

    Args:
        source: Read through once.
        device: Where the tokens stay.
    """

    tokens_only = False

    def __init__(self, source: TokenSource, device: torch.device) -> None:
        self.source, self.device = source, device
        self.width, self.lengths = source.width, source.lengths
        rows, self._slot = _distinct(source)
        lengths = source.lengths[rows]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        parts = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
        self._values: Tensor | None = None
        done = 0
        for part in source.stream(parts):
            if self._values is None:
                shape = (int(self._starts[-1]), part.values.shape[1])
                self._values = torch.empty(shape, dtype=part.values.dtype, device=device)
            self._values[done : done + len(part.values)] = part.values
            done += len(part.values)

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows, copied on the device."""
        if self._values is None:
            return self.source.packed(rows)
        slots, lengths = self._slot[rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        first = np.repeat(self._starts[slots] - offsets[:-1], lengths)
        index = torch.from_numpy(first + np.arange(offsets[-1])).to(self.device)
        return Ragged(self._values.index_select(0, index), torch.from_numpy(offsets.astype(np.int64)))

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other."""
        return (self.packed(rows) for rows in parts)

    def decode(self, values: Tensor) -> Tensor:
        """Numbers (N, D) of what ``packed`` and ``stream`` give."""
        return self.source.decode(values)

    def summaries(self, reads: str) -> Tensor:
        """A summary of every row, (rows, R, C)."""
        return self.source.summaries(reads)


def keep_resident(sources: dict[str, TokenSource], device: torch.device, resident: Resident) -> dict[str, TokenSource]:
    """The sources, in the memory of the device where that is asked for, or fits.

    ``auto`` keeps them on a GPU if they take at most half of its free memory together; a CPU maps the files of the
    cache, which is as fast.

    Raises:
        InvalidSettingError: ``always``, and the device has not the memory.
    """
    if resident == "never" or (resident == "auto" and device.type == "cpu"):
        return sources
    wanted = sum(_size_bytes(source) for source in sources.values())
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if resident == "auto" and wanted > _SHARE * free:
            return sources
        if wanted > free:
            raise InvalidSettingError(
                f"The stores take {wanted / 2**30:,.1f} GiB and {device} has {free / 2**30:,.1f} GiB free. "
                "Use --resident auto or never."
            )
    return {
        name: source if isinstance(source, ResidentSource) or source.tokens_only else ResidentSource(source, device)
        for name, source in sources.items()
    }


def _distinct(source: TokenSource) -> tuple[Rows, Rows]:
    """A row of each distinct sequence, and for every row of the dataset which of them it has."""
    n_rows = len(source.lengths)
    positions = getattr(source, "positions", np.arange(n_rows))
    _, rows, slots = np.unique(positions, return_index=True, return_inverse=True)
    return rows.astype(np.int64), slots.astype(np.int64)


def _size_bytes(source: TokenSource) -> int:
    """Bytes of the tokens as stored, each distinct sequence once."""
    rows, _ = _distinct(source)
    present = rows[source.lengths[rows] > 0]
    if not len(present):
        return 0
    one = source.packed(present[:1]).values
    return int(source.lengths[rows].sum()) * one.shape[1] * one.element_size()
