"""HDF5 with one data set a sequence, as biotrainer and bio_embeddings write it and protspace reads it.

biotrainer      data sets named sha256 of "<sequence>_<length>", or by ID; attribute original_id; (L, D) or (D,)
bio_embeddings  embeddings_file.h5 (L, D), reduced_embeddings_file.h5 (D,): named md5 of the sequence, or "0", "1", ...;
                attribute original_id; mapping_file.csv from the name to ID and length

We write without compression: on float32 it saves 6 % and costs 27 times the time. Any filter is read.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError
from embedcache.exchange.formats import EmbeddingFile, Entry, ExportOptions, ReadOptions
from embedcache.exchange.hdf5_file import NewHdf5, readable, reading, writing
from embedcache.exchange.names import biotrainer_name, escape_name, md5_name, unescape_name
from embedcache.exchange.source import ExportSource, provenance, recorded_spec

__all__ = ["open_bio_embeddings", "open_biotrainer", "write_bio_embeddings", "write_biotrainer"]

TOKENS_FILE, POOLED_FILE, MAPPING_FILE = "embeddings_file.h5", "reduced_embeddings_file.h5", "mapping_file.csv"
MOST_GROUPS = 32
"""Groups around a data set; a file may link a group into itself."""
RECORD = "embedcache"
"""Attribute of the root: our provenance, which other tools do not look at."""


def write_biotrainer(sources: Sequence[ExportSource], path: Path, options: ExportOptions) -> None:
    """Write what biotrainer takes as ``embeddings_file``: (L, D), or (D,) if pooled."""
    (source,) = sources
    values = source.mean if options.pooled else source.rows
    with _new_file(path, source, pooled=options.pooled) as new:
        for key, sequence, ids in source.by_sequence():
            if options.names == "sequence":
                _put(new, biotrainer_name(sequence), values(key, options.dtype), ids)
                continue
            for identifier in ids:
                _put(new, escape_name(identifier), values(key, options.dtype), [identifier])


def write_bio_embeddings(sources: Sequence[ExportSource], path: Path, options: ExportOptions) -> None:
    """Write the three files of bio_embeddings into a directory; if pooled, without the one of rows."""
    (source,) = sources
    whole = nullcontext() if options.pooled else _new_file(path / TOKENS_FILE, source, pooled=False)
    with (
        (path / MAPPING_FILE).open("x", newline="", encoding="utf-8") as text,
        _new_file(path / POOLED_FILE, source, pooled=True) as means,
        whole as tokens,
    ):
        mapping, number = csv.writer(text), 0
        mapping.writerow(["", "original_id", "sequence_length"])
        for key, sequence, ids in source.by_sequence():
            for group in [ids] if options.names == "sequence" else [[identifier] for identifier in ids]:
                name = md5_name(sequence) if options.names == "sequence" else str(number)
                _put(means, name, source.mean(key, options.dtype), group)
                if tokens is not None:
                    _put(tokens, name, source.rows(key, options.dtype), group)
                mapping.writerows([name, identifier, len(sequence)] for identifier in group)
                number += 1


@contextmanager
def _new_file(path: Path, source: ExportSource, *, pooled: bool) -> Iterator[NewHdf5]:
    with writing(path) as new:
        new.file.attrs["model_name"] = source.store.spec.name  # protspace asks for it
        new.file.attrs[RECORD] = provenance(source, pooled=pooled)
        yield new


def _put(new: NewHdf5, name: str, values: NDArray[Any], ids: Sequence[str]) -> None:
    """One data set; further IDs of the same sequence stand in an attribute of ours."""
    data_set = new.file.create_dataset(name, data=values)
    data_set.attrs["original_id"] = ids[0]
    if len(ids) > 1:
        data_set.attrs["all_ids"] = json.dumps(ids, ensure_ascii=False)
    new.check()


@contextmanager
def open_biotrainer(path: Path, _: ReadOptions) -> Iterator[EmbeddingFile]:
    """Open one file; data sets without the attribute, as protspace has them, count under their name."""
    with _open_file(path, {}) as found:
        yield found


@contextmanager
def open_bio_embeddings(path: Path, options: ReadOptions) -> Iterator[EmbeddingFile]:
    """Open the directory of a bio_embeddings run, or one of its two HDF5 files."""
    if not path.is_dir():
        file = path
    elif options.pooled or not (path / TOKENS_FILE).is_file():
        file = path / POOLED_FILE
    else:
        file = path / TOKENS_FILE
    with _open_file(file, _read_mapping(file.parent / MAPPING_FILE)) as found:
        yield found


def _read_mapping(path: Path) -> dict[str, str]:
    """From the name of a data set to the ID; older files have it nowhere else. Empty without the file."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            column = next(rows).index("original_id")
            return {row[0]: row[column] for row in rows if row}
    except (OSError, StopIteration, ValueError, IndexError, csv.Error) as error:
        raise InvalidInputError(
            f"{path} is not the mapping of bio_embeddings: expected a CSV with a column original_id. Restore it."
        ) from error


@contextmanager
def _open_file(path: Path, mapping: Mapping[str, str]) -> Iterator[EmbeddingFile]:
    with reading(path) as file:
        with readable(str(path)):
            text, count = file.attrs.get(RECORD), len(file)
        record = recorded_spec(text, str(path))
        named = unescape_name if record is not None else str

        def entries() -> Iterator[Entry]:
            for name, data_set in _data_sets(file, str(path)):
                with readable(f"{path}, data set {name!r}"):
                    original = data_set.attrs.get("original_id", mapping.get(name, named(name)))
                    shape, dtype = data_set.shape or (), str(data_set.dtype)
                identifier = original.decode("utf-8", "replace") if isinstance(original, bytes) else str(original)
                where = f"{path}, data set {name!r}" + (f" of {identifier!r}" if identifier != name else "")
                read = _reader(file, where, name)
                yield Entry(where=where, id=identifier, name=name, shape=shape, dtype=dtype, read=read)

        yield EmbeddingFile(entries=entries, count=count, record=record)


def _data_sets(group: h5py.Group, where: str, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """All data sets with their full names; an ID with a slash made groups."""
    if prefix.count("/") > MOST_GROUPS:
        raise InvalidInputError(f"{where} has groups in groups without end. Give a file with data sets at its root.")
    with readable(where):
        names = iter(group)
    while True:
        with readable(where):
            name = next(names, None)
            found = None if name is None else group[name]
        if name is None:
            return
        if isinstance(found, h5py.Group):
            yield from _data_sets(found, where, f"{prefix}{name}/")
        elif isinstance(found, h5py.Dataset):
            yield f"{prefix}{name}", found


def _reader(file: h5py.File, where: str, name: str) -> Callable[[], NDArray[np.float32]]:
    def read() -> NDArray[np.float32]:
        with readable(where):
            return np.asarray(file[name][()], np.float32)

    return read
