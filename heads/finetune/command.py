"""From the options of ``heads train --finetune`` to a training. Imports nothing slow."""

from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.options import parse_by_modality
from embedcache.sequences import MODALITIES
from heads.config import TrainConfig
from heads.finetune.config import FinetuneConfig
from heads.settings import RunSettings

if TYPE_CHECKING:
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
    if unused := [name for name in (*TUNING, "from_run", "weights") if name in given]:
        flag = "--from" if unused[0] == "from_run" else f"--{unused[0].replace('_', '-')}"
        raise InvalidSettingError(f"{flag} is for fine-tuning. Add --finetune MODALITY, or leave it out.")


def train_tuned(settings: RunSettings, options: Mapping[str, Any], given: Set[str]) -> "TrainResult":
    """Train encoders together with a head.

    Args:
        settings: What the options say, with defaults.
        options: Value of every option of the command by its name.
        given: Names of those that the user gave.

    Raises:
        InvalidSettingError: Options that do not fit the run that it starts from.
        EmbedCacheError: See ``heads.train.train``.
    """
    from heads.finetune.setup import Start
    from heads.train import train
    from heads.trained import load_trained

    names = [name.strip() for name in options["finetune"].split(",") if name.strip()]
    if unknown := [name for name in names if name not in MODALITIES]:
        raise UnknownNameError("modality", unknown[0], MODALITIES)
    tuning = {field: options[name] for name, field in TUNING.items()}
    finetune = FinetuneConfig(modalities=tuple(names), **tuning)
    lora_only = [name for name in ("lora_rank", "lora_alpha", "lora_dropout") if name in given]
    if lora_only and finetune.method != "lora":
        raise InvalidSettingError(
            f"--{lora_only[0].replace('_', '-')} is for --method lora, and it is {finetune.method}. Leave it out, or "
            "give --method lora."
        )
    weights = {m: Path(place) for m, place in parse_by_modality("--weights", options["weights"] or []).items()}
    if unused := [m for m in weights if m not in finetune.modalities]:
        raise InvalidSettingError(f"--weights names {unused[0]}, which is not in --finetune. Leave it out, or add it.")
    if options["from_run"] is None:
        return train(
            **{name: options[name] for name in ("dataset", "cache", "run")},
            model=settings.model,
            config=settings.training,
            encoders=parse_by_modality("--encoder", options["encoder"] or []),
            split=settings.split,
            start=Start(finetune=finetune, weights=weights),
        )
    frozen = load_trained(options["from_run"], "cpu")
    _check_same(frozen, settings, options, given)
    dataset = options["dataset"] if "dataset" in given else Path(frozen.description["dataset"]["path"])
    cache = options["cache"] if "cache" in given else str(frozen.description["cache"])
    frozen.check_dataset(dataset)
    stores = {m: frozen.find_stores(dataset, cache, m) for m in frozen.model.config.modalities}
    return train(
        dataset=dataset,
        cache=cache,
        run=options["run"],
        model=frozen.model.config,
        config=_training(frozen, settings, given),
        encoders={m: "+".join(place.name for place in places) for m, places in stores.items()},
        split=frozen.split,
        start=Start(finetune=finetune, frozen=frozen, weights=weights),
    )


def _check_same(frozen: "TrainedRun", settings: RunSettings, options: Mapping[str, Any], given: Set[str]) -> None:
    """The model and the rows are those of the frozen run; saying so again is allowed."""
    path = options["from_run"]
    if frozen.finetune is not None:
        raise InvalidSettingError(f"{path} was fine-tuned itself. Give the frozen run that it came from as --from.")
    if options["run"].resolve() == Path(path).resolve():
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
