"""From the options of ``heads train --finetune`` to a training. Imports nothing slow."""

from collections.abc import Set
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.errors import InvalidSettingError
from embedcache.options import parse_by_modality, parse_modalities
from embedcache.sequences import Modality
from heads.config import TrainConfig
from heads.finetune.config import FinetuneConfig
from heads.settings import RunSettings
from heads.train_options import RunOptions, TuningOptions

if TYPE_CHECKING:
    from heads.finetune.setup import Start
    from heads.train import TrainResult
    from heads.trained import TrainedRun

__all__ = ["TUNING", "check_unused", "train_tuned"]

TUNING = {
    "method": "method",
    "encoder_learning_rate": "learning_rate",
    "encoder_weight_decay": "weight_decay",
    "lora_rank": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "ema": "ema",
    "checkpointing": "checkpointing",
}
"""Option of the command, and field of ``FinetuneConfig``."""


def check_unused(given: Set[str]) -> None:
    """Refuse options that do nothing without ``--finetune``.

    Raises:
        InvalidSettingError: Names the first.
    """
    if unused := [name for name in (*TUNING, "from_run", "weights", "shard") if name in given]:
        flag = "--from" if unused[0] == "from_run" else f"--{unused[0].replace('_', '-')}"
        raise InvalidSettingError(f"{flag} is for fine-tuning. Add --finetune MODALITY, or leave it out.")


def train_tuned(settings: RunSettings, run: RunOptions, tuning: TuningOptions, given: Set[str]) -> "TrainResult":
    """Train encoders together with a head.

    Args:
        settings: What the options say of model, training and split, with defaults.
        run: Where inputs and outputs are.
        tuning: How the encoders are trained.
        given: Names of the options that the user gave.

    Raises:
        InvalidSettingError: Options that do not fit the run that it starts from.
        EmbedCacheError: See ``heads.train.train``.
    """
    from heads.finetune.setup import Start
    from heads.train import train

    finetune = _finetune_config(tuning, given)
    start = Start(finetune=finetune, weights=_weights(tuning, finetune), shard=tuning.shard)
    if tuning.from_run is not None:
        return _train_on(tuning.from_run, start, settings, run, given)
    return train(
        dataset=run.dataset,
        cache=run.cache,
        run=run.run,
        model=settings.model,
        config=settings.training,
        encoders=parse_by_modality("--encoder", run.encoder or []),
        split=settings.split,
        start=start,
    )


def _finetune_config(tuning: TuningOptions, given: Set[str]) -> FinetuneConfig:
    chosen: dict[str, Any] = {field: getattr(tuning, name) for name, field in TUNING.items()}
    finetune = FinetuneConfig(modalities=tuple(parse_modalities(tuning.finetune or "")), **chosen)
    lora_only = [name for name in ("lora_rank", "lora_alpha", "lora_dropout") if name in given]
    if lora_only and finetune.method != "lora":
        raise InvalidSettingError(
            f"--{lora_only[0].replace('_', '-')} is for --method lora, and it is {finetune.method}. Leave it out, or "
            "give --method lora."
        )
    return finetune


def _weights(tuning: TuningOptions, finetune: FinetuneConfig) -> dict[Modality, Path]:
    """Published files by modality; only of encoders that are trained."""
    weights = {m: Path(place) for m, place in parse_by_modality("--weights", tuning.weights or []).items()}
    if unused := [m for m in weights if m not in finetune.modalities]:
        raise InvalidSettingError(f"--weights names {unused[0]}, which is not in --finetune. Leave it out, or add it.")
    return weights


def _train_on(path: Path, start: "Start", settings: RunSettings, run: RunOptions, given: Set[str]) -> "TrainResult":
    """Go on from a frozen run: its model, rows and stores; its training settings but for those given."""
    from heads.train import train
    from heads.trained import load_trained

    frozen = load_trained(path, "cpu")
    _check_same(frozen, path, settings, run, given)
    dataset = run.dataset if "dataset" in given else Path(frozen.description["dataset"]["path"])
    cache = run.cache if "cache" in given else str(frozen.description["cache"])
    frozen.check_dataset(dataset)
    stores = {m: frozen.find_stores(dataset, cache, m) for m in frozen.model.config.modalities}
    return train(
        dataset=dataset,
        cache=cache,
        run=run.run,
        model=frozen.model.config,
        config=_training(frozen, settings, given),
        encoders={m: "+".join(place.name for place in places) for m, places in stores.items()},
        split=frozen.split,
        start=replace(start, frozen=frozen),
    )


def _check_same(frozen: "TrainedRun", path: Path, settings: RunSettings, run: RunOptions, given: Set[str]) -> None:
    """The model and the rows are those of the frozen run; saying so again is allowed."""
    if frozen.finetune is not None:
        raise InvalidSettingError(f"{path} was fine-tuned itself. Give the frozen run that it came from as --from.")
    if run.run.resolve() == path.resolve():
        raise InvalidSettingError(f"--run and --from are both {path}. Give --run a directory of its own.")
    if "encoder" in given:
        raise InvalidSettingError(f"--encoder is that of {path}. Leave it out, or leave out --from.")
    held = RunSettings(model=frozen.model.config, split=frozen.split)
    for name, wanted in held.flat().items():
        now = settings.flat()[name]
        if name in given and name not in _TRAINING and now != wanted:
            raise InvalidSettingError(
                f"--{name.replace('_', '-')} is {now}, {path} has {wanted}. A fine-tuning keeps the model and the rows "
                "of the run that it starts from: leave it out, or train another frozen run first."
            )


def _training(frozen: "TrainedRun", settings: RunSettings, given: Set[str]) -> TrainConfig:
    """Training settings of the frozen run, but for what the user gave."""
    changed = {name: getattr(settings.training, name) for name in _TRAINING if name in given}
    if "tissue_weight" in given:
        changed["tissue_weights"] = settings.training.tissue_weights
    return TrainConfig.from_json({**frozen.config.to_json(), **changed})


_TRAINING = {item.name for item in fields(TrainConfig)}
