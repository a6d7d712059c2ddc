"""A small study with the encoders that come with the package, and runs on it: what live models are tried on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_study import make_dataset

from embedcache.build import build_cache
from embedcache.dataset import Dataset
from embedcache.encoders.registry import load_encoder
from embedcache.prepare.simulate import prepare_simulate
from embedcache.sequences import Modality, SequenceRecord
from embedcache.store import store_path
from heads.config import ModelConfig, TrainConfig
from heads.interpret.explain.live_model import Sequences
from heads.train import train


def build_minis(cache: Path, dataset: Dataset, modalities: Sequence[Modality], **options: Any) -> dict[Modality, str]:
    """Stores of the small encoders; gives their names."""
    names: dict[Modality, str] = {}
    for modality in modalities:
        encoder = load_encoder(f"mini-{modality}", modality, **options)
        records = [SequenceRecord(key.hex(), sequence, modality) for key, sequence in dataset.sequences(modality)]
        build_cache(records, encoder, store_path(cache, encoder.spec))
        names[modality] = encoder.spec.directory
    return names


def train_live(path: Path, dataset: Dataset, options: dict[str, Any] | None = None, **model: Any) -> Path:
    """A run of two epochs on stores of the small encoders, float32 unless ``options`` say otherwise."""
    modalities = model.pop("modalities", dataset.modalities)
    names = build_minis(path / "cache", dataset, modalities, **{"store_dtype": "float32", **(options or {})})
    config = TrainConfig(epochs=2, batch_size=16, learning_rate=1e-2, device="cpu")
    settings = ModelConfig(modalities=modalities, **model)
    train(dataset=dataset.path, cache=path / "cache", run=path / "run", model=settings, config=config, encoders=names)
    return path / "run"


def make_live(path: Path, options: dict[str, Any] | None = None, **model: Any) -> tuple[Dataset, Path]:
    """A dataset of two dozen transcripts and a run on it."""
    dataset = make_dataset(path / "dataset", n_genes=12)
    return dataset, train_live(path, dataset, options, **model)


def letters(dataset: Dataset) -> list[Sequences]:
    """Sequences of every transcript."""
    of_key = {m: dict(dataset.sequences(m)) for m in dataset.modalities}
    columns = {m: [None if key is None else of_key[m][key] for key in dataset.keys(m)] for m in dataset.modalities}
    return [{m: columns[m][row] for m in columns} for row in range(len(dataset.samples))]


def make_simulated(path: Path) -> Path:
    """A simulated study with its genome, stores of the small encoders, and a run that reads all three modalities."""
    dataset = prepare_simulate(output=path / "dataset", n_genes=12, isoforms_per_gene=2, n_tissues=3, dna_length=400)
    return train_live(path, dataset, aggregator="concat")
