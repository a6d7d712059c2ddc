"""One PyTorch file an ID, as the script extract.py of fair-esm writes them.

Each holds ``label``, the ID as it was given, and ``representations`` {layer: (L, D)} or ``mean_representations``
{layer: (D,)}, float32. The label decides; file names are escaped, so that every ID has its own (see ``id_path``).
Reading allows tensors and plain values only (``weights_only=True``): such a file can hold code, and it never runs.
"""

import io
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.exchange.formats import EmbeddingFile, Entry, ExportOptions, ReadOptions
from embedcache.exchange.names import id_path
from embedcache.exchange.source import ExportSource, provenance, recorded_spec

__all__ = ["open_esm", "write_esm"]

RECORD_FILE = "embedcache.json"
TOKENS, POOLED = "representations", "mean_representations"
# what torch.load was seen to raise on cut, flipped and foreign files
_DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    AssertionError,
    pickle.UnpicklingError,
    struct.error,
)


def write_esm(sources: Sequence[ExportSource], path: Path, options: ExportOptions) -> None:
    """Write one file an ID into a directory, and our provenance beside them."""
    (source,) = sources
    layer = layer_number(source.store.spec.layer, int(source.store.spec.architecture.get("layers", 0)))
    kind, values = (POOLED, source.mean) if options.pooled else (TOKENS, source.rows)
    for identifier, key in source.by_id():
        content = {"label": identifier, kind: {layer: torch.from_numpy(values(key, "float32"))}}
        file = path / id_path(identifier, ".pt")
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # torch tells a full disk as a RuntimeError, Path as an OSError
        torch.save(content, buffer)
        with file.open("xb") as out:
            out.write(buffer.getbuffer())
    (path / RECORD_FILE).write_text(provenance(source, pooled=options.pooled) + "\n", encoding="utf-8")


def layer_number(layer: int, n_layers: int) -> int:
    """Number of a layer as fair-esm counts: 33 is the last of 33; -1 where the count is not known."""
    return n_layers if layer == -1 and n_layers else layer


@contextmanager
def open_esm(path: Path, options: ReadOptions) -> Iterator[EmbeddingFile]:
    """Open a directory of such files, with those of its subdirectories, or a single one."""
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist. Give a directory of .pt files, or one (--input).")
    files = sorted(path.rglob("*.pt")) if path.is_dir() else [path]
    if not files:
        raise InvalidInputError(f"{path} has no .pt file. Give the directory that extract.py filled (--input).")
    kind, layer = _choose(files[0], _load(files[0]), options)
    record = path / RECORD_FILE
    text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else None

    def entries() -> Iterator[Entry]:
        for file in files:
            content = _load(file)
            values = _tensor(file, content, kind, layer)
            yield Entry(
                where=str(file),
                id=content["label"],
                shape=tuple(values.shape),
                dtype=str(values.dtype).removeprefix("torch."),
                read=_reader(file, kind, layer),
            )

    yield EmbeddingFile(entries=entries, count=len(files), record=recorded_spec(text, str(record)), layer=layer)


def _load(file: Path) -> dict[str, Any]:
    """Content of one file, with a label."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it may not support; the error below says more
            content = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            reason = "it holds more than tensors and plain values, which could be code"
        else:
            reason = "it is cut, damaged or no PyTorch file"
        raise InvalidInputError(f"{file} cannot be loaded: {reason}. Copy or make it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("label"), str):
        raise InvalidInputError(f"{file} has no label, which is the ID. Expected a file of fair-esm's extract.py.")
    return content


def _choose(file: Path, content: Mapping[str, Any], options: ReadOptions) -> tuple[str, int]:
    """Rows or means, and the layer, from what the first file has."""
    kind = POOLED if options.pooled or (TOKENS not in content and POOLED in content) else TOKENS
    found = content.get(kind)
    layers = sorted(layer for layer in found if type(layer) is int) if isinstance(found, dict) else []
    if not layers:
        raise InvalidInputError(
            f"{file} has no {kind}, only {', '.join(sorted(map(str, content)))}. "
            "Make the files again with --include per_tok or mean."
        )
    if options.layer is None and len(layers) > 1:
        raise InvalidInputError(f"{file} has the layers {', '.join(map(str, layers))}. Name one with --layer.")
    wanted = layers[0] if options.layer is None else layer_number(options.layer, options.n_layers)
    if wanted not in layers and options.layer == -1 and len(layers) == 1:
        wanted = layers[0]
    if wanted not in layers:
        raise UnknownNameError(f"layer in {file}", str(wanted), map(str, layers))
    return kind, wanted


def _tensor(file: Path, content: Mapping[str, Any], kind: str, layer: int) -> torch.Tensor:
    found = content.get(kind)
    values = found.get(layer) if isinstance(found, dict) else None
    if not isinstance(values, torch.Tensor) or values.is_sparse or values.is_quantized:
        raise InvalidInputError(f"{file} has no {kind} of layer {layer}, as the first file has. Make it again.")
    return values


def _reader(file: Path, kind: str, layer: int) -> Callable[[], NDArray[np.float32]]:
    def read() -> NDArray[np.float32]:
        return _tensor(file, _load(file), kind, layer).detach().float().numpy()

    return read
