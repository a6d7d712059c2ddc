"""Tables of targets: one row a transcript, one column a tissue, an empty cell where nothing was measured."""

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.table_text import CheckedText
from embedcache.text import DAMAGED_GZIP, open_text

__all__ = ["MOST_TPM", "NOT_MEASURED", "TargetTable", "read_names", "read_table", "read_target_table", "stream_table"]

log = logging.getLogger(__name__)

NOT_MEASURED = ("", "NA", "NaN", "nan")
MOST_TPM = 1_010_000
"""The TPM of all transcripts of a sample sum to a million; a little more may come of rounding."""
_LOWEST_TPM = 20.0
"""Where not one of many values is above it, they may be logarithms: log2 of a million is 20."""
_MANY_VALUES = 200
_NAME_TYPES = ("string", "integer", "categorical", "empty")
_NO_NUMBERS = ("bool", "date", "time", "period", "interval")  # Parquet types that pandas would turn into numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTable:
    """One row a transcript, one column a tissue; NaN = not measured."""

    path: Path
    ids: list[str]
    tissues: list[str]
    values: NDArray[np.float64]  # (transcripts, tissues)
    unit: str
    genes: list[str] | None = None
    id_column: str = ""
    """What the table itself calls its IDs."""
    counts: Counter[str]

    def select(self, tissues: Sequence[str]) -> "TargetTable":
        """The table with these tissues only, in this order; all of them if none is named.

        Raises:
            UnknownNameError: A tissue that is not there.
        """
        if unknown := [name for name in tissues if name not in self.tissues]:
            raise UnknownNameError(f"tissue of {self.path}:", unknown[0], self.tissues)
        if not tissues:
            return self
        columns = [self.tissues.index(name) for name in dict.fromkeys(tissues)]
        return replace(self, tissues=[self.tissues[i] for i in columns], values=self.values[:, columns])


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with every cell as text, empty ones as empty text, so that IDs stay as they are.

    Parquet is known by its suffix or its first bytes and keeps its types; its index, if it has one, comes first.
    Any other file is text, plain or gzip-compressed, with tabs between fields, or commas if its first line has
    no tab.

    Raises:
        InvalidInputError: The file is missing, damaged, empty or not a table.
    """
    open_text(path).close()  # one text for a missing or unreadable file
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1" or path.suffix.lower() == ".parquet"
    return _read_parquet(path) if is_parquet else pd.concat(stream_table(path), ignore_index=True)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            table = file.read()
        table.validate(full=True)  # text that is not UTF-8, offsets that leave their buffer
        names = [str(name) for name in table.column_names]
        index = [name for name in _pandas_index(table.schema.metadata) if name in names]
        frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not a table: {_reason(error)}. Expected Parquet.") from error
    _check_columns(path, names)
    frame = frame[[*index, *(name for name in names if name not in index)]]
    return frame.rename(
        columns={f"__index_level_{i}__": "index" if i == 0 else f"level_{i}" for i in range(len(index))}
    )


def _pandas_index(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    """Columns that were the index of the frame; pandas writes them last."""
    try:
        found = json.loads((metadata or {}).get(b"pandas", b"{}"))["index_columns"]
        return [name for name in found if isinstance(name, str)]
    except (ValueError, KeyError, TypeError, RecursionError):  # a note of pandas, which the table does not need
        return []


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(f"{path}: column {name!r} comes twice. Give each column its own name.")
        if not name.isprintable():
            raise InvalidInputError(f"{path}: column {name!r} has characters that no name has. Name it anew.")


def _reason(error: Exception) -> str:
    """The beginning of an error text on one line, without bytes that a terminal would obey."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split())[:200].rstrip(" .:")


