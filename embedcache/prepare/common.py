"""What all ways of preparing a dataset share: the record of how it was made, and joining targets by ID."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from embedcache.dataset_write import DatasetWriter, describe_input
from embedcache.encoders.registry import card, check_reads
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.expression import read_gct
from embedcache.sequences import MODALITIES, Modality
from embedcache.tables import TargetTable, read_target_table
from embedcache.text import open_text

__all__ = [
    "Assembled",
    "JoinedTargets",
    "check_header",
    "check_unit",
    "finish_dataset",
    "join_targets",
    "provenance",
    "read_targets",
    "target_frame",
    "without_version",
]

_VERSION = re.compile(r"\.\d+(?=$|_PAR_Y$)")
_PACKAGES = ("numpy", "pandas", "pyarrow", "biopython")


def provenance(
    source: str,
    inputs: Iterable[Path | None],
    options: Mapping[str, Any],
    encoders: Mapping[Modality, str] | None,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """The part of ``dataset.json`` that is known before anything is read: inputs, options, encoders.

    Raises:
        UnknownNameError: No encoder has the name that was chosen.
        InvalidInputError: An input is not there, or an encoder does not read its modality.
    """
    for modality, name in (encoders or {}).items():
        check_reads(card(name), modality)
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
    check_unit(unit, already_log=already_log)
    if expression is None:
        return None
    if samples is None and not _is_gct(expression):
        return read_target_table(expression, already_log=already_log, unit=unit, **columns)
    if samples is None:
        raise InvalidSettingError(f"{expression} is a GCT file: its samples need tissues. Give --samples as well.")
    for name, given in {"already_log": already_log, **columns}.items():
        if given:
            option = "--" + name.removesuffix("s").replace("_", "-")
            raise InvalidSettingError(f"{expression} is a GCT file, which holds TPM by sample. Leave out {option}.")
    return read_gct(expression, samples, tissue_column)


def check_unit(unit: str | None, *, already_log: bool) -> None:
    """A unit can only be chosen for values that are taken as they are; GCT files are told apart later.

    Raises:
        InvalidSettingError: A unit for values that become log1p TPM.
    """
    if unit and not already_log:
        raise InvalidSettingError(
            f"--target-unit {unit!r} is for values on a log scale; others become log1p_tpm. Leave out --target-unit, "
            "or give --already-log."
        )


def _is_gct(path: Path) -> bool:
    if re.search(r"\.gct(\.gz)?$", path.name.lower()):
        return True
    with open_text(path) as file:
        return re.match(r"#1\.\d\s*$", file.readline(10)) is not None


def check_header(path: Path, id_column: str, ids: Container[str]) -> None:
    """Refuse a table whose first line is a row: its transcript would be lost.

    Raises:
        InvalidInputError: The name of the column of IDs is an ID.
    """
    if id_column in ids:
        raise InvalidInputError(
            f"{path}: the first line begins with the ID {id_column!r}, so there is no header. Add one."
        )


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
    check_header(table.path, table.id_column, set(ids))
    row_of = {identifier: row for row, identifier in enumerate(table.ids)}
    rows = np.array([row_of.get(identifier, -1) for identifier in ids], dtype=np.intp)
    n_exact = int((rows >= 0).sum())
    loose, twice = _join_without_version(table, ids, rows)
    if strip_versions:
        _refuse_two_rows(table, ids, rows, twice, where)
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


def _join_without_version(
    table: TargetTable, ids: Sequence[str], exact: NDArray[np.intp]
) -> tuple[NDArray[np.intp], dict[str, int]]:
    """Row of each ID among those without an exact match, and a second row of IDs without version that have two."""
    taken = set(exact.tolist())
    row_of: dict[str, int] = {}
    twice: dict[str, int] = {}
    for row, identifier in enumerate(table.ids):
        if row not in taken and row_of.setdefault(without_version(identifier), row) != row:
            twice[without_version(identifier)] = row
    return np.array([row_of.get(without_version(identifier), -1) for identifier in ids], dtype=np.intp), twice


def _refuse_two_rows(
    table: TargetTable, ids: Sequence[str], exact: NDArray[np.intp], twice: Mapping[str, int], where: str
) -> None:
    for identifier, row in zip(ids, exact.tolist(), strict=True):
        bare = without_version(identifier)
        if row < 0 and bare in twice:
            first = next(name for name in table.ids if without_version(name) == bare and name not in ids)
            raise InvalidInputError(
                f"{table.path}: {first!r} and {table.ids[twice[bare]]!r} both fit {identifier!r} of {where} without "
                "version. Leave out --strip-versions, or drop one of them."
            )


def target_frame(values: NDArray[np.float64], tissues: Sequence[str]) -> pd.DataFrame:
    """Targets as ``dataset_write.write_dataset`` takes them."""
    return pd.DataFrame(values, columns=pd.Index(list(tissues)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The tables of a dataset and what goes into ``dataset.json`` about them."""

    samples: pd.DataFrame
    targets: pd.DataFrame | None
    counts: Counter[str]
    left_out: Counter[str]


def finish_dataset(
    writer: DatasetWriter, info: Mapping[str, Any], made: Assembled, genetic_codes: Mapping[str, int], unit: str | None
) -> None:
    """Complete the record of a dataset and write it with the tables."""
    record = {
        **info,
        "genetic_codes": dict(genetic_codes),
        "target_unit": unit,
        "counts": dict(made.counts + _distinct(made.samples)),
        "left_out": dict(+made.left_out),
    }
    writer.finish(record, made.samples, made.targets)


def _distinct(samples: pd.DataFrame) -> Counter[str]:
    """Distinct sequences of the rows; those of rows that were left out may be on disk as well."""
    return Counter({f"distinct {modality} sequences": samples[f"{modality}_key"].nunique() for modality in MODALITIES})
