"""Names in published files: tensors under several of them, and settings of settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedcache.errors import InvalidInputError

__all__ = ["one_name_each", "setting"]


def one_name_each(
    tensors: dict[str, Tensor], same: Mapping[str, tuple[str, ...]], directory: Path
) -> dict[str, Tensor]:
    """Give tensors that networks share one name, whichever the files use, so that their digest is one too.

    Args:
        tensors: By the names in the files.
        same: As ``EncoderCard.same``.
        directory: Of the files, for errors.

    Raises:
        InvalidInputError: The files hold different tensors under names of the same one.
    """
    for name, others in same.items():
        found = [one for one in (name, *others) if one in tensors]
        kept = [tensors.pop(one) for one in found]
        for other, tensor in zip(found[1:], kept[1:], strict=True):
            if not torch.equal(tensor, kept[0]):
                raise InvalidInputError(
                    f"Weights in {directory} do not fit: {found[0]} and {other} differ, expected one tensor under both "
                    "names. Give the complete published files of this encoder."
                )
        if kept:
            tensors[name] = kept[0]
    return tensors


def setting(found: Mapping[str, Any], path: str) -> Any:
    """What ``config.json`` says under a name, or under names in one another, with dots; None if it says nothing."""
    value: Any = found
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
