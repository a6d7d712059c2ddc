"""Files of an explanation: a Parquet table that tells where it came from, and a page. A file of others is kept."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.errors import InvalidInputError
from embedcache.store.files import replace_file
from heads.interpret.explain.page import MARK

__all__ = ["ENTRY", "Outputs"]

ENTRY = b"isoheads-explain"
"""Key of the JSON in the header of a Parquet file."""


class Outputs:
    """The two files of one explanation.

    Args:
        directory: Made if it is not there.
        words: What the files are named after, such as the kind and the transcript.

    Raises:
        InvalidInputError: A file of that name is not ours, or the directory cannot be one.
    """

    def __init__(self, directory: Path, *words: str) -> None:
        name = "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", word)[:80] for word in words)
        self.parquet, self.html = directory / f"{name}.parquet", directory / f"{name}.html"
        if directory.exists() and not directory.is_dir():
            raise InvalidInputError(f"{directory} is a file. Give the name of a directory (--output).")
        for path, ours in ((self.parquet, _is_our_table), (self.html, _is_our_page)):
            if path.exists() and not ours(path):
                raise InvalidInputError(f"{path} exists and is no explanation. Choose another --output, or remove it.")

    def write(self, table: pa.Table, about: Mapping[str, Any], page: str) -> None:
        """Write or replace both files; nobody sees half of one.

        Raises:
            InvalidInputError: The disk does not take them.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({ENTRY: json.dumps(about)}), sink)
        path = self.parquet
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for path, data in ((self.parquet, sink.getvalue().to_pybytes()), (self.html, page.encode())):
                replace_file(path, [data])
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be written: {error.strerror or error}. Choose another --output, or free space."
            ) from error


def _is_our_table(path: Path) -> bool:
    try:
        return ENTRY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _is_our_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(1000)
    except OSError:
        return False
