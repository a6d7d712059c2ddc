"""A small study on mini encoders, with float32 stores, and a frozen run to fine-tune from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_study import make_dataset, records_of

from embedcache.build import build_cache
from embedcache.dataset import Dataset
from embedcache.encoders.registry import load_encoder
from embedcache.sequences import Modality
from embedcache.store import store_path
from heads.config import ModelConfig, TrainConfig
from heads.finetune.config import FinetuneConfig
from heads.finetune.setup import Start
from heads.train import TrainResult, train
from heads.trained import load_trained

MODALITIES: tuple[Modality, ...] = ("rna", "protein")
ENCODERS = {"rna": "mini-rna", "protein": "mini-protein"}


@dataclass(frozen=True)
class TunedStudy:
    dataset: Path
    cache: Path
    frozen: Path
    config: TrainConfig

    def start(self, method: str = "full", modalities: tuple[Modality, ...] = ("rna",), **more: Any) -> Start:
        finetune = FinetuneConfig(modalities=modalities, method=method, **more)
        return Start(finetune=finetune, frozen=load_trained(self.frozen, "cpu"))

    def tune(self, run: Path, start: Start, **changes: Any) -> TrainResult:
        assert start.frozen is not None
        config = TrainConfig.from_json({**self.config.to_json(), "epochs": 2, "learning_rate": 3e-4, **changes})
        return train(
            dataset=self.dataset, cache=self.cache, run=run, model=start.frozen.model.config, config=config,
            encoders=ENCODERS, start=start,
        )  # fmt: skip


def build_store(dataset: Dataset, cache: Path, modality: Modality, **options: Any) -> None:
    encoder = load_encoder(f"mini-{modality}", modality, **{"store_dtype": "float32", **options})
    build_cache(records_of(dataset, modality), encoder, store_path(cache, encoder.spec))


def make_tuned_study(folder: Path, model: ModelConfig | None = None, **options: Any) -> TunedStudy:
    dataset = make_dataset(folder / "dataset", n_genes=24)
    for modality in MODALITIES:
        build_store(dataset, folder / "cache", modality, **options)
    config = TrainConfig(epochs=3, learning_rate=3e-3, batch_size=8, device="cpu")
    model = model or ModelConfig(modalities=MODALITIES, width=8, heads=2)
    train(
        dataset=folder / "dataset", cache=folder / "cache", run=folder / "frozen", model=model, config=config,
        encoders=ENCODERS,
    )  # fmt: skip
    return TunedStudy(folder / "dataset", folder / "cache", folder / "frozen", config)