def stream_table(path: Path, *, block_bytes: int = 16 << 20) -> Iterator[pd.DataFrame]:
    """Read a text table as ``read_table`` does, in pieces; the first piece can be empty.

    Arrow's reader does the work, because it refuses rows of another length where others fill or cut them.
    """
    try:
        with open_text(path) as file:
            header = file.readline().removeprefix("\ufeff").rstrip("\r\n")
        separator = "\t" if "\t" in header else ","
        names = next(csv.reader([header], delimiter=separator), [])
        _check_columns(path, names)
        if len(names) == 1 and ";" in header:
            raise InvalidInputError(
                f"{path} has semicolons between its fields. Write tabs or commas, and decimal points."
            )
        with open_text(path) as file:
            reader = pacsv.open_csv(
                CheckedText(path, file.buffer, separator),  # type: ignore[attr-defined]
                read_options=pacsv.ReadOptions(use_threads=False, block_size=block_bytes),
                parse_options=pacsv.ParseOptions(delimiter=separator),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
            if reader.schema.names != names:
                raise InvalidInputError(f"{path}, line 1: the names of columns cannot be told apart. Mend its quotes.")
            yield pd.DataFrame(columns=pd.Index(names), dtype=str)
            for batch in reader:
                yield batch.to_pandas()
    except (pa.ArrowException, csv.Error, UnicodeError) as error:
        if isinstance(error, UnicodeError) or "invalid UTF8" in str(error):
            raise InvalidInputError(f"{path} is not UTF-8 text. Save it as UTF-8, or give Parquet.") from error
        raise InvalidInputError(f"{path} is not a table: {_reason(error)}. Expected TSV, CSV or Parquet.") from error
    except DAMAGED_GZIP as error:
        raise InvalidInputError(f"{path} is cut or damaged: {error}. Copy or download it again.") from error


def read_target_table(
    path: Path,
    *,
    id_column: str | None = None,
    gene_column: str | None = None,
    drop_columns: Sequence[str] = (),
    already_log: bool = False,
    unit: str | None = None,
) -> TargetTable:
    """Read targets from a table: one row a transcript, one column a tissue, empty or NA = not measured.

    Args:
        path: TSV, CSV or Parquet.
        id_column: Column of transcript IDs; the first column without it.
        gene_column: Column of gene IDs, if the table has one.
        drop_columns: Columns that are neither IDs nor tissues.
        already_log: Values are on a logarithmic scale and stay as they are; otherwise they are TPM, and log1p
            is taken.
        unit: What values that are ``already_log`` are, for the record, such as ``log10_fpkm``.

    Raises:
        InvalidInputError: An ID that is empty or comes twice, a cell that is no number or no TPM; with the line.
        UnknownNameError: A column that is not there.
    """
    table = read_table(path)
    names = [str(name) for name in table.columns]
    id_column = names[0] if id_column is None else id_column
    named = [id_column, *([gene_column] if gene_column else []), *drop_columns]
    for name in named:
        if name not in names:
            raise UnknownNameError(f"column of {path}:", name, names)
    tissues = [name for name in names if name not in named]
    if not tissues:
        raise InvalidInputError(f"{path} has no column beside IDs. Give one column of numbers a tissue.")
    if "" in tissues:
        raise InvalidInputError(f"{path}: column {names.index('') + 1} has no name. Name it, or remove it.")
    ids = _ids(path, table, id_column)
    _refuse_texts(path, table[tissues])
    values = np.stack([_numbers(path, table[name], name, already_log) for name in tissues], axis=1)
    n_missing = int(np.isnan(values).sum())
    if n_missing == values.size:
        raise InvalidInputError(f"{path} has no number in {len(ids)} rows. Give at least one measured value.")
    if not already_log:
        _ask_whether_log(path, values)
    return TargetTable(
        path=path,
        ids=ids,
        id_column=id_column,
        genes=read_names(path, table, gene_column) if gene_column else None,
        tissues=tissues,
        values=values if already_log else np.log1p(values),
        unit=(unit or "as_given_log") if already_log else "log1p_tpm",
        counts=Counter({"targets measured": values.size - n_missing, "targets not measured": n_missing}),
    )


def _ask_whether_log(path: Path, values: NDArray[np.float64]) -> None:
    highest = float(np.nanmax(values))
    if np.isfinite(values).sum() >= _MANY_VALUES and highest < _LOWEST_TPM:
        log.warning(
            "%s: no value is above %.3g; TPM reach thousands. Are they logarithms? Then give --already-log.",
            path,
            highest,
        )


def read_names(path: Path, table: pd.DataFrame, column: str) -> list[str]:
    """One column of names or IDs as text, as they are; "" where there is none.

    Raises:
        InvalidInputError: The column holds something else, such as fractions, or a name that cannot be printed.
    """
    kind = pd.api.types.infer_dtype(table[column], skipna=True)
    if kind not in _NAME_TYPES:
        raise InvalidInputError(f"{path}: column {column!r} holds {kind}, not names. Write its names as text.")
    names = ["" if missing else str(name) for name, missing in zip(table[column], table[column].isna(), strict=True)]
    for line, name in enumerate(names, start=2):
        if not name.isprintable():
            raise InvalidInputError(f"{path}, line {line}: {column} {name!r} is no name. Write printable letters.")
    return names


def _ids(path: Path, table: pd.DataFrame, column: str) -> list[str]:
    first: dict[str, int] = {}
    for line, name in enumerate(read_names(path, table, column), start=2):
        if not name:
            raise InvalidInputError(f"{path}, line {line}: empty {column}. Give every row its ID.")
        if first.setdefault(name, line) != line:
            raise InvalidInputError(f"{path}, line {line}: {column} {name!r} comes twice. Give each one row.")
    if not first:
        raise InvalidInputError(f"{path} has no row below its header. Give one row a transcript.")
    return list(first)


def _refuse_texts(path: Path, table: pd.DataFrame) -> None:
    """Name all columns that begin with text at once; ``_numbers`` tells of one, with its line."""
    first = {name: cells[~(cells.isna() | cells.isin(NOT_MEASURED))].iloc[:1] for name, cells in table.items()}
    texts = [
        f"{name!r} ({cell.iloc[0]!r})" for name, cell in first.items() if pd.to_numeric(cell, "coerce").isna().any()
    ]
    if len(texts) > 1:
        raise InvalidInputError(
            f"{path}: {len(texts)} columns hold no numbers: {', '.join(texts[:6])}{' ...' if len(texts) > 6 else ''}. "
            "Give --drop-column for each that is no tissue, --id-column if IDs are not in the first one, and "
            "--gene-column of prepare fasta for genes; write numbers with decimal points."
        )


def _numbers(path: Path, cells: "pd.Series[str]", name: str, already_log: bool) -> NDArray[np.float64]:
    """One column as float64, NaN where nothing was measured."""
    kind = pd.api.types.infer_dtype(cells, skipna=True)
    if kind.startswith(_NO_NUMBERS):
        raise InvalidInputError(f"{path}: column {name!r} holds {kind}. Give numbers, or leave it out (--drop-column).")
    missing = (cells.isna() | cells.isin(NOT_MEASURED)).to_numpy(dtype=bool)
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~missing & ~np.isfinite(values)
    if bad.any():
        line = int(bad.argmax()) + 2
        raise InvalidInputError(
            f"{path}, line {line}, column {name!r}: {cells.iloc[line - 2]!r} is not a number. Mend it; or name the "
            "column with --drop-column if it is no tissue, or with --gene-column of prepare fasta if it names genes."
        )
    no_tpm = ~missing & ((values < 0) | (values > MOST_TPM))
    if no_tpm.any() and not already_log:
        line = int(no_tpm.argmax()) + 2
        raise InvalidInputError(
            f"{path}, line {line}, column {name!r}: {values[line - 2]} is no TPM. Expected a number from 0 to a "
            "million; values on a log scale need --already-log."
        )
    return values
