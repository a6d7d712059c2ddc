"""``heads train``: every setting of a run is an option of the same name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.options import CacheOption, DatasetOption, DeviceOption, parse_by_modality, parse_pairs
from embedcache.sequences import MODALITIES
from heads.config import (
    AGGREGATORS,
    Centres,
    HeadName,
    LossName,
    ModelConfig,
    PoolingName,
    Precision,
    Resident,
    Schedule,
    SimilarityTool,
    SplitConfig,
    SplitUnit,
    TrainConfig,
)
from heads.finetune.command import check_unused, train_tuned
from heads.finetune.config import FinetuneConfig
from heads.settings import FIELDS, RunSettings

if TYPE_CHECKING:
    from heads.train import TrainResult

__all__ = ["RunOption", "train"]

RunOption = Annotated[Path, typer.Option(envvar="HEADS_RUN", help="Directory of the run.")]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODALITY=NAME",
        help="Store to read, where there are several: rna=nt-v2-250m. Several joined by + are layers to mix.",
    ),
]
_MODEL, _TRAIN, _SPLIT = ModelConfig(), TrainConfig(), SplitConfig()
_TUNE = FinetuneConfig(modalities=("rna",))


def train(
    context: typer.Context,
    modalities: Annotated[str, typer.Option(help="What the model reads, of dna, rna, protein.")] = ",".join(MODALITIES),
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    run: RunOption = Path("runs/run"),
    encoder: EncoderOption = None,
    aggregator: Annotated[str, typer.Option(help=f"How they are mixed: {', '.join(AGGREGATORS)}.")] = _MODEL.aggregator,
    centres: Annotated[Centres, typer.Option(help="Whose tokens are updated and pooled.")] = _MODEL.centres,
    heads: Annotated[
        int, typer.Option(min=1, help="Attention heads of a block, queries of attention pooling.")
    ] = _MODEL.heads,
    rounds: Annotated[int, typer.Option(min=1, help="How often each centre reads the others.")] = _MODEL.rounds,
    width: Annotated[
        int | None, typer.Option(min=1, help="Project tokens to this width first. Default: each encoder's own.")
    ] = _MODEL.width,
    pre_norm: Annotated[bool, typer.Option(help="LayerNorm before each cross-attention.")] = _MODEL.pre_norm,
    feed_forward: Annotated[
        int, typer.Option(min=0, help="Feed-forward layer after each cross-attention, so many widths wide; 0 for none.")
    ] = _MODEL.feed_forward,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that perceiver, c-abstractor and linear compress a modality to.")
    ] = _MODEL.tokens,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Layers of perceiver (2), blocks either side in c-abstractor (3).")
    ] = _MODEL.depth,
    bins: Annotated[
        int, typer.Option(min=1, help="Equal parts of a sequence whose means concat and gated-sum read.")
    ] = _MODEL.bins,
    pooling: Annotated[PoolingName, typer.Option(help="From tokens to a vector.")] = _MODEL.pooling,
    hidden: Annotated[
        int, typer.Option(min=1, help="Width of the hidden layers of concat, gated-sum and the mlp head.")
    ] = _MODEL.hidden,
    dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Dropout of concat, gated-sum and the mlp head, below 1.")
    ] = _MODEL.dropout,
    head: Annotated[HeadName, typer.Option(help="From features to tissues.")] = _MODEL.head,
    rank: Annotated[int, typer.Option(min=1, help="Directions that tissues share in the low-rank head.")] = _MODEL.rank,
    lengths: Annotated[bool, typer.Option(help="Also give the head the log number of tokens.")] = _MODEL.lengths,
    modality_dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Chance in training that a sample loses a modality.")
    ] = _MODEL.modality_dropout,
    learning_rate: Annotated[float, typer.Option(help="Adam's step, above 0.")] = _TRAIN.learning_rate,
    batch_size: Annotated[int, typer.Option(min=1, help="Transcripts a step.")] = _TRAIN.batch_size,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training rows.")] = _TRAIN.epochs,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a better validation loss before the end.")
    ] = _TRAIN.patience,
    weight_decay: Annotated[float, typer.Option(min=0, help="0 is plain Adam, more is AdamW.")] = _TRAIN.weight_decay,
    schedule: Annotated[Schedule, typer.Option(help="How the learning rate falls over all epochs.")] = _TRAIN.schedule,
    warmup: Annotated[float, typer.Option(min=0, max=1, help="Share of steps over which it rises.")] = _TRAIN.warmup,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradients, above 0.")] = _TRAIN.clip,
    loss: Annotated[LossName, typer.Option(help="On the z-scale, or on TPM.")] = _TRAIN.loss,
    tissue_weight: Annotated[
        list[str] | None, typer.Option(metavar="TISSUE=WEIGHT", help="How much its errors count in the loss.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the model's matrix products.")] = _TRAIN.precision,
    seed: Annotated[int, typer.Option(min=0, help="Initial weights and dropout.")] = _TRAIN.seed,
    data_seed: Annotated[int, typer.Option(min=0, help="Order of the training rows.")] = _TRAIN.data_seed,
    bucketed: Annotated[bool, typer.Option(help="Rows of like length in one batch.")] = _TRAIN.bucketed,
    device: DeviceOption = _TRAIN.device,
    resident: Annotated[Resident, typer.Option(help="Keep stores in the memory of the device.")] = _TRAIN.resident,
    max_tokens_per_batch: Annotated[
        int | None, typer.Option(min=1, help="Tokens computed on at a time; saves memory.")
    ] = _TRAIN.max_tokens_per_batch,
    split: Annotated[
        SplitUnit, typer.Option(help="Division of the rows: as the dataset says, or what stays together in folds.")
    ] = _SPLIT.unit,
    folds: Annotated[int, typer.Option(min=2, help="Parts that the rows are cut into, but for given.")] = _SPLIT.folds,
    fold: Annotated[int, typer.Option(min=0, help="Part that is the test set.")] = _SPLIT.fold,
    inner_folds: Annotated[int, typer.Option(min=0, help="Cut the rest again, for choices.")] = _SPLIT.inner_folds,
    inner_fold: Annotated[int, typer.Option(min=0, help="Part of the rest that is scored.")] = _SPLIT.inner_fold,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the units for early stopping, in folds.")
    ] = _SPLIT.validation_fraction,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the draw of folds.")] = _SPLIT.seed,
    split_column: Annotated[str, typer.Option(help="Column whose equal values stay together.")] = _SPLIT.column,
    similarity: Annotated[
        float, typer.Option(help="Share of equal letters from which on the proteins of two genes stay together.")
    ] = _SPLIT.similarity,
    split_tool: Annotated[SimilarityTool, typer.Option(help="What finds similar sequences.")] = _SPLIT.tool,
    finetune: Annotated[
        str | None, typer.Option(metavar="MODALITIES", help="Train the encoders of these too; others stay cached.")
    ] = None,
    from_run: Annotated[
        Path | None, typer.Option("--from", help="Frozen run whose head and settings fine-tuning begins with.")
    ] = None,
    method: Annotated[str, typer.Option(help="What learns in encoders: full, lora, or last:K blocks.")] = _TUNE.method,
    encoder_learning_rate: Annotated[float, typer.Option(help="Adam's step for encoders.")] = _TUNE.learning_rate,
    encoder_weight_decay: Annotated[float, typer.Option(help="AdamW for encoders.")] = _TUNE.weight_decay,
    lora_rank: Annotated[int, typer.Option(min=1, help="Rank of what LoRA adds.")] = _TUNE.lora_rank,
    lora_alpha: Annotated[float, typer.Option(help="LoRA's additions are scaled by alpha / rank.")] = _TUNE.lora_alpha,
    lora_dropout: Annotated[float, typer.Option(help="Dropout before LoRA's additions.")] = _TUNE.lora_dropout,
    ema: Annotated[float, typer.Option(help="Score a moving average of weights that keeps this share a step.")] = 0.0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Run blocks again in the backward pass: less memory, slower.")
    ] = False,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="MODALITY=DIR", help="Published files of an encoder that is trained.")
    ] = None,
) -> None:
    """Train one run from the cache, or encoders with it. The same command again goes on where it stopped."""
    options = locals()
    settings = _settings(options, tissue_weight or [])
    given = {
        name for name in options if str(context.get_parameter_source(name)).endswith(("COMMANDLINE", "ENVIRONMENT"))
    }
    if finetune is not None:
        _tell(train_tuned(settings, options, given))
        return
    check_unused(given)
    encoders = parse_by_modality("--encoder", encoder or [])
    from heads.train import train

    _tell(
        train(
            dataset=dataset,
            cache=cache,
            run=run,
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
    names = [name.strip() for name in flat["modalities"].split(",") if name.strip()]
    if unknown := [name for name in names if name not in MODALITIES]:
        raise UnknownNameError("modality", unknown[0], MODALITIES)
    pairs = parse_pairs("--tissue-weight", tissue_weight, "Liver=2")
    try:
        weights = {name: float(value) for name, value in pairs.items()}
    except ValueError as error:
        raise InvalidSettingError(f"--tissue-weight: {error}. Give a number, as in --tissue-weight Liver=2.") from error
    return RunSettings.from_flat({**flat, "modalities": names, "tissue_weights": weights})
