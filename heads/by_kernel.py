"""The kernel that stands beside a run in every table, for rows that the run may never have seen."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.place import Place
from embedcache.sequences import Modality
from heads.kernel import kernel_groups, kernel_predictions
from heads.sources import TokenSource
from heads.trained import TrainedRun

__all__ = ["predict_by_kernel"]


def predict_by_kernel(
    trained: TrainedRun, dataset: Dataset, cache: str | Place, sources: Mapping[Modality, TokenSource]
) -> NDArray[np.float64]:
    """Fit the kernel on the training rows of a run, and predict all rows of a dataset, (rows, K) on the z-scale.

    Its settings are chosen on the validation rows of the run. It reads the stores of the run, never encoders that a
    run has trained.

    Args:
        trained: Its dataset and cache are opened, for the training rows, where the run says that they are.
        dataset: What is predicted; its own training dataset is taken from here, wherever it lies now.
        cache: Where its stores are.
        sources: Its tokens by modality, of frozen encoders.

    Raises:
        InvalidInputError: The dataset of the run is not there any more, or another one.
        CacheError: A store of the run is not in a cache, or lacks sequences.
    """
    its_own = dataset.digest == trained.description["dataset"]["digest"]
    study = trained.study(dataset.path, cache) if its_own else trained.study()
    groups, rows = kernel_groups(study.sources.values()), np.arange(len(study.data), dtype=np.int64)
    if not its_own:
        parts = len(groups) == 2 * len(sources)
        more = kernel_groups(sources.values(), parts=parts)
        groups = [np.concatenate(pair) for pair in zip(groups, more, strict=True)]
        rows = len(rows) + np.arange(len(dataset.samples), dtype=np.int64)
    known = {name: study.rows[name] for name in ("train", "validation")}
    return kernel_predictions(groups, study.data.targets, **known, rows=rows).predictions
