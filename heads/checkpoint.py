"""Tensors and plain values in one safetensors file, replaced in one step. Nothing is pickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from embedcache.errors import EmbedCacheError
from embedcache.store.files import replace_file

__all__ = ["CheckpointError", "nested", "read_tensors", "write_tensors"]

_ENTRY = "isoheads"
_VERSION = 1


class CheckpointError(EmbedCacheError):
    """A checkpoint or a run directory is missing, damaged, unfinished, or of another configuration."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write or replace a file: flushed before it gets its name, so a reader sees the old one or the new one.

    Args:
        path: The file.
        tensors: Any device; written as they are.
        values: JSON values; floats come back bit for bit.
    """
    text = json.dumps({"version": _VERSION, **values})  # order kept: history is written out again
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {_ENTRY: text})
    replace_file(path, [content])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write_tensors`` wrote, onto the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_ENTRY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a Mapping
        values = json.loads(text or "null")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist. Train the run first, with `heads train`.") from error
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Remove the run directory and train again.") from error
    if not isinstance(values, dict) or values.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} is not a file of this version of isoheads. Use the release that wrote it, or train again."
        )
    return tensors, values


def nested(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
