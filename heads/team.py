"""Several processes that train one run: each takes its share of every step, and gradients are added up.

Started by ``accelerate launch`` or ``torchrun``, which say so in the environment. All processes hold the same weights,
for they begin with the same ones and take the same steps; the first one writes the run directory. Numbers are those of
one process but for the order in which gradients are added.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedcache.errors import MissingDependencyError
from heads.data import Rows
from heads.inference import choose_device

__all__ = ["Alone", "Team", "find_team", "is_first_process"]


class Alone:
    """One process, which takes all of every step."""

    is_first = True
    size = 1
    """Processes."""
    device: torch.device | None = None
    """Where this process computes; None to choose."""

    def share(self, rows: Rows) -> Rows:
        """The rows of a step that are this process's."""
        return rows

    def stream(self, seed: int, epoch: int, step: int) -> int | None:
        """Seed of the random numbers of a step in this process; None to go on with the stream of the run."""
        return None

    def add_up(self, parameters: Iterable[nn.Parameter], sums: Tensor) -> None:
        """Bring gradients, and some sums, of all processes together."""

    def agree(self, stop: bool) -> bool:
        """Whether any process was asked to stop."""
        return stop

    def gather(self, arrays: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Rows that ``share`` gave to the processes, put together again, of each array."""
        return list(arrays)

    def wait(self) -> None:
        """Until all processes are here."""


class Team(Alone):
    """Several processes, through accelerate.

    Args:
        on_cpu: Compute on the CPU, whatever there is.
    """

    def __init__(self, on_cpu: bool) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MissingDependencyError(
                "Several processes need accelerate, which is not installed. Run `pip install 'isoheads[finetune]'`."
            ) from error
        self.accelerator: Any = Accelerator(cpu=on_cpu)
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        self.is_first = self.rank == 0
        self.device = self.accelerator.device

    def share(self, rows: Rows) -> Rows:
        """The rows of a step that are this process's, neighbours; none if there are fewer rows than processes."""
        found: Rows = np.array_split(rows, self.size)[self.rank]
        return found

    def stream(self, seed: int, epoch: int, step: int) -> int:
        """Another one in every process and step: no two draw the same masks, and no state has to be kept."""
        return int(np.random.default_rng((seed, self.rank, epoch, step)).integers(2**63))

    def add_up(self, parameters: Iterable[nn.Parameter], sums: Tensor) -> None:
        """Add up gradients and ``sums`` of all processes, in place and in one message of each number format.

        A parameter that no process has a gradient of keeps none.
        """
        wanted = list(parameters)
        has = torch.tensor([float(one.grad is not None) for one in wanted], device=self.device)
        learned = [one for one, count in zip(wanted, self._sum(has).tolist(), strict=True) if count]
        for one in learned:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        gradients = [one.grad for one in learned if one.grad is not None]
        if gradients:
            flat = self._sum(torch.cat([gradient.flatten() for gradient in gradients]))
            totals = flat.split_with_sizes([gradient.numel() for gradient in gradients])
            for gradient, total in zip(gradients, totals, strict=True):
                gradient.copy_(total.view_as(gradient))
        sums.copy_(self._sum(sums))

    def agree(self, stop: bool) -> bool:
        """Whether any process was asked to stop, which all have to know at the same step."""
        return bool(self._sum(torch.tensor(float(stop), device=self.device)).item())

    def gather(self, arrays: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Rows that ``share`` gave to the processes, put together again, of each array."""
        from accelerate.utils import gather_object

        found: list[list[NDArray[np.float64]]] = gather_object([list(arrays)])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()

    def _sum(self, values: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total


def find_team(device: str) -> Alone:
    """The processes that were started together with this one; ``device`` is that of the settings."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone()
    return Team(choose_device(device).type == "cpu")


def is_first_process() -> bool:
    """Whether this process is the one that speaks for all that were started together."""
    return int(os.environ.get("RANK", "0")) == 0
