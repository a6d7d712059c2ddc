"""Tensors that loading left without their values."""

from typing import Any

import torch

from embedcache.encoders.repair import repair_buffers


def test_only_tensors_that_differ_are_repaired() -> None:
    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turn", torch.arange(3.0), persistent=False)
            self.register_buffer("saved", torch.arange(3.0))
            self.plain = torch.arange(2.0)

    broken: Any = Part()
    assert repair_buffers(broken, Part()) == []
    broken.turn, broken.plain = torch.full((3,), torch.nan), torch.empty(2, device="meta")
    broken.saved += 1
    assert repair_buffers(broken, Part()) == ["turn", "plain"]
    assert broken.turn.tolist() == [0, 1, 2] and broken.plain.tolist() == [0, 1] and broken.saved.tolist() == [1, 2, 3]
