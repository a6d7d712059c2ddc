"""Tensors and plain values in one safetensors file, replaced in one step. Nothing is pickled.

The header holds the values as JSON text and a checksum of them and of the tensors, because safetensors has none.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from google_crc32c import extend
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from embedcache.errors import EmbedCacheError
from embedcache.store.files import replace_file
from heads.text import how_again

__all__ = ["CheckpointError", "nested", "read_tensors", "write_tensors", "writing"]

_ENTRY, _CHECKSUM = "isoheads", "crc32c"
_VERSION = 1


class CheckpointError(EmbedCacheError):
    """A checkpoint or a run directory is missing, damaged, unfinished, or of another configuration."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What fails when a file is written, as one line.

    Raises:
        CheckpointError: The disk is full, the directory read-only, and the like.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. What was there is kept. "
            "Make room or give write permission, and run the same command again."
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write or replace a file: flushed before it gets its name, so a reader sees the old one or the new one.

    Args:
        path: The file.
        tensors: Any device; written as they are.
        values: JSON values; floats come back bit for bit.

    Raises:
        CheckpointError: It cannot be written; an older file is left as it was.
    """
    header = {"version": _VERSION, **values}  # order kept: history is written out again
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # one entry: safetensors writes several in any order, and equal runs must have equal bytes
    content = save(on_cpu, {_ENTRY: json.dumps({_CHECKSUM: _checksum(on_cpu, header), **header})})
    with writing(path):
        replace_file(path, [content])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write_tensors`` wrote, onto the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_ENTRY, "null")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a Mapping
        values = json.loads(text)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is lost. {how_again(path.parent)}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Mend its permissions.") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. {how_again(path.parent)}") from error
    if not isinstance(values, dict) or values.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} is not a file of this version of isoheads. Use the release that wrote it, or train anew. "
            f"{how_again(path.parent)}"
        )
    if values.pop(_CHECKSUM, None) != _checksum(tensors, values):
        raise CheckpointError(f"{path} is damaged: its checksum is wrong. {how_again(path.parent)}")
    return tensors, values


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    total = extend(0, json.dumps(header).encode())
    for name, tensor in sorted(tensors.items()):
        total = extend(total, f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total = extend(total, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{total:08x}"


def nested(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
