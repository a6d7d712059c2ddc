"""The subcommands of ``heads``. Each one translates its options and calls one public function."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from embedcache.errors import UnknownNameError
from embedcache.options import CacheOption, DatasetOption, DeviceOption, JsonOption, parse_by_modality
from embedcache.sequences import MODALITIES, Modality
from heads.config import AGGREGATORS, Centres, ModelConfig, TrainConfig

__all__ = ["app"]

app = typer.Typer(
    help="Train and score aggregators and tissue heads on cached embeddings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RunOption = Annotated[Path, typer.Option(envvar="HEADS_RUN", help="Directory of the run.")]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="MODALITY=NAME", help="Store to read, where there are several: rna=nt-v2-250m."),
]
Settings = TypeVar("Settings", ModelConfig, TrainConfig)
_MODEL, _TRAIN = ModelConfig(), TrainConfig()


@app.command()
def train(
    modalities: Annotated[str, typer.Option(help="What the model reads, of dna, rna, protein.")] = ",".join(MODALITIES),
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    run: RunOption = Path("runs/run"),
    encoder: EncoderOption = None,
    aggregator: Annotated[str, typer.Option(help=f"How they are mixed: {', '.join(AGGREGATORS)}.")] = _MODEL.aggregator,
    centres: Annotated[Centres, typer.Option(help="Whose tokens are updated and pooled.")] = _MODEL.centres,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of a block; divides each width.")] = _MODEL.heads,
    rounds: Annotated[int, typer.Option(min=1, help="How often each centre reads the others.")] = _MODEL.rounds,
    width: Annotated[
        int | None, typer.Option(min=1, help="Project tokens to this width first. Default: each encoder's own.")
    ] = _MODEL.width,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the hidden layers of concat.")] = _MODEL.hidden,
    dropout: Annotated[float, typer.Option(min=0, max=1, help="Dropout of concat, below 1.")] = _MODEL.dropout,
    learning_rate: Annotated[float, typer.Option(help="Adam's step, above 0.")] = _TRAIN.learning_rate,
    batch_size: Annotated[int, typer.Option(min=1, help="Transcripts a step.")] = _TRAIN.batch_size,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training rows.")] = _TRAIN.epochs,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a better validation loss before the end.")
    ] = _TRAIN.patience,
    weight_decay: Annotated[float, typer.Option(min=0, help="0 is plain Adam, more is AdamW.")] = _TRAIN.weight_decay,
    seed: Annotated[int, typer.Option(min=0, help="Initial weights and dropout.")] = _TRAIN.seed,
    data_seed: Annotated[int, typer.Option(min=0, help="Order of the training rows.")] = _TRAIN.data_seed,
    device: DeviceOption = _TRAIN.device,
    max_tokens_per_batch: Annotated[
        int | None, typer.Option(min=1, help="Tokens computed on at a time; saves memory.")
    ] = _TRAIN.max_tokens_per_batch,
) -> None:
    """Train one run from the cache. The same command again goes on where it stopped."""
    options = {**locals(), "modalities": _modalities(modalities)}
    model, config = _settings(ModelConfig, options), _settings(TrainConfig, options)
    encoders = parse_by_modality("--encoder", encoder or [])
    from heads.train import train

    print(train(dataset=dataset, cache=cache, run=run, model=model, config=config, encoders=encoders))


@app.command()
def evaluate(
    run: RunOption = Path("runs/run"),
    dataset: Annotated[Path | None, typer.Option(help="Where the dataset of the run is, if it was moved.")] = None,
    cache: Annotated[str | None, typer.Option(help="Where its cache is, if it was moved.")] = None,
    device: DeviceOption = "auto",
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Draws of genes for the intervals.")] = 2000,
    as_json: JsonOption = False,
) -> None:
    """Score the test rows of a finished run, once, beside its baselines."""
    from heads.evaluate import evaluate

    found = evaluate(run, dataset=dataset, cache=cache, device=device, resamples=resamples)
    print(json.dumps(found.to_json(), indent=1) if as_json else found)


@app.command()
def predict(
    run: RunOption = Path("runs/run"),
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    output: Annotated[Path, typer.Option(help="Parquet file to write.")] = Path("predictions.parquet"),
    device: DeviceOption = "auto",
) -> None:
    """Predict the expression of every transcript of a dataset, on the scale of the targets, with its IDs."""
    from heads.predict import predict

    print(predict(run, dataset, cache, output, device=device))


def _settings(kind: type[Settings], options: Mapping[str, Any]) -> Settings:
    """Each field of the settings is an option of the same name."""
    return kind(**{field.name: options[field.name] for field in fields(kind) if field.name in options})


def _modalities(text: str) -> tuple[Modality, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in MODALITIES]:
        raise UnknownNameError("modality", unknown[0], MODALITIES)
    return tuple(modality for name in names for modality in MODALITIES if modality == name)
