"""What a model must beat: the tissue mean, lengths, composition, and mean-pooled embeddings under a linear model.

Every baseline is fitted on the training rows, on measured cells. The ridge penalty is the one value, for all tissues,
with the best mean R2 on the validation rows, which is what the run's early stopping sees too. So are the settings of
the kernel (``heads/kernel.py``).
Shapes: N rows, F features, K tissues.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from heads.baseline_names import BASELINES, COUNTS, KERNEL, LENGTHS, POOLED, TISSUE_MEAN
from heads.data import Rows
from heads.features import composition_features, length_features
from heads.kernel import kernel_groups, kernel_predictions
from heads.metrics import mean_defined, r2_columns
from heads.setup import Study

__all__ = ["ALPHAS", "BASELINES", "KERNEL", "Baseline", "fit_baseline", "ridge_predictions"]

Array = NDArray[np.float64]

ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(-1, 6, 8))
"""Ridge penalties that are tried, on standardised features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a baseline predicts."""

    name: str
    predictions: Array
    """(rows asked for, K) on the z-scale."""
    n_features: int
    alpha: float | None
    """Ridge penalty that was chosen."""


def mean_features(study: Study) -> Array:
    """Mean of the token embeddings of each modality, side by side, from the stores of the run, (N, F).

    A modality that a row lacks gives zeros, and a column beside says where.
    """
    blocks = []
    for source in study.sources.values():
        blocks.append(source.summaries("means")[:, 0].numpy().astype(np.float64))
        lacks = source.lengths == 0
        if lacks.any():
            blocks.append(lacks[:, None].astype(np.float64))
    return np.concatenate(blocks, axis=1)


_FEATURES: Mapping[str, Callable[[Study], Array]] = {
    TISSUE_MEAN: lambda study: np.zeros((len(study.data), 0)),
    LENGTHS: lambda study: length_features(study.dataset),
    COUNTS: lambda study: np.concatenate([length_features(study.dataset), composition_features(study.dataset)], axis=1),
    POOLED: mean_features,
}
"""Name of each linear baseline and the features (N, F) of its ridge regression, for all rows of the dataset."""


def fit_baseline(name: str, study: Study, rows: Rows) -> Baseline:
    """Fit one of ``BASELINES`` and predict some rows."""
    if name == KERNEL:
        groups, parts = kernel_groups(study.sources.values()), {n: study.rows[n] for n in ("train", "validation")}
        found = kernel_predictions(groups, study.data.targets, **parts, rows=rows)
        n_features = sum(group.shape[1] for group in groups)
        return Baseline(name=name, predictions=found.predictions, n_features=n_features, alpha=found.penalty)
    features, targets = _FEATURES[name](study), study.data.targets
    predictions, alpha = ridge_predictions(
        features, targets, train=study.rows["train"], validation=study.rows["validation"], rows=rows
    )
    return Baseline(name=name, predictions=predictions, n_features=features.shape[1], alpha=alpha)


def ridge_predictions(
    features: Array, targets: Array, *, train: Rows, validation: Rows, rows: Rows
) -> tuple[Array, float | None]:
    """Ridge regression with the penalty chosen on validation rows.

    Args:
        features: (N, F); without any (F = 0) the mean of each tissue over the training rows is predicted.
        targets: (N, K), NaN where not measured.
        train: Rows to fit.
        validation: Rows to choose the penalty on.
        rows: Rows to predict.

    Returns:
        Predictions (rows, K) and the penalty, None without features.
    """
    if not features.shape[1]:
        mean = np.nanmean(targets[train], axis=0).round(12)  # 0 on the z-scale, not rounding errors with a rank
        return np.broadcast_to(mean, (len(rows), targets.shape[1])).copy(), None
    asked = np.concatenate([validation, rows])
    predicted = _ridge_path(features, targets, train, asked)  # (alphas, asked, K)
    r2 = [mean_defined(r2_columns(targets[validation], p[: len(validation)])) for p in predicted]
    best = int(np.nanargmax(np.nan_to_num(r2, nan=-np.inf)))
    return predicted[best, len(validation) :], ALPHAS[best]


def _ridge_path(features: Array, targets: Array, train: Rows, asked: Rows) -> Array:
    """Predictions (alphas, asked, K). Tissues measured on the same rows are fitted together."""
    measured = ~np.isnan(targets[train])  # (train, K)
    predicted = np.zeros((len(ALPHAS), len(asked), targets.shape[1]))
    patterns, which = np.unique(measured, axis=1, return_inverse=True)
    for i in range(patterns.shape[1]):
        tissues, rows = np.flatnonzero(which == i), train[patterns[:, i]]
        scaler = StandardScaler().fit(features[rows])
        x, y = scaler.transform(features[rows]), targets[np.ix_(rows, tissues)]
        wanted = scaler.transform(features[asked])
        for j, alpha in enumerate(ALPHAS):
            predicted[j][:, tissues] = Ridge(alpha=alpha).fit(x, y).predict(wanted).reshape(len(asked), -1)
    return predicted
