"""What training, evaluation and prediction open before they start: rows, tokens, scaler, and a run's description."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.data import CachedDataset, Rows
from heads.directory import CONFIG_VERSION
from heads.labels import labels_of
from heads.open_sources import StoredSource, layers_of, open_sources
from heads.scaling import TissueScaler
from heads.sources import CachedSource
from heads.splits import rows_by_split

__all__ = ["Study", "describe", "divide", "open_study", "provenance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A dataset, ready to be trained on."""

    dataset: Dataset
    data: CachedDataset
    sources: Mapping[Modality, StoredSource]
    scaler: TissueScaler
    rows: Mapping[SplitName, Rows]
    """Rows of each split that have at least one measured target."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """How the rows were divided."""

    @property
    def widths(self) -> dict[Modality, int]:
        """Width of the token embeddings of each modality."""
        return {modality: source.width for modality, source in self.sources.items()}

    @property
    def layers(self) -> dict[Modality, int]:
        """Layers of each modality that lie side by side."""
        return {modality: len(layers_of(source)) for modality, source in self.sources.items()}


def open_study(
    dataset: Path,
    cache: str | Place,
    model: ModelConfig,
    encoders: Mapping[Modality, str] | None = None,
    split: SplitConfig | None = None,
) -> Study:
    """Open dataset and stores, divide the rows, fit the scaler on training rows.

    Args:
        dataset: Directory that ``embedcache prepare`` wrote.
        cache: Root of the cache.
        model: Its modalities are opened.
        encoders: Encoder of a modality, see ``open_sources``.
        split: How rows are divided; None as the dataset says.

    Raises:
        InvalidInputError: No targets, no sequences of a modality, or no measured row to train or validate on.
        SplitError: A gene is in two splits.
        CacheError: A store is missing or lacks sequences.
    """
    opened = read_dataset(dataset)
    opened.verify()
    rows, scaler = divide(opened, split or SplitConfig())
    sources = open_sources(opened, cache, model.modalities, encoders)
    return Study(
        dataset=opened,
        data=CachedDataset(opened, sources, scaler),
        sources=sources,
        scaler=scaler,
        rows=rows,
        split=split or SplitConfig(),
    )


def divide(opened: Dataset, split: SplitConfig) -> tuple[dict[SplitName, Rows], TissueScaler]:
    """Rows of each split that have a measured target, and the scaler of the training rows.

    Raises:
        InvalidInputError: No targets, targets that are no numbers, or no measured row to train or validate on.
        SplitError: A gene is in two splits.
    """
    if opened.targets is None:
        raise InvalidInputError(f"{opened.path} has no targets. Prepare it with expression, or use `heads predict`.")
    targets = opened.targets.to_numpy(dtype=np.float64)
    if np.isinf(targets).any():
        row, column = np.argwhere(np.isinf(targets))[0]
        raise InvalidInputError(
            f"{opened.path}: the target of {opened.samples['transcript_id'].iloc[row]} in {opened.tissues[column]!r} "
            "is infinite. Mend the table of targets, or leave the cell empty, and prepare the dataset again."
        )
    measured = ~np.isnan(targets).all(axis=1)
    rows = {name: found[measured[found]] for name, found in rows_by_split(opened, split).items()}
    for name in ("train", "validation"):
        n_rows = len(rows[name])
        if n_rows < 2:
            raise InvalidInputError(
                f"{opened.path} has {n_rows} measured {name} rows, expected at least 2. "
                "Prepare it again with another --split-seed or other shares of genes."
            )
    return rows, TissueScaler.fit(targets[rows["train"]], opened.tissues)


def describe(study: Study, cache: Place, model: ModelConfig, config: TrainConfig) -> dict[str, Any]:
    """What goes into ``config.json``: everything needed to make the run again."""
    encoders, labels = {}, list(study.dataset.labels)
    for modality, source in study.sources.items():
        layers = [_encoder(layer) for layer in layers_of(source)]
        encoders[modality] = layers[0] if len(layers) == 1 else {**layers[0], "layers": layers}
        for layer in layers_of(source):
            labels += [label for label in labels_of(layer.store.spec) if label not in labels]
    specs = {m: [layer.store.spec.to_json() for layer in layers_of(source)] for m, source in study.sources.items()}
    return {
        "format": "isoheads-run",
        "version": CONFIG_VERSION,
        "labels": labels,
        "model": model.to_json(),
        "training": config.to_json(),
        "split": study.split.to_json(),
        "encoders": encoders,
        "specs": {m: layers[0] if len(layers) == 1 else layers for m, layers in specs.items()},
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


def _encoder(source: CachedSource) -> dict[str, Any]:
    spec = source.store.spec
    names = {"name": spec.name, "digest": spec.digest, "directory": spec.directory}
    return {**names, "width": source.width, "random": spec.is_random}


def provenance() -> dict[str, str]:
    """Versions of what computes."""
    try:
        own = version("isoheads")
    except PackageNotFoundError:
        own = "from source"
    return {"isoheads": own, "torch": torch.__version__, "python": platform.python_version()}
