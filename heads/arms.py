"""The table of an ablation: every arm with intervals over genes and trainings, and its difference from one of them.

An arm is a configuration trained with several seeds. All arms are scored on the same rows, the same drawn genes and,
for as many trainings as they have, the same drawn trainings: an arm alone has the numbers that it has in company.
Only Holm's correction looks at the whole table.

Shapes: N rows, K tissues, S trainings with different seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.calibration import Calibration, calibrate
from heads.metrics import WithinGene, r2_columns, spearman_columns, within_gene
from heads.plain import from_plain, to_plain
from heads.statistics.crossed import Scored, difference_of, score_resamples
from heads.statistics.resample import Interval
from heads.statistics.significance import gene_contributions, holm, sign_flip_p
from heads.statistics.sums import GeneSums, Metric, TargetSums

__all__ = ["ArmScores", "Difference", "Tested", "arms_table"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_METRICS: tuple[Metric, ...] = ("r2", "spearman")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A difference of scores and how sure it is."""

    estimate: float
    low: float
    high: float
    p: float
    """Two-sided, from the resamples of the interval."""
    p_holm: float
    """Corrected for all differences in this metric that the table has."""
    p_sign_flip: float | None = None
    """From swapping both arms within genes: of these trained models, not of new trainings. None for Spearman."""

    def to_json(self) -> dict[str, float | None]:
        """Plain JSON values; undefined ones are null."""
        values = to_plain(asdict(self))
        if self.p_sign_flip is None:
            del values["p_sign_flip"]
        return values

    @classmethod
    def from_json(cls, found: Mapping[str, float | None]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**{name: float("nan") if x is None else x for name, x in found.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An arm minus the reference, mean over tissues and paired trainings."""

    r2: Tested
    spearman: Tested
    n_seeds: int
    """Trainings that were paired: the first so many of both. With one, variation between trainings is not included."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined ones are null."""
        return {"r2": self.r2.to_json(), "spearman": self.spearman.to_json(), "n_seeds": self.n_seeds}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        tested = {metric: Tested.from_json(found[metric]) for metric in _METRICS}
        return cls(**tested, n_seeds=found["n_seeds"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScores:
    """One arm of the table. Scores are means over its trainings; NaN where they are not defined."""

    name: str
    n_seeds: int
    """With one, no interval includes variation between trainings."""
    r2: Interval
    """Mean over tissues."""
    spearman: Interval
    r2_pooled: float
    """Over all cells at once."""
    spearman_pooled: float
    r2_seed_sd: float
    """Standard deviation between trainings of the mean over tissues; NaN with one."""
    spearman_seed_sd: float
    r2_by_tissue: tuple[Interval, ...]
    spearman_by_tissue: tuple[Interval, ...]
    within_gene: WithinGene
    calibration: Calibration
    difference: Difference | None
    """None for the reference, and in a table without one."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined ones are null."""
        values = to_plain(asdict(self))
        return values | {"difference": self.difference and self.difference.to_json()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        values: dict[str, Any] = {item.name: found[item.name] for item in fields(cls)}
        for metric in _METRICS:
            values[metric] = Interval(**from_plain(Interval, found[metric]))
            tissues = found[f"{metric}_by_tissue"]
            values[f"{metric}_by_tissue"] = tuple(Interval(**from_plain(Interval, item)) for item in tissues)
            for name in (f"{metric}_pooled", f"{metric}_seed_sd"):
                values[name] = float("nan") if found[name] is None else found[name]
        values["within_gene"] = WithinGene.from_json(found["within_gene"])
        values["calibration"] = Calibration.from_json(found["calibration"])
        values["difference"] = found["difference"] and Difference.from_json(found["difference"])
        return cls(**values)


def arms_table(
    targets: Array,
    arms: Mapping[str, Array],
    groups: Ints,
    *,
    genes: Ints | None = None,
    reference: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[ArmScores]:
    """Score all arms, and compare each with the reference, in the order given.

    Args:
        targets: (N, K) on the z-scale of the training rows, NaN where not measured.
        arms: Predictions of each arm, (S, N, K); training s of every arm is paired with training s of the others.
            Give an arm without chance in its training, such as a ridge baseline, as often as the others have
            trainings (``np.broadcast_to``): with one, only the first training of its partner is compared with it.
        groups: (N,) number of what is drawn: the row's gene, or its group of genes that resemble each other.
        genes: (N,) number of the row's gene, for scores within genes; None if the groups are genes.
        reference: Arm that the others are compared with; None for no comparison.
        resamples: How often groups and trainings are drawn.
        seed: Of the draws.

    Raises:
        InvalidInputError: Shapes do not fit, or an arm predicts NaN for a measured cell.
        InvalidSettingError: Fewer than one resample.
        UnknownNameError: The reference is none of the arms.
    """
    groups = _numbered(groups)
    genes = groups if genes is None else _numbered(genes)
    if resamples < 1:
        raise InvalidSettingError(f"resamples is {resamples}. Give a number from 1 on; 2000 is usual.")
    if reference is not None and reference not in arms:
        raise UnknownNameError("reference arm", reference, arms)
    _check(targets, arms, groups, genes)
    if not arms:
        return []
    shared = [TargetSums.collect(metric, targets, groups) for metric in _METRICS]
    sums = {name: [GeneSums.of(found, predictions) for found in shared] for name, predictions in arms.items()}
    found = score_resamples(list(sums.values()), resamples=resamples, seed=seed)
    scored = dict(zip(arms, found, strict=True))
    differences = {} if reference is None else _differences(sums, scored, reference, seed)
    return [
        _arm(name, (targets, genes), predictions, scored[name], differences.get(name))
        for name, predictions in arms.items()
    ]


def _arm(
    name: str,
    rows: tuple[Array, Ints],
    predictions: Array,
    scored: tuple[Scored, ...],
    difference: Difference | None,
) -> ArmScores:
    targets, genes = rows
    measured = ~np.isnan(targets)
    y, cells = targets[measured][:, None], predictions[:, measured][:, :, None]  # (cells, 1), (S, cells, 1)
    r2, spearman = scored
    return ArmScores(
        name=name,
        n_seeds=len(predictions),
        r2=r2.mean(),
        spearman=spearman.mean(),
        r2_pooled=float(np.mean([r2_columns(y, p) for p in cells])),
        spearman_pooled=float(np.mean(spearman_columns(y, cells))),
        r2_seed_sd=r2.seed_sd(),
        spearman_seed_sd=spearman.seed_sd(),
        r2_by_tissue=r2.by_tissue(),
        spearman_by_tissue=spearman.by_tissue(),
        within_gene=within_gene(targets, predictions, genes),
        calibration=calibrate(targets, predictions),
        difference=difference,
    )


def _differences(
    sums: Mapping[str, Sequence[GeneSums]], scored: Mapping[str, tuple[Scored, ...]], reference: str, seed: int
) -> dict[str, Difference]:
    """Of every other arm, with Holm's correction over them for each metric."""
    others = [name for name in scored if name != reference]
    tested = []
    for ours, theirs in zip(zip(*(scored[name] for name in others), strict=True), scored[reference], strict=False):
        found = [difference_of(x, theirs) for x in ours]
        p_values = [x.p_value() for x in found]
        tested.append(
            [
                Tested(**asdict(x.mean()), p=p, p_holm=p_holm)
                for x, p, p_holm in zip(found, p_values, holm(p_values), strict=True)
            ]
        )
    differences = {}
    for name, r2, spearman in zip(others, *tested, strict=True) if others else ():
        flipped = sign_flip_p(gene_contributions(sums[name][0], sums[reference][0]), seed=seed)
        n_seeds = min(len(scored[x][0].estimate) for x in (name, reference))
        differences[name] = Difference(r2=replace(r2, p_sign_flip=flipped), spearman=spearman, n_seeds=n_seeds)
    return differences


def _numbered(groups: Sequence[int] | Ints) -> Ints:
    """Whatever numbers were given as 0 .. G - 1."""
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _check(targets: Array, arms: Mapping[str, Array], groups: Ints, genes: Ints) -> None:
    if len(groups) != len(targets) or len(genes) != len(targets):
        raise InvalidInputError(
            f"There are {len(targets):,} rows of targets, {len(groups):,} group numbers and {len(genes):,} gene "
            "numbers, expected as many of each. Give one number a row."
        )
    measured = ~np.isnan(targets)
    if not measured.any():
        raise InvalidInputError("No target is measured: there is nothing to score. Choose rows with measured targets.")
    for name, predictions in arms.items():
        if predictions.ndim != 3 or not len(predictions) or predictions.shape[1:] != targets.shape:
            raise InvalidInputError(
                f"Predictions of arm {name!r} have shape {predictions.shape}, expected (seeds, "
                f"{targets.shape[0]}, {targets.shape[1]}). Predict the rows that the targets have."
            )
        bad = [i for i, p in enumerate(predictions) if not np.isfinite(p[measured]).all()]
        if bad:
            raise InvalidInputError(
                f"Arm {name!r}, seed number {bad[0]} of {len(predictions)} from 0, predicts NaN or infinity for "
                "measured cells. Train it again with a smaller learning rate; a failed seed is never left out."
            )
