"""Several processes that train one run: each takes its share of every step, and gradients are added up.

Started by ``accelerate launch`` or ``torchrun``, which say so in the environment. All processes hold the same weights,
for they begin with the same ones and take the same steps; the first one writes the run directory. Numbers are those of
one process but for the order in which gradients are added.
"""

import atexit
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
from heads.shards import is_in_parts, local

__all__ = ["Alone", "Team", "find_team", "is_first_process"]


class Alone:
    """One process, which takes all of every step."""

    is_first = True
    size = 1
    """Processes."""
    shards = False
    """Whether weights of encoders lie in parts on the processes, so that all take part in what needs them whole."""
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

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> None:
        """Scale gradients down to a norm over all of them together."""
        nn.utils.clip_grad_norm_(list(parameters), most)

    def agree(self, said: bool) -> bool:
        """Whether any process says so."""
        return said

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
        atexit.register(_leave)
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

        A parameter that no process has a gradient of keeps none. Those of weights in parts come as means.
        """
        wanted = list(parameters)
        for one in wanted:
            if one.grad is not None and is_in_parts(one):
                local(one.grad).mul_(self.size)
        wanted = [one for one in wanted if not is_in_parts(one)]
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

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> None:
        """Scale gradients down to a norm over all of them together, parts in other processes counted."""
        learned = [one for one in parameters if one.grad is not None]
        if not any(is_in_parts(one) for one in learned):
            super().clip(learned, most)
            return
        squares = torch.zeros(2, device=self.device)  # of parts, of whole ones
        for one in learned:
            if one.grad is not None:
                squares[0 if is_in_parts(one) else 1] += local(one.grad).square().sum()
        norm = (self._sum(squares[:1])[0] + squares[1]).sqrt()
        factor = (most / (norm + 1e-6)).clamp(max=1.0)
        for one in learned:
            if one.grad is not None:
                local(one.grad).mul_(factor)

    def agree(self, said: bool) -> bool:
        """Whether any process says so, which all have to know at the same step."""
        return bool(self._sum(torch.tensor(float(said), device=self.device)).item())

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


def _leave() -> None:
    """End the threads that processes talk through: one that is alive when Python is gone aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def find_team(device: str) -> Alone:
    """The processes that were started together with this one; ``device`` is that of the settings."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone()
    return Team(choose_device(device).type == "cpu")


def is_first_process() -> bool:
    """Whether this process is the one that speaks for all that were started together."""
    return int(os.environ.get("RANK", "0")) == 0
