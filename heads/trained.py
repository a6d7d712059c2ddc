"""A finished run, opened to be scored or used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from embedcache.dataset import Dataset, read_dataset
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheError, CacheMismatchError, InvalidInputError
from embedcache.place import Place
from embedcache.sequences import Modality
from embedcache.store import EmbeddingStore, lacks, list_stores
from heads.checkpoint import CheckpointError, nested, read_tensors
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.data import CachedDataset
from heads.directory import RunDirectory
from heads.finetune.config import FinetuneConfig
from heads.inference import choose_device
from heads.mending import how_to_fill
from heads.model import ExpressionModel
from heads.open_sources import open_source
from heads.rng import PrivateRng
from heads.scaling import TissueScaler
from heads.setup import Study, open_study
from heads.sources import AbsentSource, TokenSource
from heads.text import how_again

if TYPE_CHECKING:
    from heads.finetune.encoder import TunedEncoder

__all__ = ["TrainedRun", "load_trained"]

_TOLD = ("inner", "parameters", "weights", "from")  # what config.json says of a fine-tuning beside its settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """The best model of a run, and what it was."""

    directory: RunDirectory
    description: Mapping[str, Any]
    """``config.json``."""
    model: ExpressionModel
    config: TrainConfig
    split: SplitConfig
    scaler: TissueScaler
    best_epoch: int
    finetune: FinetuneConfig | None = None
    """How its encoders were trained; None where they are frozen."""
    learned: Mapping[Modality, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    """What learned in the encoders, by name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Words that stand beside every result, such as ``simulated``."""
        return tuple(self.description["labels"])

    def study(self, dataset: Path | None = None, cache: str | Place | None = None) -> Study:
        """Open the dataset and the stores that the run was trained on.

        Raises:
            InvalidInputError: There is no such dataset there, or another one.
            CacheMismatchError: The cache has embeddings of another encoder.
        """
        path = dataset or Path(self.description["dataset"]["path"])
        self.check_dataset(path)
        cache = cache or str(self.description["cache"])
        encoders = {
            m: "+".join(place.name for place in self.find_stores(path, cache, m)) for m in self.model.config.modalities
        }
        study = open_study(path, cache, self.model.config, encoders, self.split)
        assert study.scaler == self.scaler, "the same training rows give the same scaler"
        return study

    def check_dataset(self, path: Path) -> None:
        """Refuse a dataset that the run was not trained on.

        Raises:
            InvalidInputError: It is another one.
        """
        found, wanted = read_dataset(path).digest, self.description["dataset"]["digest"]
        if found != wanted:
            raise InvalidInputError(
                f"{path} is not the dataset of {self.directory.path}: its content has digest {found[:12]}, expected "
                f"{wanted[:12]}. Give the dataset that the run was trained on, or train a run on this one."
            )

    def sources(self, dataset: Dataset, cache: str | Place, *, frozen: bool = False) -> dict[Modality, TokenSource]:
        """Tokens of any dataset, from stores of the encoders that the run was trained on.

        Args:
            dataset: Whose rows.
            cache: Where the stores are.
            frozen: Tokens of the encoders that a fine-tuning began with, and not of those that it trained.

        Raises:
            CacheMismatchError: The cache has embeddings of another encoder.
            CacheIncompleteError: Sequences of the dataset are not in the cache.
        """
        sources: dict[Modality, TokenSource] = {}
        for modality in self.model.config.modalities:
            encoder = self.description["encoders"][modality]
            if modality in dataset.modalities and modality in self.learned and not frozen:
                sources[modality] = self.live_source(dataset, modality)
            elif modality in dataset.modalities:
                found = self.find_stores(dataset.path, cache, modality)
                sources[modality] = open_source(dataset, cache, modality, "+".join(place.name for place in found))
            else:
                n_layers = len(encoder.get("layers", [encoder]))
                sources[modality] = AbsentSource(encoder["width"] * n_layers, len(dataset.samples))
        return sources

    def data(self, study: Study) -> CachedDataset:
        """What the model is scored on: the rows of a study, tokens of trained encoders computed live."""
        if not self.learned:
            return study.data
        sources = dict(study.data.sources) | {m: self.live_source(study.dataset, m) for m in self.learned}
        return CachedDataset(study.dataset, sources, study.scaler)

    def live_source(self, dataset: Dataset, modality: Modality) -> TokenSource:
        """Tokens of a trained encoder for the rows of a dataset."""
        from heads.finetune.live import LiveRows, LiveSource

        return LiveSource(LiveRows(self.encoder(modality), dataset, modality))

    def encoder(self, modality: Modality, weights: Path | None = None) -> "TunedEncoder":
        """The trained encoder of a modality, on the device of the model.

        Args:
            modality: One of ``finetune.modalities``.
            weights: Directory with the published files that training began with, if it is not where it was then.

        Raises:
            CheckpointError: What learned does not fit the encoder.
        """
        from heads.finetune.encoder import TunedEncoder

        assert self.finetune is not None, "a frozen run has no encoders of its own"
        spec = EncoderSpec.from_json(self.description["specs"][modality], str(self.directory.config))
        if weights is None and (place := self.description["finetune"].get("weights", {}).get(modality)) is not None:
            weights = Path(place)
        found = TunedEncoder(spec, self.finetune, next(self.model.parameters()).device, weights)
        try:
            found.load(self.learned[modality])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.directory.model} does not fit encoder {spec.name}: {str(error).splitlines()[0]}. "
                f"{how_again(self.directory.path)}"
            ) from error
        found.model.eval()
        return found

    def find_stores(self, dataset: Path, cache: str | Place, modality: Modality) -> list[Place]:
        """The very stores of the run in a cache, a layer each, or in another cache those of the same spec.

        Raises:
            CacheError: The cache has no store of this modality.
            CacheMismatchError: It has others only.
        """
        encoder = self.description["encoders"][modality]
        specs = self.description.get("specs", {}).get(modality)  # the first runs did not keep it
        return [
            self._find_store(dataset, cache, modality, layer, specs[i] if isinstance(specs, list) else specs)
            for i, layer in enumerate(encoder.get("layers", [encoder]))
        ]

    def _find_store(
        self, dataset: Path, cache: str | Place, modality: Modality, encoder: Mapping[str, Any], spec: Any
    ) -> Place:
        others = list(list_stores(cache, modality))
        for path in others:
            if path.name.endswith(encoder["digest"]) and EmbeddingStore.open(path).spec.digest == encoder["digest"]:
                return path
        mend = "Build that store there."
        if spec:
            mend = how_to_fill(EncoderSpec.from_json(spec, str(self.directory.config)), dataset, cache)
        if not others:
            raise CacheError(f"{lacks(cache, f'{modality} embeddings')} {mend}")
        raise CacheMismatchError(
            f"{cache} has {modality} embeddings of {', '.join(path.name for path in others)}; {self.directory.path} "
            f"was trained on {encoder['directory']}. {mend}"
        )


def load_trained(run: Path | str, device: str = "auto") -> TrainedRun:
    """Open a finished run.

    Raises:
        CheckpointError: There is no run, it is not finished, or its files are damaged.
    """
    directory = RunDirectory(run)
    description = directory.read_config()
    if not directory.model.exists():
        raise CheckpointError(
            f"{directory.path} is not finished: it has no {directory.model.name}. "
            "Give the command again that trains it, to go on."
        )
    tensors, values = read_tensors(directory.model)
    if values.get("config") != description:
        raise CheckpointError(
            f"{directory.config} is not the one that {directory.model.name} was trained with. "
            f"Restore it from a copy, or train anew. {how_again(directory.path)}"
        )
    widths = {modality: encoder["width"] for modality, encoder in description["encoders"].items()}
    layers = {modality: len(encoder.get("layers", [1])) for modality, encoder in description["encoders"].items()}
    config, said = ModelConfig.from_json(description["model"]), description.get("finetune")
    finetune = None if said is None else FinetuneConfig.from_json({k: v for k, v in said.items() if k not in _TOLD})
    learned = {m: nested(tensors, f"encoder.{m}") for m in (finetune.modalities if finetune else ())}
    with PrivateRng(0, torch.device("cpu")).active():  # weights are drawn and replaced; the caller's stream stays
        model = ExpressionModel(config, widths, len(description["tissues"]), layers)
    try:
        model.load_state_dict({name: one for name, one in tensors.items() if not name.startswith("encoder.")})
    except RuntimeError as error:
        raise CheckpointError(
            f"{directory.model} does not fit {directory.config.name}: {str(error).splitlines()[0]} "
            f"{how_again(directory.path)}"
        ) from error
    return TrainedRun(
        directory=directory,
        description=description,
        model=model.to(choose_device(device)).eval(),
        config=TrainConfig.from_json(description["training"]),
        split=SplitConfig.from_json(description.get("split", {})),
        scaler=TissueScaler.from_json(description["scaler"]),
        best_epoch=values["best_epoch"],
        finetune=finetune,
        learned=learned,
    )
