"""An encoder whose weights lie in parts on several processes, block by block: FSDP of torch.

Each process holds a part of the weights of every block, of their gradients and of Adam's averages; the weights of a
block are brought together while it runs, which takes all processes at once. So all make as many passes through the
encoder, in one order: who has none left makes empty ones, whose gradient is zero. Gradients are added up while they
are cut into parts again. What lies outside the blocks is whole in every process.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from heads.team import Alone

__all__ = ["Together"]

_READ_FROM_OUTSIDE = "relative_attention_bias.weight"
"""Of the first block of a T5, for all blocks: not there while that block does not run, so it stays whole."""


class Together:
    """Cuts the blocks of an encoder into parts, and keeps the passes of all processes through it in step.

    Args:
        core: A ``PackedEncoder``; which of its weights learn is settled.
        team: The processes.

    Raises:
        InvalidSettingError: An encoder whose blocks are not known.
    """

    def __init__(self, core: Any, team: Alone) -> None:
        if not hasattr(core, "network"):
            raise InvalidSettingError(
                f"The blocks of {core.spec.name} are not counted here, so --shard cannot share them out. Leave it out, "
                "or leave the modality out of --finetune."
            )
        self.core, self.team, self._network = core, team, core.network
        self._is_empty = False
        self._touched: list[Tensor] = []
        self._share_out()
        core.network = replace(core.network, run=self._run)

    def catch_up(self, done: int | None) -> None:
        """Make empty passes until no process makes another one now; ``done`` blocks are behind the rows, if any."""
        while self.team.agree(False):
            self._is_empty = True
            try:
                self._empty_pass(done)
            finally:
                self._is_empty = False

    def touched(self) -> Tensor | None:
        """Zero, by way of every pass since it was last asked for, so that a backward pass visits all of them."""
        found, self._touched = self._touched, []
        return 0 * torch.stack(found).sum() if found else None

    def _share_out(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        model = self.core.model
        mesh = init_device_mesh(model.device.type, (self.team.size,))
        for block in self._network.get(model, self._network.blocks):
            kept = {one for name, one in block.named_parameters() if name.endswith(_READ_FROM_OUTSIDE)}
            more: Any = {"ignored_params": kept} if kept else {}  # torch 2.6 does not have it
            fully_shard(block, mesh=mesh, reshard_after_forward=True, **more)

    def _run(self, model: Any, inputs: dict[str, Any], layers: Sequence[int]) -> dict[int, Tensor]:
        if not self._is_empty:
            self.team.agree(True)
        found: dict[int, Tensor] = self._network.run(model, inputs, layers)
        if torch.is_grad_enabled():
            self._touched += [one.flatten()[0].float() for one in found.values()]
        return found

    def _empty_pass(self, done: int | None) -> None:
        if done is None:
            self.core.encode_packed([self._letters()])
        else:
            weight = next(self.core.model.parameters())
            rows = torch.zeros(4, self.core.spec.width, device=weight.device, dtype=weight.dtype)
            self.core.continue_packed(Ragged.from_list([rows]), done)

    def _letters(self) -> str:
        """A short sequence that has a token."""
        candidates = ("A" * n for n in range(1, 1000))
        return next(letters for letters in candidates if self.core.spec.n_rows(letters))
