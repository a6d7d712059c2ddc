"""The three files of an analysis of attention: a long table, a page, and where they came from."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.errors import InvalidInputError
from embedcache.store.files import replace_file
from heads.interpret.attention.findings import AttentionFindings, attention_table
from heads.interpret.attention.svg import MARK, attention_page
from heads.interpret.attention.text import attention_text
from heads.our_files import is_our_page, is_our_table

__all__ = ["AttentionResult", "check_outputs", "write_attention"]

_ENTRY = b"isoheads-attention"
_SUFFIXES = (".parquet", ".html", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionResult:
    """What ``write_attention`` wrote."""

    outputs: tuple[Path, ...]
    findings: AttentionFindings

    def __str__(self) -> str:
        return f"{attention_text(self.findings)}\nwritten: {', '.join(map(str, self.outputs))}"


def check_outputs(output: Path | str) -> dict[str, Path]:
    """Names of the files by suffix: of ``out/attention`` these are ``out/attention.parquet``, ``.html``, ``.json``.

    A directory means the name ``attention`` in it.

    Raises:
        InvalidInputError: One of them is there and is something else.
    """
    output = Path(output)
    output = output / "attention" if output.is_dir() else output
    base = output.with_suffix("") if output.suffix in _SUFFIXES else output
    if not base.name:
        raise InvalidInputError(f"{output} is no name of a file. Give one such as attention.")
    paths = {suffix: base.with_name(base.name + suffix) for suffix in _SUFFIXES}
    for suffix, path in paths.items():
        if path.is_dir():
            raise InvalidInputError(f"{path} is a directory. Choose another --output.")
        if path.exists() and not _is_ours[suffix](path):
            raise InvalidInputError(f"{path} exists and is no analysis of attention. Choose another --output.")
    return paths


def write_attention(findings: AttentionFindings, output: Path | str) -> AttentionResult:
    """Write table, page and provenance; those of an older analysis are replaced.

    Raises:
        InvalidInputError: A file of something else is in the way, or the place cannot be written.
    """
    paths = check_outputs(output)
    story = json.dumps(findings.story, indent=1)
    table = attention_table(findings).replace_schema_metadata({_ENTRY: story})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    contents: dict[str, Any] = {
        ".parquet": sink.getvalue(),
        ".html": attention_page(findings).encode(),
        ".json": f"{story}\n".encode(),
    }
    try:
        paths[".json"].parent.mkdir(parents=True, exist_ok=True)
        for suffix, path in paths.items():
            replace_file(path, [contents[suffix]])
    except OSError as error:
        raise InvalidInputError(
            f"{paths['.json'].with_suffix('')} cannot be written: {error.strerror or error}. "
            "Choose another --output, or free space."
        ) from error
    return AttentionResult(outputs=tuple(paths.values()), findings=findings)


def _is_our_story(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == _ENTRY.decode()


_is_ours: dict[str, Callable[[Path], bool]] = {
    ".parquet": partial(is_our_table, entry=_ENTRY),
    ".html": partial(is_our_page, mark=MARK),
    ".json": _is_our_story,
}
