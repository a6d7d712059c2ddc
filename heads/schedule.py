"""The learning rate of a step, as a share of the one that is set."""

import math

from heads.config import TrainConfig

__all__ = ["rate_factor"]


def rate_factor(config: TrainConfig, step: int, n_steps: int) -> float:
    """Share of the learning rate for a step.

    Rises linearly over ``warmup``, then stays, or falls to 0 at ``n_steps`` in a line or half a cosine.

    Args:
        config: Its schedule and warm-up.
        step: From 0 on, over all epochs.
        n_steps: Of all epochs that the settings allow.
    """
    rising = round(config.warmup * n_steps)
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "constant":
        return 1.0
    done = (step - rising) / max(n_steps - rising, 1)
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
