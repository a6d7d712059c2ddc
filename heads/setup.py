"""What training, evaluation and prediction open before they start: rows, tokens, scaler, and a run's description."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import InvalidInputError
from embedcache.place import Place
from embedcache.sequences import Modality
from embedcache.splits import SplitName
from heads.config import ModelConfig, TrainConfig
from heads.data import CachedDataset, Rows
from heads.directory import CONFIG_VERSION
from heads.scaling import TissueScaler
from heads.sources import CachedSource, open_sources
from heads.splits import rows_by_split

__all__ = ["Study", "describe", "open_study", "provenance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A dataset, ready to be trained on."""

    dataset: Dataset
    data: CachedDataset
    sources: Mapping[Modality, CachedSource]
    scaler: TissueScaler
    rows: Mapping[SplitName, Rows]
    """Rows of each split that have at least one measured target."""

    @property
    def widths(self) -> dict[Modality, int]:
        """Width of the token embeddings of each modality."""
        return {modality: source.width for modality, source in self.sources.items()}


def open_study(
    dataset: Path, cache: str | Place, model: ModelConfig, encoders: Mapping[Modality, str] | None = None
) -> Study:
    """Open dataset and stores, fit the scaler on training rows.

    Raises:
        InvalidInputError: No targets, no sequences of a modality, or no measured row to train or validate on.
        SplitError: A gene is in two splits.
        CacheError: A store is missing or lacks sequences.
    """
    opened = read_dataset(dataset)
    opened.verify()
    if opened.targets is None:
        raise InvalidInputError(f"{dataset} has no targets. Prepare it with expression, or use `heads predict`.")
    targets = opened.targets.to_numpy(dtype=np.float64)
    if np.isinf(targets).any():
        row, column = np.argwhere(np.isinf(targets))[0]
        raise InvalidInputError(
            f"{dataset}: the target of {opened.samples['transcript_id'].iloc[row]} in {opened.tissues[column]!r} is "
            "infinite. Mend the table of targets, or leave the cell empty, and prepare the dataset again."
        )
    measured = ~np.isnan(targets).all(axis=1)
    rows = {name: found[measured[found]] for name, found in rows_by_split(opened).items()}
    for name in ("train", "validation"):
        n_rows = len(rows[name])
        if n_rows < 2:
            raise InvalidInputError(
                f"{dataset} has {n_rows} measured {name} rows, expected at least 2. Prepare it with another split."
            )
    scaler = TissueScaler.fit(targets[rows["train"]], opened.tissues)
    sources = open_sources(opened, cache, model.modalities, encoders)
    return Study(
        dataset=opened,
        data=CachedDataset(opened, sources, scaler),
        sources=sources,
        scaler=scaler,
        rows=rows,
    )


def describe(study: Study, cache: Place, model: ModelConfig, config: TrainConfig) -> dict[str, Any]:
    """What goes into ``config.json``: everything needed to make the run again."""
    encoders = {}
    labels = list(study.dataset.labels)
    for modality, source in study.sources.items():
        spec = source.store.spec
        encoders[modality] = {
            "name": spec.name,
            "digest": spec.digest,
            "directory": spec.directory,
            "width": source.width,
            "random": spec.is_random,
        }
        if spec.is_random:
            labels.append(f"random encoder: {modality} {spec.name}")
        elif spec.is_small:
            labels.append(f"small encoder: {modality} {spec.name}")
    return {
        "format": "isoheads-run",
        "version": CONFIG_VERSION,
        "labels": labels,
        "model": model.to_json(),
        "training": config.to_json(),
        "encoders": encoders,
        "specs": {modality: source.store.spec.to_json() for modality, source in study.sources.items()},
        "dataset": {
            "path": str(study.dataset.path.absolute()),
            "digest": study.dataset.digest,
            "target_unit": study.dataset.info.get("target_unit", "unknown"),
            "rows": {name: len(rows) for name, rows in study.rows.items()},
        },
        "cache": str(cache.absolute() if isinstance(cache, Path) else cache),
        "tissues": study.dataset.tissues,
        "scaler": study.scaler.to_json(),
        "software": {**provenance(), "threads": torch.get_num_threads()},
    }


def provenance() -> dict[str, str]:
    """Versions of what computes."""
    try:
        own = version("isoheads")
    except PackageNotFoundError:
        own = "from source"
    return {"isoheads": own, "torch": torch.__version__, "python": platform.python_version()}
