"""Parquet with one row an ID. No tool sets a standard, so the layout is ours.

id            string
sequence_key  fixed binary(16), our key of the normalised sequence
mean          fixed_size_list<float>[D], mean of the rows of the sequence
tokens        list<fixed_size_list<halffloat or float>[D]>, its rows; left out of a pooled file

No compression; row groups of about 64 MiB; each page has a checksum. The encoder is told as JSON under the key
``embedcache`` of the schema.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError
from embedcache.exchange.formats import EmbeddingFile, Entry, ExportOptions, ReadOptions
from embedcache.exchange.source import ExportSource, recorded_spec

__all__ = ["open_parquet", "write_parquet"]

GROUP_BYTES = 64 << 20
ROWS_AT_A_TIME = 8  # of an input: its row groups may be far larger than ours
RECORD = b"embedcache"
_ARROW = {"float32": pa.float32(), "float16": pa.float16()}
_DAMAGE = (OSError, pa.ArrowException)


def write_parquet(sources: Sequence[ExportSource], path: Path, options: ExportOptions) -> None:
    """Write a file with means and, unless pooled, rows."""
    (source,) = sources
    spec = json.dumps(source.store.spec.to_json())
    schema = _schema(source.width, None if options.pooled else options.dtype).with_metadata({RECORD: spec.encode()})
    writer = pq.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=False,
        write_statistics=["id", "sequence_key"],
        write_page_checksum=True,
    )
    with writer:
        group: list[tuple[str, bytes, NDArray[Any], NDArray[Any] | None]] = []
        n_bytes = 0
        for identifier, key in source.by_id():
            rows = None if options.pooled else source.rows(key, options.dtype)
            group.append((identifier, key, source.mean(key), rows))
            n_bytes += group[-1][2].nbytes + (0 if rows is None else rows.nbytes)
            if n_bytes >= GROUP_BYTES:
                writer.write_table(_table(group, schema), row_group_size=len(group))
                group, n_bytes = [], 0
        if group:
            writer.write_table(_table(group, schema), row_group_size=len(group))


def _schema(width: int, dtype: str | None) -> pa.Schema:
    columns = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sequence_key", pa.binary(16), nullable=False),
        pa.field("mean", pa.list_(pa.float32(), width), nullable=False),
    ]
    if dtype is not None:
        columns.append(pa.field("tokens", pa.list_(pa.list_(_ARROW[dtype], width)), nullable=False))
    return pa.schema(columns)


def _table(group: list[tuple[str, bytes, NDArray[Any], NDArray[Any] | None]], schema: pa.Schema) -> pa.Table:
    ids, keys, means, rows = zip(*group, strict=True)
    width = schema.field("mean").type.list_size
    columns = [
        pa.array(ids, pa.string()),
        pa.array(keys, pa.binary(16)),
        pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(means)), width),
    ]
    if "tokens" in schema.names:
        values = pa.array(np.concatenate(rows).reshape(-1))
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        tokens = pa.FixedSizeListArray.from_arrays(values, width)
        columns.append(pa.ListArray.from_arrays(offsets, tokens, type=schema.field("tokens").type))
    return pa.Table.from_arrays(columns, schema=schema)


@contextmanager
def open_parquet(path: Path, options: ReadOptions) -> Iterator[EmbeddingFile]:
    """Open a file of this layout, whoever wrote it."""
    if not path.is_file():
        raise InvalidInputError(f"{path} is no file. Give the Parquet file to read (--input).")
    try:
        file = pq.ParquetFile(path, memory_map=True, pre_buffer=False, page_checksum_verification=True)
        schema = file.schema_arrow
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    with file:
        column = "mean" if options.pooled or "tokens" not in schema.names else "tokens"
        width = _check_schema(path, schema, column)
        record = recorded_spec((schema.metadata or {}).get(RECORD), str(path))

        def entries() -> Iterator[Entry]:
            names = ["id", "sequence_key", column]
            batches = file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=names, use_threads=False)
            while (batch := _next_batch(path, batches)) is not None:
                yield from _entries(path, batch, column, width)

        yield EmbeddingFile(entries=entries, count=file.metadata.num_rows, record=record)


def _damaged(path: Path, error: Exception) -> InvalidInputError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return InvalidInputError(f"{path} cannot be read as Parquet: {reason}. Copy or make the file again.")


def _check_schema(path: Path, schema: pa.Schema, column: str) -> int:
    """Width of the embeddings, after every column was found to be as it should."""
    kinds = {field.name: field.type for field in schema}
    rows = kinds.get(column)
    if column == "tokens" and rows is not None and pa.types.is_list(rows):
        rows = rows.value_type
    good = {
        "id": kinds.get("id") in (pa.string(), pa.large_string()),
        "sequence_key": kinds.get("sequence_key") == pa.binary(16),
        column: rows is not None and pa.types.is_fixed_size_list(rows) and rows.value_type in _ARROW.values(),
    }
    if wrong := [name for name, is_good in good.items() if not is_good]:
        expected = {
            "id": "string",
            "sequence_key": "fixed_size_binary[16]",
            "mean": "fixed_size_list<float>[width]",
            "tokens": "list<fixed_size_list<halffloat or float>[width]>",
        }[wrong[0]]
        raise InvalidInputError(
            f"{path}: column {wrong[0]!r} is {kinds.get(wrong[0], 'missing')}, expected {expected}. "
            "Write it as `embedcache export --format parquet` does."
        )
    assert rows is not None
    return int(rows.list_size)


def _next_batch(path: Path, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _entries(path: Path, batch: pa.RecordBatch, column: str, width: int) -> Iterator[Entry]:
    ids, keys = batch.column("id").to_pylist(), batch.column("sequence_key").to_pylist()
    for i, (identifier, key) in enumerate(zip(ids, keys, strict=True)):
        where = f"{path}, row {identifier!r}"
        cell = batch.column(column).slice(i, 1)
        values = cell.flatten()
        if column == "tokens":
            holes, values = values.null_count, values.flatten()
            shape: tuple[int, ...] = (len(values) // width, width)
        else:
            holes, shape = 0, (width,)
        if identifier is None or key is None or cell.null_count or holes or values.null_count:
            raise InvalidInputError(f"{where} has a null in {column}, its ID or its key. Leave such rows out.")
        dtype = "float16" if values.type == pa.float16() else "float32"
        yield Entry(
            where=where, id=identifier, key=key, shape=shape, dtype=dtype, read=_reader(values, shape), again=False
        )


def _reader(values: pa.Array, shape: tuple[int, ...]) -> Callable[[], NDArray[np.float32]]:
    # a copy: views of Arrow cannot be written to, which torch warns of
    return lambda: np.array(values.to_numpy(zero_copy_only=False), np.float32).reshape(shape)
