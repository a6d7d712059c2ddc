"""The formats by name: what each can hold, and where its code is. Nothing here is slow to import."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedcache.choices import ExportDtype, Names
from embedcache.errors import UnknownNameError
from embedcache.exchange.names import biotrainer_name, md5_name

if TYPE_CHECKING:
    from embedcache.encoders.spec import EncoderSpec
    from embedcache.exchange.source import ExportSource
    from embedcache.sequences import Modality

__all__ = [
    "FORMATS",
    "EmbeddingFile",
    "Entry",
    "ExportOptions",
    "Format",
    "ReadOptions",
    "exchange_format",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How a user wants the output."""

    pooled: bool = False
    """One vector a sequence, the mean of its rows, and no rows."""
    names: Names = "sequence"
    """HDF5: what a data set is named by, a hash of the sequence or the ID."""
    dtype: ExportDtype = "float32"
    """Number format of rows and, in HDF5, of means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What of an input is wanted, where it holds more than one thing."""

    modality: "Modality"
    encoder: str
    layer: int | None = None
    """None if the user said nothing, -1 for the last."""
    n_layers: int = 0
    """Layers of the encoder, 0 if not known."""
    pooled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One embedding in a file of another tool."""

    where: str
    """File and place in it, for messages."""
    id: str
    """The name that its sequence had."""
    name: str = ""
    """The name of the data set, which may be a hash of the sequence; empty where names tell nothing."""
    key: bytes | None = None
    """Our key of the sequence, where the file holds it."""
    shape: tuple[int, ...]
    """(tokens, width), or (width,) of a pooled one."""
    dtype: str
    read: Callable[[], NDArray[np.float32]]
    """Its numbers; bits that float32 lacks are rounded."""
    again: bool = True
    """Whether ``read`` still works after the next entry was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFile:
    """An input that has been opened."""

    entries: Callable[[], Iterator[Entry]]
    """Streams the embeddings, in the same order each time."""
    count: int
    """How many there are."""
    record: "EncoderSpec | None" = None
    """The encoder that we wrote down when we made the file ourselves."""
    layer: int | None = None
    """The layer that was chosen, where the file names its layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What a format can hold, and the functions that write and read it."""

    writer: str
    """``module:function``, imported on first use."""
    reader: str
    output: Literal["file", "directory"] = "file"
    by_sequence: bool = False
    """Equal sequences are written once, unless names by ID are asked for."""
    hash_name: Callable[[str], str] | None = None
    """Names the data set of a sequence, where the content names it."""
    several: bool = False
    """Takes several modalities in one file."""
    always_pooled: bool = False
    dtypes: tuple[ExportDtype, ...] = field(default=("float32", "float16"))

    def write(self, sources: "Sequence[ExportSource]", path: Path, options: ExportOptions) -> None:
        """Write the embeddings of sources to a path that does not exist, or to an empty directory."""
        _load(self.writer)(sources, path, options)

    def open(self, path: Path, options: ReadOptions) -> AbstractContextManager[EmbeddingFile]:
        """Open an input for the length of a ``with`` block."""
        opened: AbstractContextManager[EmbeddingFile] = _load(self.reader)(path, options)
        return opened


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


_HDF5 = "embedcache.exchange.hdf5"
FORMATS: dict[str, Format] = {
    "biotrainer": Format(
        writer=f"{_HDF5}:write_biotrainer",
        reader=f"{_HDF5}:open_biotrainer",
        by_sequence=True,
        hash_name=biotrainer_name,
    ),
    "bio-embeddings": Format(
        writer=f"{_HDF5}:write_bio_embeddings",
        reader=f"{_HDF5}:open_bio_embeddings",
        output="directory",
        by_sequence=True,
        hash_name=md5_name,
    ),
    "esm-pt": Format(
        writer="embedcache.exchange.esm_pt:write_esm",
        reader="embedcache.exchange.esm_pt:open_esm",
        output="directory",
        dtypes=("float32",),
    ),
    "h5ad": Format(
        writer="embedcache.exchange.h5ad:write_h5ad",
        reader="embedcache.exchange.h5ad:open_h5ad",
        several=True,
        always_pooled=True,
        dtypes=("float32",),
    ),
    "parquet": Format(
        writer="embedcache.exchange.parquet:write_parquet",
        reader="embedcache.exchange.parquet:open_parquet",
    ),
}


def exchange_format(name: str) -> Format:
    """The format of a name.

    Raises:
        UnknownNameError: No such format.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    return FORMATS[name]
