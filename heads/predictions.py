"""Predictions for test rows as a Parquet file beside the run that made them. Shapes: N rows, K tissues."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.store.files import replace_file
from heads.checkpoint import CheckpointError, writing

__all__ = ["read_predictions", "write_predictions"]

Array = NDArray[np.float64]

_ENTRY = b"isoheads-test-predictions"


def write_predictions(
    path: Path, dataset: Dataset, rows: NDArray[np.int64], predictions: Array, story: Mapping[str, Any]
) -> None:
    """Write predictions (N, K) on the z-scale for some rows: transcript_id, gene_id, a float64 column a tissue."""
    samples = dataset.samples.iloc[rows]
    columns = {name: pa.array(samples[name].tolist(), pa.string()) for name in ("transcript_id", "gene_id")}
    columns |= {name: pa.array(predictions[:, k]) for k, name in enumerate(dataset.tissues)}
    table = pa.table(list(columns.values()), names=list(columns))
    table = table.replace_schema_metadata({_ENTRY: json.dumps({"version": 1, "scale": "z", **story})})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, [sink.getvalue().to_pybytes()])


def read_predictions(path: Path, dataset: Dataset, rows: NDArray[np.int64]) -> Array:
    """Read what ``write_predictions`` wrote, (N, K), for these rows.

    Raises:
        CheckpointError: The file is missing, damaged, or of other rows.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        ids = table["transcript_id"].to_pylist()
        found = np.stack([table[name].to_numpy() for name in dataset.tissues], axis=1)
    except (OSError, pa.ArrowException, KeyError) as error:
        words = str(error).splitlines()[0]
        raise CheckpointError(f"{path} cannot be read: {words}. Remove it and run the sweep again.") from error
    if ids != dataset.samples["transcript_id"].iloc[rows].tolist():
        raise CheckpointError(f"{path} holds predictions for other transcripts. Remove it and run the sweep again.")
    return np.asarray(found, dtype=np.float64)
