"""Kernel ridge regression on pooled embeddings: what a model without any training loop reaches from the same cache.

Each modality gives two groups of numbers: the means of eight equal parts of its tokens, and the mean of these means
with its log length. The kernel is the mean over groups of a Gaussian or an exponential one (the Matern kernel of order
1/2) of the distance ``|x - x'| / sqrt(F)`` of standardised numbers; which, its width and the penalty are chosen on
validation rows. With more training rows than landmarks it is the subset of regressors of Rasmussen and Williams
(Gaussian Processes for Machine Learning, 2006, section 8.3.1), which is the exact solution when all rows are landmarks.

Shapes: N rows, F numbers of a group, K tissues, M landmarks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from heads.data import Rows
from heads.metrics import mean_defined, r2_columns
from heads.sources import TokenSource

__all__ = ["KERNELS", "KernelFit", "kernel_groups", "kernel_predictions"]

Array = NDArray[np.float64]

KERNELS: tuple[tuple[str, float], ...] = (("gaussian", 0.3), ("exponential", 0.5), ("exponential", 1.0))
"""Kernels and inverse widths that are tried: ``exp(-gamma d^2)`` and ``exp(-gamma d)`` of a distance d."""
PENALTIES: tuple[float, ...] = (0.03, 0.1, 0.3)
"""Ridge penalties that are tried."""
PARTS = 8
_LANDMARKS = 4000
_MOST_ROWS = 30_000  # with parts; beyond, means only: parts of 100,000 transcripts do not fit in memory
_AT_ONCE = 4096  # rows of a kernel matrix


@dataclass(frozen=True, slots=True)
class KernelFit:
    """Predictions (rows asked for, K), and what was chosen on validation rows."""

    predictions: Array
    kernel: tuple[str, float]
    penalty: float


def kernel_groups(sources: Iterable[TokenSource], *, parts: bool | None = None) -> list[NDArray[np.float32]]:
    """Groups of numbers of every row of a dataset, each (N, F).

    Args:
        sources: Tokens of each modality.
        parts: Whether the means of parts are among them; None if there are few enough rows.
    """
    groups: list[NDArray[np.float32]] = []
    for source in sources:
        with_parts = len(source.lengths) <= _MOST_ROWS if parts is None else parts
        summary = source.summaries(f"bins-{PARTS}" if with_parts else "means").numpy()  # (N, parts, D)
        lengths = np.log1p(source.lengths)[:, None].astype(np.float32)
        groups.append(np.concatenate([summary.mean(axis=1), lengths], axis=1))
        if with_parts:
            groups.append(summary.reshape(len(summary), -1))
    return groups


def kernel_predictions(
    groups: Sequence[NDArray[np.float32]], targets: Array, *, train: Rows, validation: Rows, rows: Rows
) -> KernelFit:
    """Fit on training rows and predict some rows.

    Args:
        groups: Each (N, F).
        targets: (N, K), NaN where not measured.
        train: Rows to fit.
        validation: Rows to choose the width of the kernel and the penalty on, one pair for all tissues.
        rows: Rows to predict.
    """
    scaled = [_standardised(group, train) for group in groups]
    asked = np.concatenate([validation, rows])
    landmarks = train
    if len(train) > _LANDMARKS:
        landmarks = np.sort(np.random.default_rng(0).permutation(train)[:_LANDMARKS])
    best, found = -np.inf, None
    predicted = _fit(scaled, targets, train=train, landmarks=landmarks, asked=asked)
    for kernel, of_kernel in zip(KERNELS, predicted, strict=True):
        for penalty, one in zip(PENALTIES, of_kernel, strict=True):
            score = np.nan_to_num(
                mean_defined(r2_columns(targets[validation], one[: len(validation)])), nan=-np.finfo(float).max
            )
            if score > best:
                best, found = float(score), KernelFit(one[len(validation) :], kernel, penalty)
    assert found is not None
    return found


def _fit(groups: Sequence[NDArray[np.float32]], targets: Array, *, train: Rows, landmarks: Rows, asked: Rows) -> Array:
    """Predictions (kernels, penalties, asked, K). Tissues measured on the same rows are fitted together."""
    measured = ~np.isnan(targets[train])  # (train, K)
    mean = np.nansum(targets[train], axis=0) / np.maximum(measured.sum(axis=0), 1)
    weights: Array = np.zeros((len(KERNELS), len(PENALTIES), len(landmarks), targets.shape[1]))
    patterns, which = np.unique(measured, axis=1, return_inverse=True)
    inner = _kernels(groups, landmarks, landmarks)  # (kernels, M, M)
    for i in range(patterns.shape[1]):
        tissues, here = np.flatnonzero(which == i), np.flatnonzero(patterns[:, i])
        if not len(here):
            continue
        values = targets[np.ix_(train[here], tissues)] - mean[tissues]
        used = here if len(landmarks) == len(train) else np.arange(len(landmarks))
        if len(landmarks) == len(train):
            systems = [(one[np.ix_(here, here)], values, np.eye(len(here))) for one in inner]
        else:
            normal = _normal_equations(groups, train[here], landmarks, values)
            systems = [(*one, ridge) for one, ridge in zip(normal, inner, strict=True)]
        for k, (system, right, ridge) in enumerate(systems):
            for j, penalty in enumerate(PENALTIES):
                factor = cho_factor(system + penalty * ridge, overwrite_a=True)
                weights[k, j][np.ix_(used, tissues)] = cho_solve(factor, right)
    blocks = [block[:, None] @ weights for block in _blocks(groups, asked, landmarks)]
    return np.asarray(np.concatenate(blocks, axis=2) + mean)


def _normal_equations(
    groups: Sequence[NDArray[np.float32]], rows: Rows, landmarks: Rows, values: Array
) -> list[tuple[Array, Array]]:
    """Of each kernel the Gram matrix of its columns, (M, M), and their products with the targets, (M, K)."""
    gram = np.zeros((len(KERNELS), len(landmarks), len(landmarks)))
    right = np.zeros((len(KERNELS), len(landmarks), values.shape[1]))
    start = 0
    for block in _blocks(groups, rows, landmarks):  # (kernels, rows at once, M)
        for k, one in enumerate(block):
            gram[k] += one.T @ one
            right[k] += one.T @ values[start : start + len(one)]
        start += block.shape[1]
    # a little on the diagonal: equal sequences make equal landmarks
    diagonal = np.arange(len(landmarks))
    gram[:, diagonal, diagonal] += 1e-6 * len(rows)
    return list(zip(gram, right, strict=True))


def _blocks(groups: Sequence[NDArray[np.float32]], rows: Rows, landmarks: Rows) -> Iterator[Array]:
    """The kernels of some rows with the landmarks, a block of rows at a time."""
    for start in range(0, len(rows), _AT_ONCE):
        yield _kernels(groups, rows[start : start + _AT_ONCE], landmarks)


def _kernels(groups: Sequence[NDArray[np.float32]], a: Rows, b: Rows) -> Array:
    """Of each kernel its mean over groups, (kernels, a, b); distances are computed once for all."""
    total = np.zeros((len(KERNELS), len(a), len(b)))
    for group in groups:
        x = group[a].astype(np.float64)  # small distances of large numbers
        y = x if a is b else group[b].astype(np.float64)  # of one array numpy computes half the products
        squares = -2 * (x @ y.T)
        squares += (x**2).sum(1)[:, None]
        squares += (y**2).sum(1)[None]
        np.maximum(squares, 0, out=squares)
        squares /= group.shape[1]
        roots = np.sqrt(squares)
        for k, (kind, gamma) in enumerate(KERNELS):
            total[k] += np.exp(-gamma * (squares if kind == "gaussian" else roots))
    total /= max(len(groups), 1)
    return total


def _standardised(group: NDArray[np.float32], train: Rows) -> NDArray[np.float32]:
    """Mean 0 and sd 1 over training rows; a column that does not vary there becomes 0."""
    values = group[train].astype(np.float64)
    mean, sd = values.mean(axis=0), values.std(axis=0)
    varies = sd > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scaled = (group - mean) / np.where(varies, sd, 1.0) * varies
    return np.asarray(scaled, dtype=np.float32)
