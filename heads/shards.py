"""Tensors that lie in parts, by rows, on the processes of a team: their own part, the whole, and a whole cut again.

Parts are those of ``DTensor`` as FSDP makes them: rows cut as ``torch.chunk`` cuts them. All else passes through as it
is, and nothing of ``torch.distributed`` is imported for it.
"""

from typing import Any

from torch import Tensor

__all__ = ["is_in_parts", "local", "part_of", "whole"]


def is_in_parts(tensor: Tensor) -> bool:
    """Whether this process holds a part only."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """The part that this process holds, which shares its memory; all of a tensor that is whole."""
    found: Any = tensor
    part: Tensor = found.to_local() if is_in_parts(tensor) else tensor
    return part


def whole(tensor: Tensor, *, keep: bool) -> Tensor:
    """All of a tensor. All processes have to ask for it.

    Args:
        tensor: In parts, or whole, which is returned.
        keep: Whether this process wants it, on the CPU; others get an empty one.
    """
    if not is_in_parts(tensor):
        return tensor
    found: Any = tensor
    everything: Tensor = found.full_tensor()
    return everything.cpu() if keep else everything.new_empty(0)


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another one, and in parts as that is; without asking other processes.

    Args:
        tensor: Whole, the same in all processes.
        like: A tensor of the same shape whose parts it takes; one of another shape gives its device alone.
    """
    if not is_in_parts(like) or tensor.shape != like.shape:
        return tensor.to(like.device)
    from torch.distributed.tensor import DTensor

    target: Any = like
    mesh = target.device_mesh
    parts, rank = tensor.chunk(mesh.size(), dim=0), mesh.get_local_rank()
    mine = parts[rank] if rank < len(parts) else tensor[:0]
    return DTensor.from_local(
        mine.to(like.device, copy=True), mesh, target.placements, shape=tensor.shape, stride=tensor.stride()
    )
