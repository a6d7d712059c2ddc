"""Packed tokens of several sequences: what readers return and heads compute on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Ragged"]


class Ragged(NamedTuple):
    """The tokens of B sequences laid end to end; sequence i owns rows ``offsets[i]:offsets[i + 1]``.

    Attributes:
        values: (N, D), any device.
        offsets: (B + 1,) int64, always on the CPU: loops need the numbers, and fetching them from a GPU
            would stall it.
    """

    values: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sequence, (B,)."""
        return self.offsets.diff()

    @classmethod
    def from_list(cls, sequences: Sequence[Tensor]) -> "Ragged":
        """Pack tensors of shape (T_i, D); at least one, empty ones allowed."""
        lengths = torch.tensor([0, *(len(sequence) for sequence in sequences)])
        return cls(torch.cat(list(sequences)), lengths.cumsum(0))

    def to_list(self) -> list[Tensor]:
        """One tensor (T_i, D) a sequence, views of ``values``."""
        # split, not slices: the backward pass of a slice allocates the whole tensor, once a sequence
        return list(self.values.split_with_sizes(self.lengths.tolist()))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Ragged":
        """Values on another device or of another dtype; offsets stay on the CPU."""
        return Ragged(self.values.to(device, dtype, non_blocking=True), self.offsets)
