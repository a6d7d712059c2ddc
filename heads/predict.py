"""Predicting expression for any dataset whose sequences are in the cache."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import InvalidInputError
from embedcache.place import Place
from embedcache.store.files import replace_file
from heads.by_kernel import predict_by_kernel
from heads.data import CachedDataset
from heads.inference import predict_finite
from heads.our_files import is_our_table
from heads.setup import provenance
from heads.trained import TrainedRun, load_trained

__all__ = ["PredictResult", "Predictor", "predict"]

Predictor = Literal["run", "kernel"]

_ENTRY = b"isoheads"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """What ``predict`` wrote."""

    output: Path
    n_transcripts: int
    n_tissues: int
    unit: str
    """Of the predictions: that of the targets of training, such as ``log1p_tpm``."""
    lacking: dict[str, int]
    """Transcripts without each modality that the model reads."""
    labels: tuple[str, ...]
    by: Predictor = "run"

    def __str__(self) -> str:
        lacking = "; ".join(f"{count:,} without {modality}" for modality, count in self.lacking.items() if count)
        label = f" [{'; '.join(self.labels)}]" if self.labels else ""
        by = " by the kernel on pooled embeddings" if self.by == "kernel" else ""
        return (
            f"{self.output}: {self.n_transcripts:,} transcripts x {self.n_tissues} tissues{by}, unit {self.unit}"
            f"{f' ({lacking})' if lacking else ''}{label}"
        )


def predict(
    run: Path | str,
    dataset: Path | str,
    cache: str | Place,
    output: Path | str,
    *,
    device: str = "auto",
    by: Predictor = "run",
) -> PredictResult:
    """Predict every transcript of a dataset, with or without targets, and write a Parquet file.

    The file has transcript_id, gene_id and one float64 column a tissue, rows in the order of the dataset. A transcript
    without a modality is predicted from the others; one without any gets what the model gives to no input.

    Args:
        run: Directory of a finished run.
        dataset: Directory that ``embedcache prepare`` wrote.
        cache: Root of a cache with the encoders of the run.
        output: File to write; an older file of predictions is replaced.
        device: Where the model runs.
        by: ``kernel`` for the kernel on pooled embeddings that stands beside the run in every table, fitted on its
            training rows; the dataset and the cache that the run was trained on have to be where it says.

    Raises:
        CheckpointError: The run is missing, unfinished or damaged.
        CacheMismatchError: The cache has embeddings of another encoder.
        CacheIncompleteError: Sequences are not in the cache.
        InvalidInputError: The output is a file of something else, or cannot be written.
    """
    trained, opened, output = load_trained(run, device), read_dataset(dataset), Path(output)
    opened.verify()
    _check_output(output)
    sources = trained.sources(opened, cache, frozen=by == "kernel")
    data = CachedDataset(opened, sources, targets=False)
    rows = np.arange(len(data), dtype=np.int64)
    if by == "kernel":
        found = predict_by_kernel(trained, opened, cache, sources)
    else:
        found = predict_finite(trained.model, data, rows, trained.config)
    predictions = trained.scaler.undo(found)  # (rows, K)
    # a simulated study stays one, whatever the run was trained on
    labels = tuple(dict.fromkeys([*trained.labels, *opened.labels]))
    table = _table(opened, trained.scaler.tissues, predictions)
    story = {**_story(trained, opened), "by": by, "labels": list(labels)}
    _write(table.replace_schema_metadata({_ENTRY: json.dumps(story)}), output)
    return PredictResult(
        output=output,
        n_transcripts=len(data),
        n_tissues=len(trained.scaler.tissues),
        unit=str(story["unit"]),
        lacking={modality: int((source.lengths == 0).sum()) for modality, source in sources.items()},
        labels=labels,
        by=by,
    )


def _story(trained: TrainedRun, dataset: Dataset) -> dict[str, Any]:
    """Where predictions come from, for the metadata of their file."""
    return {
        "run": str(trained.directory.path.absolute()),
        "best_epoch": trained.best_epoch,
        "encoders": trained.description["encoders"],
        "trained_on": trained.description["dataset"]["digest"],
        "dataset": {"path": str(dataset.path.absolute()), "digest": dataset.digest},
        "unit": str(trained.description["dataset"]["target_unit"]),
        "software": provenance(),
    }


def _table(dataset: Dataset, tissues: Sequence[str], predictions: NDArray[np.float64]) -> pa.Table:
    """IDs and a column a tissue, rows in the order of the dataset."""
    columns = {name: pa.array(dataset.samples[name].tolist(), pa.string()) for name in ("transcript_id", "gene_id")}
    columns |= {name: pa.array(predictions[:, k]) for k, name in enumerate(tissues)}
    return pa.table(list(columns.values()), names=list(columns))


def _check_output(output: Path) -> None:
    """Refuse to replace a file that is not ours."""
    if not output.exists():
        return
    if output.is_dir():
        raise InvalidInputError(f"{output} is a directory. Give the name of a file, such as predictions.parquet.")
    if not is_our_table(output, _ENTRY):
        raise InvalidInputError(f"{output} exists and holds no predictions. Choose another output, or remove it.")


def _write(table: pa.Table, output: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, [sink.getvalue()])
    except OSError as error:
        raise InvalidInputError(
            f"{output} cannot be written: {error.strerror or error}. Choose another output, or free space."
        ) from error
