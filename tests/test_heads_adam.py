"""Our Adam is AdamW of torch, bit for bit, and does not import what that one does."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from heads.adam import Adam


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    """The last parameter gets its first gradient late."""
    generator = torch.Generator().manual_seed(step)
    for one in parameters if step > 2 else parameters[:-1]:
        one.grad = torch.randn(one.shape, generator=generator) * 10.0 ** (step - 3)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_adamw_of_torch(weight_decay: float) -> None:
    start = [torch.randn(shape) for shape in ((7, 300), (5,), (2, 2))]
    ours, theirs = ([nn.Parameter(one.clone()) for one in start] for _ in range(2))
    adam = Adam(ours, weight_decay)
    reference = torch.optim.AdamW(theirs, weight_decay=weight_decay, fused=True)
    for step in range(8):
        for parameters in (ours, theirs):
            gradients(parameters, step)
        reference.param_groups[0]["lr"] = 0.01 * (step + 1)
        adam.step(0.01 * (step + 1))
        reference.step()
        reference.zero_grad()
        assert all(one.grad is None for one in ours)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b) and not torch.equal(a, torch.zeros_like(a))
            assert adam.state.get(a, {}).keys() == reference.state[b].keys()
            for name, value in reference.state[b].items():
                found: Tensor = adam.state[a][name]
                assert torch.equal(found, value) and found.dtype == value.dtype, name


def test_training_does_not_import_the_compiler_of_torch() -> None:
    code = """if True:
        import sys, torch
        from heads.adam import Adam
        from heads.fit import deterministic
        layer = torch.nn.Linear(3, 2)
        adam = Adam(layer.parameters(), 0.0)
        with deterministic(torch.device("cpu")):
            layer(torch.ones(1, 3)).sum().backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            adam.step(0.1)
        assert adam.state and "torch._dynamo" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)
