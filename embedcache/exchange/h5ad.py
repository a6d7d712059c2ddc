"""AnnData: one row a transcript, pooled embeddings of each modality beside its targets.

obs                             transcripts, by ID: gene, split, sequence keys in hexadecimal, ...
var                             tissues
X                               targets, NaN = not measured
obsm["X_<modality>_<encoder>"]  mean of the rows of the sequence, float32; NaN where the transcript lacks the modality
uns["embedcache"]               where the numbers come from, as a JSON string
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError, MissingDependencyError, UnknownNameError
from embedcache.exchange.formats import EmbeddingFile, Entry, ExportOptions, ReadOptions
from embedcache.exchange.hdf5_file import readable, reading, writing
from embedcache.exchange.source import ExportSource, provenance, recorded_spec
from embedcache.progress import Progress
from embedcache.sequences import MODALITIES

__all__ = ["open_h5ad", "write_h5ad"]

ROWS_AT_A_TIME = 256
RECORD = "embedcache"


def write_h5ad(sources: Sequence[ExportSource], path: Path, options: ExportOptions) -> None:
    """Write all samples of the dataset, with the pooled embeddings of one modality or several.

    Raises:
        MissingDependencyError: AnnData is not installed.
    """
    try:
        from anndata import AnnData
        from anndata.io import write_elem
    except ImportError as error:
        raise MissingDependencyError(
            "h5ad needs AnnData, which is not installed. Run `pip install 'isoheads[anndata]'`."
        ) from error
    dataset = sources[0].dataset
    record = json.loads(provenance(sources[0], pooled=True))
    del record["encoder"], record["digest"], record["random_weights"]
    record["encoders"] = {_name(source): source.store.spec.to_json() for source in sources}
    targets = None if dataset.targets is None else dataset.targets.to_numpy(np.float64)
    tissues = pd.DataFrame(index=pd.Index(dataset.tissues, dtype=str))
    frame = AnnData(X=targets, obs=_samples(dataset), var=tissues, uns={RECORD: json.dumps(record)})
    with writing(path) as new:
        write_elem(new.file, "/", frame)
        new.check()
        for source in sources:
            matrix = new.file["obsm"].create_dataset(_name(source), (len(dataset.samples), source.width), "f4")
            matrix.attrs["encoding-type"], matrix.attrs["encoding-version"] = "array", "0.2.0"
            for start, block in _pooled(source):
                matrix[start : start + len(block)] = block
                new.check()


def _name(source: ExportSource) -> str:
    return _column(source.modality, source.store.spec.name)


def _column(modality: str, encoder: str) -> str:
    return f"X_{modality}_{encoder}"


def _samples(dataset: Dataset) -> pd.DataFrame:
    """The table of samples, keys as text, without columns that nobody filled in."""
    frame = dataset.samples.set_index("transcript_id").rename_axis(None)
    for modality in MODALITIES:
        column = f"{modality}_key"
        frame[column] = [None if key is None else key.hex() for key in dataset.keys(modality)]
    frame = frame.dropna(axis="columns", how="all")
    for name in (name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])):
        frame[name] = frame[name].astype("category")  # text with gaps has no other form in h5ad
    return frame


def _pooled(source: ExportSource) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First row and means (rows, width) of a few samples at a time."""
    keys = source.dataset.keys(source.modality)
    with Progress(len(keys), "sample", f"export {source.modality}") as progress:
        for start in range(0, len(keys), ROWS_AT_A_TIME):
            some = keys[start : start + ROWS_AT_A_TIME]
            block = np.full((len(some), source.width), np.nan, np.float32)
            for i, key in enumerate(some):
                if key is not None:
                    block[i] = source.mean(key)
            yield start, block
            progress.update(len(some))


@contextmanager
def open_h5ad(path: Path, options: ReadOptions) -> Iterator[EmbeddingFile]:
    """Open the pooled embeddings of one modality and encoder; needs no AnnData."""
    wanted = _column(options.modality, options.encoder)
    with reading(path) as file:
        with readable(str(path)):
            matrix, ids = _matrix(path, file, wanted), _texts(file["obs"], file["obs"].attrs["_index"])
            column = f"{options.modality}_key"
            keys = _texts(file["obs"], column) if column in file["obs"] else None
            text = file["uns"][RECORD].asstr()[()] if RECORD in file.get("uns", {}) else None
        if len(ids) != len(matrix):
            raise InvalidInputError(f"{path} has {len(ids)} samples and {len(matrix)} rows of {wanted}. Make it again.")

        def entries() -> Iterator[Entry]:
            for start in range(0, len(ids), ROWS_AT_A_TIME):
                with readable(str(path)):
                    block = np.asarray(matrix[start : start + ROWS_AT_A_TIME], np.float32)
                for i, row in enumerate(block, start):
                    where = f"{path}, sample {ids[i]!r}"
                    if not np.isnan(row).all():
                        key = None if keys is None else _key(where, keys[i])
                        yield Entry(
                            where=where,
                            id=ids[i],
                            key=key,
                            shape=row.shape,
                            dtype=str(matrix.dtype),
                            read=partial(np.copy, row),
                            again=False,
                        )

        yield EmbeddingFile(entries=entries, count=len(ids), record=recorded_spec(text, str(path), wanted))


def _matrix(path: Path, file: h5py.File, wanted: str) -> h5py.Dataset:
    if not isinstance(file.get("obs"), h5py.Group) or not isinstance(file.get("obsm"), h5py.Group):
        raise InvalidInputError(f"{path} has no groups obs and obsm, so it is no h5ad file. Give another --format.")
    if wanted not in file["obsm"]:
        raise UnknownNameError(f"obsm column in {path}", wanted, file["obsm"])
    matrix = file["obsm"][wanted]
    if not isinstance(matrix, h5py.Dataset) or matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise InvalidInputError(f"{path}: obsm {wanted!r} is no dense matrix of numbers. Write it as float32 array.")
    return matrix


def _texts(group: h5py.Group, name: str) -> list[str]:
    """A column of text; an empty one where a value is missing."""
    found = group[name]
    if isinstance(found, h5py.Dataset):
        return [str(text) for text in found.asstr()[()]]
    if "categories" in found:
        categories = [str(text) for text in found["categories"].asstr()[()]]
        return ["" if code < 0 else categories[code] for code in found["codes"][()]]
    masked = zip(found["values"].asstr()[()], found["mask"][()], strict=True)
    return ["" if is_missing else str(text) for text, is_missing in masked]


def _key(where: str, text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = text.encode()
    if len(key) not in (0, 16):
        raise InvalidInputError(f"{where}: sequence key {text!r} is not 32 hexadecimal digits. Drop the column.")
    return key or None
