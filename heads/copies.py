"""Batches on their way to a GPU: the next one is copied while it computes on this one."""

from collections.abc import Iterator
from typing import Any

import torch

from embedcache.ragged import Ragged

__all__ = ["copied_ahead"]


def copied_ahead(parts: Iterator[Ragged], device: torch.device) -> Iterator[Ragged]:
    """The same parts with their values on a GPU, each copied there before it is asked for.

    Copies run on a stream of their own beside the computation, without the host's waiting if values lie in pinned
    memory. Two parts are on the device at a time. A part that lies there already passes.

    Args:
        parts: Each valid until the next is asked for, which is done only when its copy is complete.
        device: The GPU.
    """
    cuda: Any = torch.cuda  # its streams and events have no types
    beside = cuda.Stream(device)
    before: tuple[Ragged, Any] | None = None
    for part in parts:
        if part.values.is_cuda:
            assert before is None, "parts of one source lie in one place"
            yield part
            continue
        with cuda.stream(beside):
            now = part.to(device), beside.record_event()
        if before is not None:
            yield _awaited(*before, device)
        now[1].synchronize()
        before = now
    if before is not None:
        yield _awaited(*before, device)


def _awaited(part: Ragged, copied: Any, device: torch.device) -> Ragged:
    """Let what is computed from now on begin after the copy, and its memory be free only after what is computed."""
    cuda: Any = torch.cuda
    current = cuda.current_stream(device)
    current.wait_event(copied)
    part.values.record_stream(current)
    return part
