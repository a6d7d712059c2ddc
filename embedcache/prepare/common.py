"""What all ways of preparing a dataset share: the record of how it was made, and joining targets by ID."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from embedcache.dataset_write import describe_input
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.expression import read_gct
from embedcache.sequences import Modality
from embedcache.tables import TargetTable, read_target_table

__all__ = [
    "JoinedTargets",
    "join_targets",
    "provenance",
    "read_targets",
    "target_frame",
    "without_version",
]

_VERSION = re.compile(r"\.\d+(?=$|_PAR_Y$)")
_PACKAGES = ("numpy", "pandas", "pyarrow", "pyfaidx", "biopython")


def provenance(
    source: str,
    inputs: Iterable[Path | None],
    options: Mapping[str, Any],
    encoders: Mapping[Modality, str] | None,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """The part of ``dataset.json`` that is known before anything is read: inputs, options, encoders."""
    return {
        "source": source,
        "inputs": [describe_input(Path(path)) for path in inputs if path is not None],
        "versions": {name: version(name) for name in _PACKAGES},
        "options": dict(options),
        "encoders": dict(encoders or {}),
        "labels": list(labels),
    }


def read_targets(
    expression: Path | None,
    samples: Path | None,
    tissue_column: str,
    *,
    already_log: bool,
    unit: str | None,
    **columns: Any,
) -> TargetTable | None:
    """Targets from a GCT file, known by its name or because sample attributes came with it, or from a table."""
    if expression is None:
        return None
    if samples is None and not re.search(r"\.gct(\.gz)?$", expression.name.lower()):
        return read_target_table(expression, already_log=already_log, unit=unit, **columns)
    if samples is None:
        raise InvalidSettingError(f"{expression} is a GCT file: its samples need tissues. Give --samples as well.")
    if already_log:
        raise InvalidSettingError(f"{expression} is a GCT file, which holds TPM. Leave out --already-log.")
    return read_gct(expression, samples, tissue_column)


def without_version(identifier: str) -> str:
    """An Ensembl or RefSeq ID without its version: ENST1.4 is ENST1, and ENST1.4_PAR_Y is ENST1_PAR_Y."""
    return _VERSION.sub("", identifier)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedTargets:
    """Targets in the order of the transcripts of a dataset."""

    values: NDArray[np.float64]  # (transcripts, tissues); NaN without targets
    rows: NDArray[np.intp]  # row of the target table, -1 without targets
    counts: Counter[str]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """True for transcripts that the table has."""
        return self.rows >= 0


def join_targets(table: TargetTable, ids: Sequence[str], *, strip_versions: bool, where: str) -> JoinedTargets:
    """Bring the rows of a target table into the order of ``ids``.

    Args:
        table: Targets under their own IDs.
        ids: Transcript IDs of the dataset.
        strip_versions: Also join IDs that differ in their version only; exact matches go first.
        where: What the IDs come from, for messages.

    Raises:
        InvalidInputError: No ID is in both, or two rows would join one transcript.
    """
    row_of = {identifier: row for row, identifier in enumerate(table.ids)}
    rows = np.array([row_of.get(identifier, -1) for identifier in ids], dtype=np.intp)
    n_exact = int((rows >= 0).sum())
    loose = _join_without_version(table, ids, rows)
    if strip_versions:
        rows = np.where(rows < 0, loose, rows)
    used = rows[rows >= 0]
    if len(used) == 0:
        hint = " They agree without versions: give --strip-versions." if (loose >= 0).any() else " Give matching IDs."
        raise InvalidInputError(
            f"No transcript of {table.path} is in {where}: IDs look like {table.ids[0]!r} and {ids[0]!r}.{hint}"
        )
    if len(set(used.tolist())) < len(used):
        row = int(np.bincount(used).argmax())
        raise InvalidInputError(
            f"{table.path}: {table.ids[row]!r} fits two transcripts of {where} without version. "
            "Leave out --strip-versions, or drop one of them."
        )
    values = np.where((rows >= 0)[:, None], table.values[np.maximum(rows, 0)], np.nan)
    counts = Counter(table.counts)
    counts["transcripts with targets"] = len(used)
    counts["transcripts without targets"] = len(ids) - len(used)
    counts["IDs joined without version"] = len(used) - n_exact
    counts["IDs that would join without version"] = 0 if strip_versions else int(((loose >= 0) & (rows < 0)).sum())
    return JoinedTargets(values=values, rows=rows, counts=counts)


def _join_without_version(table: TargetTable, ids: Sequence[str], exact: NDArray[np.intp]) -> NDArray[np.intp]:
    taken = set(exact.tolist())
    row_of: dict[str, int] = {}
    for row, identifier in enumerate(table.ids):
        if row not in taken:
            row_of.setdefault(without_version(identifier), row)
    return np.array([row_of.get(without_version(identifier), -1) for identifier in ids], dtype=np.intp)


def target_frame(values: NDArray[np.float64], tissues: Sequence[str]) -> pd.DataFrame:
    """Targets as ``dataset_write.write_dataset`` takes them."""
    return pd.DataFrame(values, columns=pd.Index(list(tissues)))
