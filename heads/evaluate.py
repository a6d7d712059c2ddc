"""Scoring the test rows of a finished run, once, beside its baselines."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError
from embedcache.place import Place
from embedcache.store.files import create_file
from heads.baselines import BASELINES, fit_baseline
from heads.checkpoint import CheckpointError, writing
from heads.differential import DifferentialUsage, differential_usage
from heads.directory import RunDirectory
from heads.inference import predict_finite
from heads.metrics import Scores, WithinGene, score, within_gene
from heads.predictions import write_predictions
from heads.scaling import TissueScaler
from heads.setup import Study, provenance
from heads.splits import unit_of_rows
from heads.statistics import Interval, difference_by_gene, interval_by_gene
from heads.trained import TrainedRun, load_trained

__all__ = ["Evaluation", "ModelScores", "evaluate"]

Array = NDArray[np.float64]

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScores:
    """Scores of the run or of one baseline on the test rows, on the z-scale of the training rows."""

    name: str
    overall: Scores
    coding: Scores | None
    """Of the transcripts with a protein or a CDS; None with fewer than two."""
    noncoding: Scores | None
    within_gene: WithinGene
    r2: Interval
    spearman: Interval
    r2_lead: Interval | None
    """R2 of the run minus R2 of this baseline, on the same resamples of genes; None for the run."""
    details: Mapping[str, Any]
    """Of a baseline: number of features and the ridge penalty."""
    differential: DifferentialUsage | None = None
    """Usage of isoforms between tissues; None where the targets are not log1p TPM, or no gene has two isoforms."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined scores are null."""
        values: dict[str, Any] = {"name": self.name, "details": dict(self.details)}
        for name in ("overall", "coding", "noncoding", "within_gene", "differential"):
            part = getattr(self, name)
            values[name] = part and part.to_json()
        for name in ("r2", "spearman", "r2_lead"):
            values[name] = _numbers(getattr(self, name))
        return values

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        values: dict[str, Any] = {"name": found["name"], "details": found["details"]}
        for name in ("overall", "coding", "noncoding"):
            values[name] = found[name] and Scores.from_json(found[name])
        values["within_gene"] = WithinGene.from_json(found["within_gene"])
        if used := found.get("differential"):  # the first results had none
            values["differential"] = DifferentialUsage.from_json(used)
        for name in ("r2", "spearman", "r2_lead"):
            values[name] = found[name] and _interval(found[name])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a run and its baselines on the test rows. Its text is a table; see ``heads.table``."""

    run: str
    labels: tuple[str, ...]
    """Words that stand beside the scores, such as ``simulated``."""
    encoders: Mapping[str, str]
    tissues: tuple[str, ...]
    constant: tuple[str, ...]
    """Tissues that did not vary in training."""
    lacking: Mapping[str, int]
    """Test transcripts without each modality that the run reads; they are scored all the same."""
    n_genes: int
    n_transcripts: int
    n_coding: int
    resamples: int
    models: tuple[ModelScores, ...]
    """The run first, then the baselines."""
    computed: bool
    """False if the scores were computed by an earlier call."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined scores are null."""
        values = {name: getattr(self, name) for name in ("run", "n_genes", "n_transcripts", "n_coding", "resamples")}
        lists = {name: list(getattr(self, name)) for name in ("labels", "tissues", "constant")}
        return {
            **values,
            **lists,
            "encoders": dict(self.encoders),
            "lacking": dict(self.lacking),
            "models": [model.to_json() for model in self.models],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, as a result of an earlier call."""
        names = ("run", "n_genes", "n_transcripts", "n_coding", "resamples", "encoders", "lacking")
        values: dict[str, Any] = {name: found[name] for name in names}
        values |= {name: tuple(found[name]) for name in ("labels", "tissues", "constant")}
        models = tuple(ModelScores.from_json(model) for model in found["models"])
        return cls(**values, models=models, computed=False)

    def __str__(self) -> str:
        from heads.table import format_evaluation

        return format_evaluation(self)


def evaluate(
    run: Path | str,
    *,
    dataset: Path | None = None,
    cache: str | Place | None = None,
    device: str = "auto",
    resamples: int = 2000,
) -> Evaluation:
    """Score the test rows of a run and of its baselines, and keep the result in ``test.json``.

    They are scored once: a later call returns what the first one wrote, whatever its arguments.

    Args:
        run: Directory of a finished run.
        dataset: Where the dataset of the run is now, if it was moved.
        cache: Where its cache is now.
        device: Where the model runs.
        resamples: Of genes, for the intervals.

    Raises:
        CheckpointError: The run is missing, unfinished or damaged.
        InvalidInputError: The dataset is another one, or has no measured test row.
        CacheError: A store of the run is not in the cache.
    """
    directory = RunDirectory(run)
    if directory.test.exists():
        return _read(directory)
    trained = load_trained(run, device)
    result = _score(trained, trained.study(dataset, cache), resamples)
    text = json.dumps(
        {"format": "isoheads-test", "version": _VERSION, "software": provenance(), **result.to_json()}, indent=2
    )
    with writing(directory.test):
        written = create_file(directory.test, [f"{text}\n".encode()])
    # lost a race: the other result counts, and both callers report it
    return result if written else _read(directory)


def _score(trained: TrainedRun, study: Study, resamples: int) -> Evaluation:
    rows = study.rows["test"]
    if len(rows) < 2:
        raise InvalidInputError(
            f"{study.dataset.path} has {len(rows)} measured test rows, expected at least 2. "
            "Prepare it with a test split, and train a run on it."
        )
    predictions = {"this run": predict_finite(trained.model, trained.data(study), rows, trained.config)}
    kept = trained.directory.path / "test_predictions.parquet"
    if not kept.exists():  # a sweep has written it
        write_predictions(kept, study.dataset, rows, predictions["this run"], {})
    details: dict[str, dict[str, Any]] = {}
    for name in BASELINES:
        baseline = fit_baseline(name, study, rows)
        predictions[name] = baseline.predictions
        details[name] = {"n_features": baseline.n_features, "alpha": baseline.alpha}
    samples = study.dataset.samples.iloc[rows]
    genes = np.unique(samples["gene_id"].to_numpy(dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
    coding = (samples["protein_key"].notna() | samples["cds_start"].notna()).to_numpy(dtype=bool)
    units = np.unique(unit_of_rows(study.dataset, study.split)[rows], return_inverse=True)[1].astype(np.int64)
    in_tpm = study.dataset.info.get("target_unit") == "log1p_tpm"
    scorer = _Scorer(study.data.targets[rows], genes, units, coding, study.scaler if in_tpm else None, resamples)
    return Evaluation(
        run=str(trained.directory.path),
        labels=trained.labels,
        encoders={m: encoder["directory"] for m, encoder in trained.description["encoders"].items()},
        tissues=study.scaler.tissues,
        constant=study.scaler.constant,
        lacking={m: int((source.lengths[rows] == 0).sum()) for m, source in study.sources.items()},
        n_genes=int(genes.max()) + 1,
        n_transcripts=len(rows),
        n_coding=int(coding.sum()),
        resamples=resamples,
        models=tuple(
            scorer.score(name, found, predictions["this run"], details.get(name, {}))
            for name, found in predictions.items()
        ),
        computed=True,
    )


@dataclass(frozen=True, slots=True)
class _Scorer:
    """What all models are scored on."""

    targets: Array
    genes: NDArray[np.int64]
    units: NDArray[np.int64]
    """What is resampled: genes, or groups of genes with like sequences."""
    coding: NDArray[np.bool_]
    scaler: TissueScaler | None
    """The way back to log1p TPM, where targets are that."""
    resamples: int

    def score(self, name: str, predictions: Array, run: Array, details: Mapping[str, Any]) -> ModelScores:
        r2, spearman = (
            interval_by_gene(metric, self.targets, predictions, self.units, resamples=self.resamples)
            for metric in ("r2", "spearman")
        )
        lead = None
        if predictions is not run:
            lead = difference_by_gene("r2", self.targets, run, predictions, self.units, resamples=self.resamples)
        return ModelScores(
            name=name,
            overall=score(self.targets, predictions),
            coding=self._part(predictions, self.coding),
            noncoding=self._part(predictions, ~self.coding),
            within_gene=within_gene(self.targets, predictions, self.genes),
            r2=r2,
            spearman=spearman,
            r2_lead=lead,
            details=details,
            differential=self._differential(predictions),
        )

    def _differential(self, predictions: Array) -> DifferentialUsage | None:
        if self.scaler is None:
            return None
        found = differential_usage(self.scaler.undo(self.targets), self.scaler.undo(predictions), self.genes)
        return found if found.n_genes else None

    def _part(self, predictions: Array, rows: NDArray[np.bool_]) -> Scores | None:
        return score(self.targets[rows], predictions[rows]) if rows.sum() >= 2 else None


def _read(directory: RunDirectory) -> Evaluation:
    try:
        found = json.loads(directory.test.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory.test} cannot be read: {error}. Restore it from a copy.") from error
    if not isinstance(found, dict) or (found.get("format"), found.get("version")) != ("isoheads-test", _VERSION):
        raise CheckpointError(f"{directory.test} is not a result of this version. Use the release that wrote it.")
    try:
        return replace(Evaluation.from_json(found), run=str(directory.path))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{directory.test} is damaged: {error!r}. Restore it from a copy.") from error


def _numbers(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    return {name: x if np.isfinite(x) else None for name, x in asdict(interval).items()}


def _interval(found: Mapping[str, float | None]) -> Interval:
    return Interval(**{name: float("nan") if x is None else x for name, x in found.items()})
