"""Files of an explanation: a Parquet table that tells where it came from, and a page. A file of others is kept."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.errors import InvalidInputError
from embedcache.store.files import replace_file
from heads.interpret.explain.page import MARK
from heads.interpret.ours import is_our_page, is_our_table

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
        checks = ((self.parquet, partial(is_our_table, entry=ENTRY)), (self.html, partial(is_our_page, mark=MARK)))
        for path, is_ours in checks:
            if path.exists() and not is_ours(path):
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
