"""Targets and predictions of the scored rows on one scale. Shapes: N rows, K tissues."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from heads.config import SplitConfig
from heads.scaling import TissueScaler

__all__ = ["Scale"]

Array = NDArray[np.float64]


class Scale:
    """One scale for the scored rows, whatever scale each fold was trained on.

    That of the training rows where there is one division of the rows; of all scored rows where there are folds.

    Args:
        dataset: Its targets.
        rows_of: Scored rows of each fold.
        scalers: Of the training rows of each fold.
        split: How the rows were divided.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows_of: Mapping[int | None, NDArray[np.int64]],
        scalers: Mapping[int | None, TissueScaler],
        split: SplitConfig,
    ) -> None:
        assert dataset.targets is not None
        self.rows_of, self.scalers, self.split = rows_of, scalers, split
        self.rows: NDArray[np.int64] = np.sort(np.concatenate(list(rows_of.values())))
        """All scored rows, ascending."""
        values = dataset.targets.to_numpy(dtype=np.float64)[self.rows]
        several = len(scalers) > 1
        self.scaler = TissueScaler.fit(values, dataset.tissues) if several else next(iter(scalers.values()))
        self.targets: Array = self.scaler.apply(values)
        """(N, K), NaN where not measured."""

    def together(self, by_fold: Mapping[int | None, Array]) -> Array:
        """Predictions (N, K) of all folds, given on the scale of each fold, in the order of ``rows``."""
        found = np.empty_like(self.targets)
        for fold, predictions in by_fold.items():
            where = np.searchsorted(self.rows, self.rows_of[fold])
            found[where] = self.scaler.apply(self.scalers[fold].undo(predictions))
        return found
