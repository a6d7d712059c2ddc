"""Rows to train on that are no whole dataset: columns of an array, or chosen rows of stores.

Shapes: N rows, D columns of a block, K targets.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import SplitConfig
from heads.data import CachedDataset
from heads.layered import LayeredSource
from heads.open_sources import StoredSource
from heads.pooling import summarise
from heads.scaling import TissueScaler
from heads.setup import Study
from heads.sources import CachedSource, TokenSource
from heads.splits.assign import draw_validation

__all__ = ["ColumnSource", "SelectedSource", "data_of", "row_numbers", "select", "study_of"]

Rows = NDArray[np.int64]
Sources = Mapping[Modality, TokenSource]


class ColumnSource:
    """See ``TokenSource``: one vector a row, as a single token.

    Args:
        values: (N, D) float32. A row of which every number is NaN lacks the modality.
        name: Of the block, for the message.

    Raises:
        InvalidInputError: A row is NaN in part.
    """

    tokens_only = False

    def __init__(self, values: NDArray[np.float32], name: str) -> None:
        missing = np.isnan(values)
        lacks = missing.sum(axis=1) == values.shape[1]
        if len(torn := np.flatnonzero(missing.any(axis=1) & ~lacks)):
            raise InvalidInputError(
                f"Input X contains NaN: row {torn[0]} has {missing[torn[0]].sum()} of the {values.shape[1]} numbers of "
                f"{name} missing. Fill them in, or make all of them NaN where a row lacks {name}."
            )
        self.width = values.shape[1]
        self.lengths: Rows = (~lacks).astype(np.int64)
        self._values = torch.from_numpy(np.where(lacks[:, None], np.float32(0), values))
        self._summaries: dict[str, Tensor] = {}

    def packed(self, rows: Rows) -> Ragged:
        """One token of each row that has the modality."""
        present = self.lengths[rows] > 0
        offsets = np.concatenate([[0], np.cumsum(present)]).astype(np.int64)
        return Ragged(self._values[torch.from_numpy(rows[present])], torch.from_numpy(offsets))

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other."""
        return (self.packed(rows) for rows in parts)

    def decode(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def summaries(self, reads: str) -> Tensor:
        """A summary of every row, (N, R, C)."""
        if reads not in self._summaries:
            self._summaries[reads] = summarise(self.packed(np.arange(len(self.lengths))), reads)
        return self._summaries[reads]


class SelectedSource:
    """See ``TokenSource``: some rows of another source, in any order, also more than once.

    Args:
        source: What is read; summaries stay in its memory, for the next selection.
        rows: Row of the source that each row of this one is, (N,).
    """

    tokens_only = False

    def __init__(self, source: CachedSource, rows: Rows) -> None:
        self.source, self.rows = source, rows
        self.store, self.width = source.store, source.width
        self.lengths: Rows = source.lengths[rows]
        self.positions: Rows = source.positions[rows]
        """Of each row in the store: equal ones are kept once where a store is kept in memory."""
        self._summaries: dict[str, Tensor] = {}

    def packed(self, rows: Rows) -> Ragged:
        """Tokens of some rows, to be decoded."""
        return self.source.packed(self.rows[rows])

    def stream(self, parts: Sequence[Rows], *, pinned: bool = False) -> Iterator[Ragged]:
        """Tokens of one part after the other, read ahead."""
        return self.source.stream([self.rows[part] for part in parts], pinned=pinned)

    def decode(self, values: Tensor) -> Tensor:
        """Embeddings (N, D) of rows as stored."""
        return self.source.decode(values)

    def summaries(self, reads: str) -> Tensor:
        """A summary of every row, (N, R, C)."""
        if reads not in self._summaries:
            self._summaries[reads] = self.source.summaries(reads)[torch.from_numpy(self.rows)]
        return self._summaries[reads]


def select(source: StoredSource, rows: Rows) -> TokenSource:
    """Some rows of what one modality is read from, one layer or several."""
    if isinstance(source, LayeredSource):
        # a selection has all that the layers of a source are asked for
        return LayeredSource([cast(CachedSource, SelectedSource(layer, rows)) for layer in source.layers])
    return SelectedSource(source, rows)


def row_numbers(dataset: Dataset, X: ArrayLike) -> Rows:  # noqa: N803
    """Row numbers of the dataset, of numbers or transcript IDs."""
    values, ids = np.asarray(X), dataset.samples["transcript_id"].tolist()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuOUT" or not len(values):
        raise InvalidInputError(
            f"X has shape {values.shape} and type {values.dtype}. With a dataset, give row numbers or transcript IDs."
        )
    if values.dtype.kind in "iu":
        if values.min() < 0 or values.max() >= len(ids):
            raise InvalidInputError(
                f"X has rows {values.min()} to {values.max()}, {dataset.path} has 0 to {len(ids) - 1}. "
                "Give row numbers of this dataset, or transcript IDs."
            )
        return values.astype(np.int64)
    row_of = {name: row for row, name in enumerate(ids)}
    if unknown := [name for name in values.tolist() if name not in row_of]:
        raise InvalidInputError(
            f"{unknown[0]!r} is no transcript of {dataset.path}. Give transcript IDs as in its samples.parquet."
        )
    return np.array([row_of[name] for name in values.tolist()], dtype=np.int64)


def data_of(sources: Sources, n_rows: int) -> CachedDataset:
    """Rows to predict."""
    return CachedDataset(_dataset(n_rows, None), sources, targets=False)


def study_of(
    sources: Sources, targets: pd.DataFrame, groups: Sequence[str], *, validation_fraction: float, seed: int
) -> Study:
    """Rows to train on, divided by groups; the scaler is fitted on training rows.

    Args:
        sources: Of each modality that is read.
        targets: (N, K) float64, NaN where not measured.
        groups: Of each row; those of one group stay together. Names and seed decide, not the order.
        validation_fraction: Share of the rows for early stopping, in whole groups.
        seed: Of the draw.

    Raises:
        InvalidInputError: Too few measured rows or groups to train and validate on.
    """
    values = targets.to_numpy(dtype=np.float64)
    measured = np.flatnonzero(~np.isnan(values).all(axis=1))
    names, units = np.unique(np.asarray(groups, dtype=object)[measured], return_inverse=True)
    if len(names) < 2:
        raise InvalidInputError(
            f"{len(measured)} measured rows are in {len(names)} groups, expected at least 2 groups: one to train on, "
            "one to validate on. Give more rows, or other groups."
        )
    sizes, every = np.bincount(units), np.arange(len(names))
    is_validation = draw_validation(names.tolist(), sizes, every, validation_fraction, str(seed))[units]
    rows = {"train": measured[~is_validation], "validation": measured[is_validation], "test": measured[:0]}
    dataset = _dataset(len(targets), targets)
    scaler = TissueScaler.fit(values[rows["train"]], dataset.tissues)
    return Study(
        dataset=dataset,
        data=CachedDataset(dataset, sources, scaler),
        sources=cast(Mapping[Modality, StoredSource], sources),  # a run asks for widths and layers only
        scaler=scaler,
        rows=cast("Mapping[str, Rows]", rows),  # type: ignore[arg-type]  # the three names of splits
        split=SplitConfig(),
    )


def _dataset(n_rows: int, targets: pd.DataFrame | None) -> Dataset:
    """A dataset that is nowhere on disk: rows and targets."""
    names = [] if targets is None else [str(name) for name in targets.columns]
    samples = pd.DataFrame(index=pd.RangeIndex(n_rows))
    return Dataset(path=Path("X"), info={"tissues": names}, samples=samples, targets=targets)
