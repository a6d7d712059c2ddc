"""Predictions beside measured values: counts in squares, calibration, and intervals of single tissues.

Shapes: N rows, K tissues, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError
from heads.report.content import Arm, Bin, Calibration, Density, Estimate
from heads.report.runs import RunFiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Measured", "calibration", "count_squares", "open_measured"]

Array = NDArray[np.float64]
_ACROSS = 60  # squares along an axis: a picture of some 15 KB, whatever the number of cells


class _OtherPredictionsError(Exception):
    """Predictions whose scores are not those that were written."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Targets of a dataset by transcript."""

    targets: "pd.DataFrame"
    """One column a tissue, transcript_id as index, NaN where not measured."""
    genes: "pd.Series[str]"
    """gene_id, with the same index."""

    def complete(self, arm: Arm, runs: Sequence[RunFiles], source: str, *, resamples: int | None) -> Arm:
        """An arm with what its predictions tell.

        Args:
            arm: What is known of it.
            runs: Trainings of one seed: one, or one a fold.
            source: In words, which they are.
            resamples: Of genes, for intervals of tissues that have none; None leaves them alone.
        """
        pairs = [self._pair(run) for run in runs]
        predicted, measured = (np.concatenate(parts) for parts in zip(*[pair[:2] for pair in pairs], strict=True))
        known = np.isfinite(measured)
        if not known.any():
            return arm
        x, y = predicted[known], measured[known]
        arm = replace(
            arm, density=count_squares(x, y, source), calibration=arm.calibration or calibration(measured, predicted)
        )
        if resamples and any(score.low is None for score in arm.r2_by_tissue):
            genes = np.unique(np.concatenate([pair[2] for pair in pairs]), return_inverse=True)[1]
            try:
                r2, spearman = (
                    _by_tissue(metric, scores, (measured, predicted), genes, resamples)
                    for metric, scores in (("r2", arm.r2_by_tissue), ("spearman", arm.spearman_by_tissue))
                )
            except _OtherPredictionsError as error:
                raise InvalidInputError(
                    f"{runs[0].predictions} is not what test.json beside it scored: {error}. Remove the wrong one."
                ) from error
            arm = replace(arm, r2_by_tissue=r2, spearman_by_tissue=spearman)
        return arm

    def _pair(self, run: RunFiles) -> tuple[Array, Array, NDArray[np.str_]]:
        """Predicted and measured values (N, K) on the z-scale of the run, and genes (N,)."""
        ids, predicted = _read_predictions(run)
        if unknown := sorted(set(ids) - set(self.targets.index))[:1]:
            raise InvalidInputError(
                f"{run.predictions} predicts {unknown[0]!r}, which is not in the dataset. Give the dataset of the run."
            )
        found = self.targets.loc[ids, list(run.tissues)].to_numpy(dtype=np.float64)
        mean, sd = (np.array([getattr(spread, name) for spread in run.expression]) for name in ("mean", "sd"))
        return predicted, (found - mean) / sd, self.genes.loc[ids].to_numpy(dtype=str)


def open_measured(path: Path, run: RunFiles) -> Measured:
    """Read the targets of the dataset of a run.

    Raises:
        InvalidInputError: There is no dataset, it is damaged, or not the one that the run was trained on.
    """
    from embedcache.dataset import read_dataset

    dataset = read_dataset(path)
    if dataset.digest != run.digest or dataset.targets is None or tuple(dataset.tissues) != run.tissues:
        raise InvalidInputError(
            f"{path} is not the dataset of {run.path}: its content has digest {dataset.digest[:12]}, expected "
            f"{run.digest[:12]}. Give --dataset with the one that the run was trained on."
        )
    ids = dataset.samples["transcript_id"].astype(str)
    return Measured(
        targets=dataset.targets.set_axis(ids.tolist(), axis=0),
        genes=dataset.samples["gene_id"].astype(str).set_axis(ids.tolist(), axis=0),
    )


def count_squares(x: Array, y: Array, source: str, across: int = _ACROSS) -> Density:
    """Count points in squares; both axes go from the 0.1 to the 99.9 percentile of all values.

    Args:
        x: Predicted, finite.
        y: Measured, finite, as many.
        source: Goes to ``Density.source``.
        across: Squares along an axis.
    """
    low, high = np.percentile(np.concatenate([x, y]), [0.1, 99.9]).tolist()
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    counts = np.histogram2d(y, x, bins=across, range=[[low, high], [low, high]])[0].astype(np.int64)
    n_outside = len(x) - int(counts.sum())
    return Density(counts=counts, low=low, high=high, n_cells=len(x), n_outside=n_outside, source=source)


def calibration(measured: Array, predicted: Array) -> Calibration:
    """The least-squares line of measured on predicted values (N, K), and means in bins of the prediction."""
    from heads.calibration import calibrate

    found = calibrate(measured, predicted)
    slope, intercept = (x if np.isfinite(x) else None for x in (found.slope, found.intercept))
    return Calibration(slope, intercept, tuple(Bin(one.predicted, one.measured, one.n) for one in found.bins))


def _by_tissue(
    metric: str, scores: tuple[Estimate, ...], cells: tuple[Array, Array], genes: NDArray[np.int64], resamples: int
) -> tuple[Estimate, ...]:
    """The scores that are known, with percentile intervals of a bootstrap over genes."""
    from heads.statistics import GeneSums, draw_genes

    if not scores or int(genes.max()) < 1:
        return scores
    sums = GeneSums.collect("r2" if metric == "r2" else "spearman", *cells, genes)
    n_genes = int(genes.max()) + 1
    whole = sums.score(np.ones((1, n_genes)))[0]  # (K,)
    for score, found_score in zip(scores, whole.tolist(), strict=True):
        if score.estimate is not None and abs(score.estimate - found_score) > 1e-6:  # false for NaN
            raise _OtherPredictionsError(f"{metric} {found_score:.6f} and {score.estimate:.6f} in one tissue")
    draws = sums.score(draw_genes(n_genes, resamples))  # (R, K)
    found = []
    for score, column in zip(scores, draws.T, strict=True):
        defined = column[~np.isnan(column)]
        if score.estimate is None or not len(defined):
            found.append(score)
            continue
        low, high = np.percentile(defined, [2.5, 97.5]).tolist()
        found.append(Estimate(score.estimate, low, high))
    return tuple(found)


def _read_predictions(run: RunFiles) -> tuple[list[str], Array]:
    """Transcripts (N) and predictions (N, K), finite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(run.predictions, partitioning=None)
        ids = table["transcript_id"].to_pylist()
        values = np.stack([table[tissue].to_numpy().astype(np.float64) for tissue in run.tissues], axis=1)
    except KeyError as error:
        raise InvalidInputError(f"{run.predictions} has no column {error}. Make it again.") from error
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InvalidInputError(f"{run.predictions} cannot be read: {error}. Make it again.") from error
    if not np.isfinite(values).all() or any(not isinstance(name, str) for name in ids) or len(set(ids)) < len(ids):
        raise InvalidInputError(
            f"{run.predictions} is damaged: expected finite numbers of transcripts, each once. Make it again."
        )
    return ids, values
