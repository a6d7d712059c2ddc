"""``heads train``: every setting of a run is an option of the same name."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from embedcache.errors import InvalidSettingError
from embedcache.options import expand_options, parse_by_modality, parse_modalities, parse_pairs
from heads.finetune.command import check_unused, train_tuned
from heads.settings import FIELDS, RunSettings
from heads.train_options import ModelOptions, RunOptions, SplitOptions, TrainingOptions, TuningOptions

if TYPE_CHECKING:
    from heads.train import TrainResult

__all__ = ["train"]


@expand_options
def train(
    context: typer.Context,
    run: RunOptions,
    model: ModelOptions,
    training: TrainingOptions,
    split: SplitOptions,
    tuning: TuningOptions,
) -> None:
    """Train one run from the cache, or encoders with it. The same command again goes on where it stopped."""
    values = {name: value for options in (run, model, training, split) for name, value in asdict(options).items()}
    settings = _settings(values, training.tissue_weight or [])
    given = {
        name
        for name in context.params
        if str(context.get_parameter_source(name)).endswith(("COMMANDLINE", "ENVIRONMENT"))
    }
    if tuning.finetune is not None:
        _tell(train_tuned(settings, run, tuning, given))
        return
    check_unused(given)
    encoders = parse_by_modality("--encoder", run.encoder or [])
    from heads.train import train

    _tell(
        train(
            dataset=run.dataset,
            cache=run.cache,
            run=run.run,
            model=settings.model,
            config=settings.training,
            encoders=encoders,
            split=settings.split,
        )
    )


def _tell(result: "TrainResult") -> None:
    """Print what came out, once where several processes train."""
    from heads.team import is_first_process

    if is_first_process():
        print(result)


def _settings(options: Mapping[str, Any], tissue_weight: Sequence[str]) -> RunSettings:
    flat = {name: "none" if options[name] is None else options[name] for name in FIELDS if name in options}
    names = parse_modalities(flat["modalities"])
    pairs = parse_pairs("--tissue-weight", tissue_weight, "Liver=2")
    try:
        weights = {name: float(value) for name, value in pairs.items()}
    except ValueError as error:
        raise InvalidSettingError(f"--tissue-weight: {error}. Give a number, as in --tissue-weight Liver=2.") from error
    return RunSettings.from_flat({**flat, "modalities": names, "tissue_weights": weights})
