"""The dataset directory: one row a transcript, its sequences by key, its targets, its split.

dataset.json        where everything came from: inputs, options, counts, tissue names, default encoders
samples.parquet     one row a transcript; columns as in ``SAMPLE_COLUMNS``
sequences.parquet   modality, key, sequence; each distinct sequence once, one modality a row group
targets.parquet     transcript_id and one float64 column a tissue, rows as in the samples; null = not measured

``cds_start`` and ``cds_end`` are 0-based and half-open on the RNA and leave out the stop codon, so that
cds_end - cds_start is three times the length of the protein. Both are null where there is no whole CDS.
``tss`` is the 1-based genomic position of the first base of the transcript.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.errors import InvalidInputError
from embedcache.sequences import MODALITIES, Modality, check_modality, sequence_key

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "FORMAT",
    "SAMPLE_COLUMNS",
    "VERSION",
    "Dataset",
    "info_digest",
    "read_dataset",
    "read_info",
    "sample_schema",
]

FORMAT = "embedcache-dataset"
VERSION = 1
_FILES = ("samples.parquet", "sequences.parquet", "targets.parquet")
_SPLITS = ("train", "validation", "test")

SAMPLE_COLUMNS = {
    "transcript_id": "string",
    "gene_id": "string",
    "gene_name": "string",
    "chromosome": "string",
    "strand": "string",
    "tss": "int64",
    "biotype": "string",
    "genetic_code": "int64",
    "split": "string",
    "dna_key": "key",
    "rna_key": "key",
    "protein_key": "key",
    "cds_start": "int64",
    "cds_end": "int64",
}
"""Columns of ``samples.parquet``; all but transcript_id, gene_id and split can be null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset directory that has been opened.

    ``samples`` has the columns of ``SAMPLE_COLUMNS``, keys as bytes or None. ``targets`` has the same rows in
    the same order and one float64 column a tissue, NaN where nothing was measured; None without targets.
    """

    path: Path
    info: dict[str, Any]
    samples: "pd.DataFrame"
    targets: "pd.DataFrame | None"

    @property
    def tissues(self) -> list[str]:
        """Names of the targets, in the order of their columns."""
        return list(self.info["tissues"])

    @property
    def labels(self) -> list[str]:
        """Words that must stand beside every result on this dataset, such as ``simulated``."""
        return list(self.info.get("labels", []))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that at least one transcript has."""
        return tuple(modality for modality in MODALITIES if self.samples[f"{modality}_key"].notna().any())

    @property
    def digest(self) -> str:
        """Digest of the content of the Parquet files, as recorded when they were written."""
        hashes = {name: entry["sha256"] for name, entry in self.info["files"].items()}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def keys(self, modality: Modality) -> list[bytes | None]:
        """Sequence key of each transcript in sample order; None where it lacks the modality."""
        return self.samples[f"{check_modality(modality)}_key"].tolist()

    def sequences(self, modality: Modality) -> Iterator[tuple[bytes, str]]:
        """Stream the distinct sequences of one modality with their keys."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        check_modality(modality)
        path = self.path / "sequences.parquet"
        missing = {key for key in self.keys(modality) if key is not None}
        try:
            with path.open("rb") as opened, pq.ParquetFile(opened) as file:
                _check_columns(path, file.schema_arrow.names, ["modality", "key", "sequence"])
                for group in range(file.num_row_groups):
                    statistics = file.metadata.row_group(group).column(0).statistics
                    if statistics is not None and statistics.has_min_max and statistics.min != modality:
                        continue
                    for batch in file.iter_batches(batch_size=256, row_groups=[group]):
                        for found, key, sequence in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                            if found == modality:
                                _check_key(path, key, sequence, modality)
                                missing.discard(key)
                                yield key, sequence
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        if missing:
            raise InvalidInputError(
                f"{path} lacks {len(missing)} {modality} sequences that samples have. Prepare the dataset again."
            )

    def encoder(self, modality: Modality) -> str | None:
        """Default encoder of a modality, as chosen when the dataset was prepared."""
        name = self.info.get("encoders", {}).get(check_modality(modality))
        return None if name is None else str(name)

    def summary(self) -> str:
        """What the dataset holds and what was left out of it, one line each."""
        labels = f" ({', '.join(self.labels)})" if self.labels else ""
        lines = [f"{self.path}: {len(self.samples):,} transcripts, {len(self.tissues)} tissues{labels}"]
        lines += [f"{n:>12,}  {name}" for name, n in self.info.get("counts", {}).items() if n]
        lines += [f"{n:>12,}  left out: {reason}" for reason, n in self.info.get("left_out", {}).items() if n]
        splits = {name: int((self.samples["split"] == name).sum()) for name in _SPLITS}
        lines.append("      splits  " + ", ".join(f"{name} {n:,}" for name, n in splits.items()))
        if self.tissues and (few := [name for name in _SPLITS[:2] if splits[name] < 2]):
            lines.append(f"        NOTE  a training needs 2 {few[0]} rows: take another --split-seed or more genes")
        if truth := self.info.get("truth", {}).get("explainable_r2"):
            shown = ", ".join(f"{names} {share:.2f}" for names, share in truth.items())
            lines.append(f"       truth  share of variance that can be explained: {shown}")
        return "\n".join(lines)

    def verify(self) -> None:
        """Read every file again and compare its digest.

        Raises:
            InvalidInputError: A file is not the one that was written.
        """
        for name, entry in self.info["files"].items():
            try:
                with (self.path / name).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _unreadable(self.path / name, error) from error
            if digest != entry["sha256"]:
                raise _changed(self.path / name)


def read_info(path: Path | str) -> dict[str, Any]:
    """Read ``dataset.json`` alone; imports nothing slow.

    Raises:
        InvalidInputError: There is no dataset, it is of a newer version, or its description is damaged.
    """
    path = Path(path)
    file = path / "dataset.json"
    if not os.path.isdir(path):  # noqa: PTH112 - False, not an error, for what cannot be looked at
        raise InvalidInputError(f"There is no dataset at {path}. Make one with `embedcache prepare`, or give its path.")
    if not os.path.isfile(file):  # noqa: PTH113 - the same
        raise InvalidInputError(
            f"{path} is not a dataset: it has no dataset.json. Give the directory that `embedcache prepare` wrote."
        )
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise InvalidInputError(f"{file} does not describe a dataset: its format is not {FORMAT!r}. Prepare it again.")
    if info.get("version") != VERSION:
        raise InvalidInputError(
            f"{file} has format version {info.get('version')!r}, this program reads {VERSION}. "
            "Install the release that wrote it, or prepare the dataset again."
        )
    _check_info(file, info)
    if info.get("sha256") not in (None, info_digest(info)):
        raise InvalidInputError(
            f"{file} is not as it was written: its own sha256 differs. Prepare the dataset again; or, if it was "
            "changed on purpose, remove its line sha256."
        )
    return info


def info_digest(info: Mapping[str, Any]) -> str:
    """SHA-256 of what ``dataset.json`` says beside it."""
    said = {name: value for name, value in info.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_dataset(path: Path | str) -> Dataset:
    """Open a dataset directory; checks the size of its files, and the digest of samples and targets.

    Sequences are checked against their keys when they are read.

    Raises:
        InvalidInputError: The directory or a file is missing, cut, changed, of another version or with other columns.
    """
    path = Path(path)
    info = read_info(path)
    for name, entry in info["files"].items():
        size = (path / name).stat().st_size if os.path.isfile(path / name) else None  # noqa: PTH113 - the same
        if size != entry["size_bytes"]:
            found = "is missing" if size is None else f"has {size} bytes instead of {entry['size_bytes']}"
            raise InvalidInputError(f"{path / name} {found}. Copy the whole directory again, or prepare it again.")
    samples = _read_parquet(path, "samples.parquet", info, list(SAMPLE_COLUMNS))
    targets = None
    if "targets.parquet" in info["files"]:
        targets = _read_parquet(path, "targets.parquet", info, ["transcript_id", *info["tissues"]])
        if targets.pop("transcript_id").tolist() != samples["transcript_id"].tolist():
            raise InvalidInputError(f"{path}: samples and targets have other rows. Prepare the dataset again.")
    return Dataset(path=path, info=info, samples=samples, targets=targets)


def _check_key(path: Path, key: bytes, sequence: str, modality: Modality) -> None:
    if sequence_key(sequence, modality) != key:
        raise InvalidInputError(
            f"{path}: a {modality} sequence is not the one of its key {key.hex()}. Prepare the dataset again."
        )


def _check_info(file: Path, info: Mapping[str, Any]) -> None:
    """The fields that readers count on have the form that they count on."""
    files, tissues = info.get("files"), info.get("tissues")
    good = {
        "files": isinstance(files, dict)
        and {"samples.parquet", "sequences.parquet"} <= set(files)
        and all(isinstance(entry, dict) and {"size_bytes", "sha256"} <= set(entry) for entry in files.values())
        and all(name in _FILES for name in files),
        "tissues": isinstance(tissues, list) and all(isinstance(name, str) for name in tissues),
        **{name: isinstance(info.get(name, {}), dict) for name in ("encoders", "counts", "left_out", "truth")},
        **{name: _are_numbers(info.get(name, {})) for name in ("counts", "left_out")},
        "labels": isinstance(info.get("labels", []), list) and all(isinstance(x, str) for x in info.get("labels", [])),
        "inputs": isinstance(info.get("inputs", []), list)
        and all(isinstance(entry, dict) and "sha256" in entry for entry in info.get("inputs", [])),
    }
    if wrong := [name for name, is_good in good.items() if not is_good]:
        raise InvalidInputError(f"{wrong[0]!r} of {file} is not what it should be. Prepare the dataset again.")


def _are_numbers(counts: Any) -> bool:
    return isinstance(counts, dict) and all(isinstance(n, int) for n in counts.values())


def _unreadable(path: Path, error: Exception) -> InvalidInputError:
    reason = str(error).partition("\n")[0].rstrip(".")
    return InvalidInputError(f"{path} cannot be read: {reason}. Prepare the dataset again.")


def _changed(path: Path) -> InvalidInputError:
    return InvalidInputError(f"{path} has other bytes than when it was written. Prepare the dataset again.")


def _check_columns(path: Path, found: list[str], expected: list[str]) -> None:
    if found != expected:
        wrong = sorted({*found} ^ {*expected})
        raise InvalidInputError(f"{path} has other columns than expected: {wrong}. Prepare the dataset again.")


def _read_parquet(folder: Path, name: str, info: Mapping[str, Any], columns: list[str]) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / name
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != info["files"][name]["sha256"]:
            raise _changed(path)
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    _check_columns(path, table.column_names, columns)
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    assert isinstance(frame, pd.DataFrame)
    return frame


def sample_schema() -> "pa.Schema":
    """Arrow schema of ``samples.parquet``."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "key": pa.binary(16)}
    required = {"transcript_id", "gene_id", "split"}
    return pa.schema([pa.field(name, types[kind], name not in required) for name, kind in SAMPLE_COLUMNS.items()])
