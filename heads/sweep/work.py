"""Training the runs of a cohort together, each in its own directory, and predicting their test rows.

Shapes: N rows, K tissues.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset, read_dataset
from embedcache.interrupt import StopFlag
from embedcache.place import Place
from embedcache.sequences import Modality
from heads.config import SplitConfig
from heads.data import CachedDataset
from heads.directory import RunDirectory
from heads.fit import deterministic, fit, predict_cohort
from heads.inference import choose_device
from heads.memory import memory_told
from heads.open_sources import StoredSource, layers_of, open_source
from heads.predictions import write_predictions
from heads.run import Run
from heads.scaling import TissueScaler
from heads.setup import Study, describe, divide
from heads.sweep.directory import SweepDirectory
from heads.sweep.kept import check_files, drop_damaged_model, has_ended
from heads.sweep.plan import Cohort, NamedRun, told_of
from heads.train import DivergedError, finish, resume, save

__all__ = ["Opened", "shared_data", "source_name", "train_cohort"]

Array = NDArray[np.float64]


@dataclass(slots=True)
class Opened:
    """Dataset and stores of a sweep, opened once; summaries of stores stay in memory over all cohorts."""

    dataset: Dataset
    cache: Place
    sources: dict[tuple[Modality, str | None], StoredSource] = field(default_factory=dict)
    divided: dict[SplitConfig, tuple[Any, TissueScaler]] = field(default_factory=dict)

    @classmethod
    def open(cls, dataset: Path, cache: Place) -> "Opened":
        """Open and verify the dataset."""
        opened = read_dataset(dataset)
        opened.verify()
        return cls(opened, cache)

    def source(self, modality: Modality, encoder: str | None, modalities: Sequence[Modality]) -> StoredSource:
        """The source that an encoder's name means, the same object each time."""
        key = modality, encoder
        if key not in self.sources:
            self.sources[key] = open_source(self.dataset, self.cache, modality, encoder, modalities)
        return self.sources[key]

    def study(self, run: NamedRun, data: CachedDataset | None = None) -> Study:
        """What one run reads; ``data`` where it shares batches with others."""
        settings = run.settings
        rows, scaler = self.divide(settings.split)
        chosen = settings.model.modalities
        sources = {m: self.source(m, settings.encoders.get(m), chosen) for m in chosen}
        data = data or CachedDataset(self.dataset, sources, scaler)
        return Study(dataset=self.dataset, data=data, sources=sources, scaler=scaler, rows=rows, split=settings.split)

    def divide(self, split: SplitConfig) -> tuple[Any, TissueScaler]:
        """Rows of each split and the scaler of the training rows."""
        if split not in self.divided:
            self.divided[split] = divide(self.dataset, split)
        return self.divided[split]


def source_name(source: StoredSource) -> str:
    """What a source is called in the batches of a cohort."""
    layers = layers_of(source)
    return f"{layers[0].store.spec.modality}:{'+'.join(layer.store.spec.directory for layer in layers)}"


@memory_told("A cohort of the sweep")
def train_cohort(
    cohort: Cohort, opened: Opened, sweep: SweepDirectory, stop: StopFlag | bool, *, title: str, predict: bool = True
) -> None:
    """Train the runs of a cohort that have not ended, and write what each predicts for its test rows.

    A run that diverges has no model; it ends with its reason in its history, and the others go on.

    Raises:
        CheckpointError: A directory holds another run, or another process trains it.
        NoMemoryLeftError: Its models, or a step, do not fit the memory.
    """
    waiting = [run for run in cohort.runs if not _is_done(run, sweep, predict)]
    if not waiting:
        return
    device = choose_device(waiting[0].settings.training.device)
    data = shared_data(waiting, opened)
    runs: list[Run] = []
    with ExitStack() as stack, deterministic(device):
        directories: dict[int, tuple[RunDirectory, Mapping[str, Any]]] = {}
        for named in waiting:
            study = opened.study(named, data)
            inputs = {m: source_name(source) for m, source in study.sources.items()}
            settings, directory = named.settings, sweep.run(named.settings)
            with told_of(named.name):
                run = Run(settings.model, settings.training, study=study, device=device, inputs=inputs, name=named.name)
            stack.enter_context(directory.locked())
            wanted = describe(study, opened.cache, settings.model, settings.training)
            directories[id(run)] = directory, _go_on(run, directory, wanted)
            runs.append(run)
        fit(runs, study, lambda run: save(run, directories[id(run)][0]), stop, title=title)
        ended = [run for run in runs if run.stopped]
        for run in ended:
            _finish(run, *directories[id(run)])
        if predict:
            whole = [run for run in ended if run.best_epoch]
            _predict([(run, directories[id(run)][0]) for run in whole], study)


def shared_data(runs: Sequence[NamedRun], opened: Opened) -> CachedDataset:
    """One dataset of all sources that any of the runs reads, by ``source_name``."""
    sources: dict[str, StoredSource] = {}
    for run in runs:
        for source in opened.study(run).sources.values():
            sources[source_name(source)] = source
    _, scaler = opened.divide(runs[0].settings.split)
    return CachedDataset(opened.dataset, dict(sorted(sources.items())), scaler)


def _is_done(run: NamedRun, sweep: SweepDirectory, predict: bool) -> bool:
    return has_ended(sweep.run(run.settings), sweep.predictions(run.settings) if predict else None)


def _go_on(run: Run, directory: RunDirectory, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Load where a run stands, if it has begun; what its ``config.json`` holds."""
    check_files(directory)
    described = directory.settle(wanted)
    resume(run, directory)
    drop_damaged_model(directory)
    return described


def _finish(run: Run, directory: RunDirectory, described: Mapping[str, Any]) -> None:
    try:
        finish(run, directory, described)
    except DivergedError:
        directory.write_history(run.history)


def _predict(runs: Sequence[tuple[Run, RunDirectory]], study: Study) -> None:
    """Test rows of finished runs under their best weights, from one pass."""
    rows = study.rows["test"]
    if not runs or not len(rows):
        return
    for run, _ in runs:
        run.model.load_state_dict(run.best)
    for (_, directory), found in zip(runs, predict_cohort([run for run, _ in runs], study.data, rows), strict=True):
        write_predictions(directory.path / "test_predictions.parquet", study.dataset, rows, found, {})
