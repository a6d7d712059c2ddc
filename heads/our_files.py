"""Tells our own outputs from files of others, which are never replaced."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["is_our_page", "is_our_table"]


def is_our_table(path: Path, entry: bytes) -> bool:
    """Whether a file is Parquet with this entry in its header."""
    try:
        return entry in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def is_our_page(path: Path, mark: str) -> bool:
    """Whether a file has this mark near its start."""
    try:
        with path.open("rb") as file:
            return mark.encode() in file.read(1000)
    except OSError:
        return False
