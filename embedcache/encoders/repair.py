"""Tensors of a model that no file holds, put right after loading.

transformers 5 builds a model without memory and fills it from the files. What the files do not hold stays as it is: for
classes outside the library, buffers that are not saved are memory that nobody wrote (rotary frequencies, usually:
embeddings then look plausible and are wrong), and tensors that are plain attributes have no memory at all. A model that
was built in the ordinary way has them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["repair_buffers"]


class _Place(NamedTuple):
    """Where a tensor stands that no file holds."""

    owner: nn.Module
    attribute: str
    value: Tensor


def repair_buffers(model: nn.Module, fresh: nn.Module) -> list[str]:
    """Copy what no file holds from a model that was just built, wherever it differs.

    Args:
        model: As it was loaded, before its first pass: later such tensors may change by right.
        fresh: Of the same class and configuration.

    Returns:
        Names of the tensors that were put right.
    """
    right, repaired = dict(_unsaved(fresh)), []
    for name, (owner, attribute, value) in list(_unsaved(model)):
        if name not in right:
            continue
        wanted = right[name].value
        if value.is_meta or value.shape != wanted.shape or not torch.equal(value, wanted.to(value)):
            setattr(owner, attribute, wanted.clone())
            repaired.append(name)
    return repaired


def _unsaved(model: nn.Module) -> Iterator[tuple[str, _Place]]:
    """Buffers that the state does not hold, and tensors that are plain attributes, by name."""
    saved = model.state_dict().keys()
    for prefix, module in model.named_modules():
        plain = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
        for name, value in [*module.named_buffers(recurse=False), *plain.items()]:
            full = f"{prefix}.{name}" if prefix else name
            if full not in saved:
                yield full, _Place(module, name, value)
