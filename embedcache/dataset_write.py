"""How a dataset directory is written: into a hidden sibling first, then moved to its name in one step."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from embedcache.dataset import (
    FORMAT,
    SAMPLE_COLUMNS,
    VERSION,
    Dataset,
    info_digest,
    read_dataset,
    read_info,
    sample_schema,
)
from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.interrupt import stop_at_once
from embedcache.partial import make_partial, remove_abandoned
from embedcache.place import check_local
from embedcache.sequences import MODALITIES, Modality, check_modality, sequence_key
from embedcache.splits import check_splits
from embedcache.text import read_start

__all__ = ["DatasetWriter", "describe_input", "made_by_same_command", "write_dataset"]

_GROUP_LETTERS = 8 << 20  # letters in a row group: what a reader holds in memory at a time
_SEQUENCES = pa.schema(
    [
        pa.field("modality", pa.string(), False),
        pa.field("key", pa.binary(16), False),
        pa.field("sequence", pa.string(), False),
    ]
)


def describe_input(path: Path) -> dict[str, Any]:
    """Path, size and SHA-256 of an input file."""
    read_start(path)  # one text for what is no file
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = os.fsencode(path).decode("utf-8", "backslashreplace")  # JSON is UTF-8, names of files need not be
            return {"path": name, "size_bytes": file.tell(), "sha256": digest}
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}. Give a readable file.") from error


def made_by_same_command(path: Path, info: Mapping[str, Any]) -> Dataset | None:
    """The dataset at ``path`` if the same inputs and options made it, None if nothing is there.

    Raises:
        InvalidInputError: Something else is there.
    """
    if not _is_taken(path):
        return None
    if not (path / "dataset.json").is_file():
        raise InvalidInputError(f"{path} exists and is not a dataset. Choose another output, or remove it first.")
    found, wanted = _command(read_info(path)), _command(info)
    different = [name for name in wanted if name in info and wanted[name] != found[name]]
    if different:
        raise InvalidInputError(
            f"{path} holds a dataset made with other {', '.join(different)}. "
            "Choose another output, or remove the directory first."
        )
    return read_dataset(path)


def _is_taken(path: Path) -> bool:
    """Whether anything but an empty directory is at the place of the output."""
    check_local(path)
    try:
        return any(path.iterdir()) if path.is_dir() else path.is_symlink() or path.exists()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be looked at: {error.strerror}. Choose another --output.") from error


def _command(info: Mapping[str, Any]) -> dict[str, Any]:
    inputs = [entry["sha256"] for entry in info.get("inputs", [])]
    return {"source": info.get("source"), "inputs": inputs, **{k: info.get(k) for k in ("options", "encoders")}}


class DatasetWriter:
    """Collects sequences, then finishes a dataset directory; without ``finish`` nothing is left behind.

    Use it as a context manager: ``add`` sequences one by one, ``finish`` with samples and targets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = Path(os.path.realpath(path))  # a name such as "." has no parent to hide things in
        self._keys: set[bytes] = set()
        self._waiting: dict[Modality, list[tuple[bytes, str]]] = {modality: [] for modality in MODALITIES}
        self._letters = dict.fromkeys(MODALITIES, 0)
        self._n_distinct = dict.fromkeys(MODALITIES, 0)

    def __enter__(self) -> Self:
        """Make the hidden directory that later becomes the dataset."""
        if _is_taken(self.path):
            raise InvalidInputError(f"{self.path} exists already. Choose another output, or remove it first.")
        self._new_parents = [parent for parent in self._place.parents if not parent.exists()]
        self._stop = stop_at_once(f"Stopped; nothing was left at {self.path}. Run the same command to start over.")
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self._place)
            self._partial, self._lock = make_partial(self._place)
            # files are opened here, for Arrow opens no path that is not UTF-8
            self._file = (self._partial / "sequences.parquet").open("wb")
            self._writer = pq.ParquetWriter(self._file, _SEQUENCES, compression="zstd", use_dictionary=["modality"])
        except OSError as error:
            raise self._cannot_write(error) from error
        self._stop.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Remove what was not finished; a full or failing disk becomes one line."""
        with suppress(OSError), closing(self._file):
            self._writer.close()
        shutil.rmtree(self._partial, ignore_errors=True)
        os.close(self._lock)
        if error is not None:
            for parent in self._new_parents:
                with suppress(OSError):
                    parent.rmdir()
        self._stop.__exit__(None, None, None)
        if isinstance(error, OSError):
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> InvalidInputError:
        reason = error.strerror or str(error).partition("\n")[0]
        return InvalidInputError(
            f"{self.path} cannot be written: {reason}. Nothing was left there. Free space or mend its permissions, "
            "or choose another --output."
        )

    @property
    def scratch(self) -> Path:
        """A directory on the disk of the output for temporary files; gone at the end."""
        return self._partial

    @property
    def counts(self) -> Counter[str]:
        """Distinct sequences of each modality so far."""
        return Counter({f"distinct {modality} sequences": n for modality, n in self._n_distinct.items()})

    def add(self, modality: Modality, sequence: str) -> bytes:
        """Write a normalised sequence unless it is there already, and return its key."""
        key = sequence_key(sequence, modality)
        self.add_keyed(modality, key, sequence)
        return key

    def add_keyed(self, modality: Modality, key: bytes, sequence: str) -> None:
        """Write a sequence under a key that is known already."""
        if key in self._keys:
            return
        self._keys.add(key)
        self._n_distinct[modality] += 1
        self._waiting[modality].append((key, sequence))
        self._letters[modality] += len(sequence)
        if self._letters[modality] >= _GROUP_LETTERS:
            self._flush(modality)

    def _flush(self, modality: Modality) -> None:
        if rows := self._waiting[modality]:
            keys, texts = zip(*rows, strict=True)
            columns = [pa.array([modality] * len(rows)), pa.array(keys, pa.binary(16)), pa.array(texts)]
            self._writer.write_table(pa.table(columns, schema=_SEQUENCES), row_group_size=len(rows))
            self._waiting[modality], self._letters[modality] = [], 0

    def finish(self, info: Mapping[str, Any], samples: pd.DataFrame, targets: pd.DataFrame | None) -> None:
        """Write the tables and ``dataset.json``, then give the directory its name."""
        samples = _check_samples(samples)
        if targets is not None and len(targets) != len(samples):
            raise InvalidInputError(
                f"{len(targets)} rows of targets for {len(samples)} samples. Give one row a sample."
            )
        _check_tissues(targets)
        for modality in info.get("encoders", {}):
            check_modality(modality)
        for modality in MODALITIES:
            self._flush(modality)
            missing = set(samples[f"{modality}_key"].dropna()) - self._keys
            if missing:
                raise InvalidInputError(f"{len(missing)} {modality} keys of samples have no sequence. Give them all.")
        with closing(self._file):
            self._writer.close()
        _write_tables(self._partial, info, samples, targets)
        try:
            self._partial.rename(self._place)
        except OSError as error:
            if not (self._place / "dataset.json").exists():
                raise
            raise InvalidInputError(
                f"{self.path} was made by another process meanwhile. Run the same command again to use it."
            ) from error


def write_dataset(
    path: Path | str,
    *,
    info: Mapping[str, Any],
    samples: pd.DataFrame,
    targets: pd.DataFrame | None,
    sequences: Iterable[tuple[Modality, bytes, str]],
) -> Dataset:
    """Write a dataset directory, whole or not at all: it appears under its name when it is complete.

    Args:
        path: A directory that does not exist yet, or is empty.
        info: What goes into ``dataset.json`` beside format, version and the digests of the files.
        samples: One row a transcript; columns of ``SAMPLE_COLUMNS``, those that can be null may be left out.
        targets: One column a tissue, rows as in ``samples``; None for a dataset without targets.
        sequences: Modality, key and normalised sequence; one that comes again is written once.

    Raises:
        InvalidInputError: The directory has content, IDs come twice, or a key has no sequence.
        SplitError: A gene is in two splits.
    """
    with DatasetWriter(Path(path)) as writer:
        for modality, key, sequence in sequences:
            writer.add_keyed(modality, key, sequence)
        writer.finish(info, samples, targets)
    return read_dataset(path)


def _check_tissues(targets: pd.DataFrame | None) -> None:
    names = [] if targets is None else [str(name) for name in targets.columns]
    for name in names:
        if not name or name == "transcript_id" or names.count(name) > 1:
            raise InvalidInputError(f"Tissue {name!r} is empty, comes twice or is reserved. Give it another name.")


def _check_samples(samples: pd.DataFrame) -> pd.DataFrame:
    unknown = [name for name in samples.columns if name not in SAMPLE_COLUMNS]
    if unknown:
        raise UnknownNameError("sample column", str(unknown[0]), SAMPLE_COLUMNS)
    samples = samples.reindex(columns=list(SAMPLE_COLUMNS)).reset_index(drop=True)
    twice = samples["transcript_id"][samples["transcript_id"].duplicated()]
    if len(twice):
        raise InvalidInputError(f"Transcript ID {twice.iloc[0]!r} comes twice. Give each transcript its own ID.")
    check_splits(samples["gene_id"].tolist(), samples["split"].tolist())
    return samples


def _write_tables(path: Path, info: Mapping[str, Any], samples: pd.DataFrame, targets: pd.DataFrame | None) -> None:
    schema = sample_schema()
    # By way of Python objects: a column of nothing but missing values has no type of its own in pandas.
    columns = [_with_none(samples[field.name], field.type) for field in schema]
    _write_table(pa.table(columns, schema=schema), path / "samples.parquet")
    tissues = [] if targets is None else [str(name) for name in targets.columns]
    if targets is not None:
        measured = [pa.array(targets.iloc[:, i].astype("float64"), from_pandas=True) for i in range(len(tissues))]
        ids = pa.array(samples["transcript_id"].tolist(), pa.string())
        _write_table(pa.table([ids, *measured], ["transcript_id", *tissues]), path / "targets.parquet")
    files = {}
    for file in sorted(path.glob("*.parquet")):
        _flush(file)
        files[file.name] = {name: value for name, value in describe_input(file).items() if name != "path"}
    head = {"format": FORMAT, "version": VERSION, "created_by": f"isoheads {_own_version()}"}
    whole = {**head, **info, "tissues": tissues, "files": files}
    text = json.dumps({**whole, "sha256": info_digest(whole)}, indent=2, ensure_ascii=False) + "\n"
    (path / "dataset.json").write_text(text, encoding="utf-8")
    _flush(path / "dataset.json")


def _write_table(table: pa.Table, path: Path) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file)


def _with_none(column: "pd.Series[Any]", kind: pa.DataType) -> pa.Array:
    missing = column.isna().tolist()
    return pa.array([None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)], kind)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _own_version() -> str:
    try:
        return version("isoheads")
    except PackageNotFoundError:
        return "from source"
