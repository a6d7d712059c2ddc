"""AdamW without ``torch.optim``: the same fused kernel and the same numbers, bit for bit.

The first optimiser of ``torch.optim`` imports the compiler of torch, seconds in which nothing is trained, and its
bookkeeping takes longer than the step of a small head.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from heads.shards import local

__all__ = ["Adam"]


class Adam:
    """Adam with decoupled weight decay.

    Args:
        parameters: What is learned; those without a gradient stay out of a step.
        weight_decay: Share of a weight, times the learning rate, that it loses a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        """By parameter: steps taken, ``step``, and moving averages of gradient and square, ``exp_avg``, ``exp_avg_sq``;
        none before its first step."""

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take a step along the gradients, and forget them."""
        parameters: list[Tensor] = [one for one in self.parameters if one.grad is not None]
        states = [self._state(one) for one in parameters]
        if parameters:
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                [local(one) for one in parameters],
                [local(one.grad) for one in parameters if one.grad is not None],
                [local(state["exp_avg"]) for state in states],
                [local(state["exp_avg_sq"]) for state in states],
                [],
                steps,
                lr=learning_rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=self.weight_decay,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
            for one in map(local, parameters):
                increment_version(one)  # the kernel does not, and copies of weights would be taken for current
        for one in parameters:
            one.grad = None

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self.state[parameter]
