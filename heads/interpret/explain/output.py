"""Files of an explanation: a Parquet table that tells where it came from, and a page. Nothing else is replaced.

A question asked again replaces its answer. Another question of the same name, such as one about other tissues, and
a file of others are kept.
"""

import json
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.errors import InvalidInputError
from embedcache.store.files import replace_file
from heads.interpret.explain.page import MARK
from heads.our_files import is_our_page, is_our_table

__all__ = ["ENTRY", "Outputs"]

ENTRY = b"isoheads-explain"
"""Key of the JSON in the header of a Parquet file."""


class Outputs:
    """The two files of one explanation.

    Args:
        directory: Made if it is not there.
        words: What the files are named after, such as the kind and the transcript; with a number where an answer
            to another question has the name.
        question: All that was asked, in values of JSON. The same question replaces its answer.

    Raises:
        InvalidInputError: A file of that name is not ours, or the directory cannot be one.
    """

    def __init__(self, directory: Path, *words: str, question: Mapping[str, Any]) -> None:
        if directory.exists() and not directory.is_dir():
            raise InvalidInputError(f"{directory} is a file. Give the name of a directory (--output).")
        self.question = json.loads(json.dumps(question))
        name = "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", word)[:80] for word in words)
        names = (name if n == 1 else f"{name}-{n}" for n in count(1))
        pairs = ((directory / f"{one}.parquet", directory / f"{one}.html") for one in names)
        self.parquet, self.html = next(pair for pair in pairs if self._may_write(*pair))

    def _may_write(self, parquet: Path, html: Path) -> bool:
        """Whether no answer to another question is there."""
        for path, is_ours in ((parquet, is_our_table(parquet, ENTRY)), (html, is_our_page(html, MARK))):
            if path.exists() and not is_ours:
                raise InvalidInputError(f"{path} exists and is no explanation. Choose another --output, or remove it.")
        return not parquet.exists() or _read_about(parquet).get("question") == self.question

    def write(self, table: pa.Table, about: Mapping[str, Any], page: str) -> None:
        """Write or replace both files; nobody sees half of one.

        Raises:
            InvalidInputError: The disk does not take them.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({ENTRY: json.dumps({**about, "question": self.question})}), sink)
        path = self.parquet
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for path, data in ((self.parquet, sink.getvalue().to_pybytes()), (self.html, page.encode())):
                replace_file(path, [data])
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be written: {error.strerror or error}. Choose another --output, or free space."
            ) from error


def _read_about(parquet: Path) -> dict[str, Any]:
    try:
        found = json.loads(pq.read_schema(parquet).metadata[ENTRY])
    except ValueError:  # damaged: no answer to anything
        return {}
    return found if isinstance(found, dict) else {}
