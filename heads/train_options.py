"""Options of ``heads train``: every setting of a run under its flat name, with the default of its dataclass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from embedcache.options import CacheOption, DatasetOption, DeviceOption
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
from heads.finetune.config import FinetuneConfig

__all__ = ["ModelOptions", "RunOption", "RunOptions", "SplitOptions", "TrainingOptions", "TuningOptions"]

RunOption = Annotated[Path, typer.Option(envvar="HEADS_RUN", help="Directory of the run.")]
_MODEL, _TRAIN, _SPLIT = ModelConfig(), TrainConfig(), SplitConfig()
_TUNE = FinetuneConfig(modalities=("rna",))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where the inputs and the run are, and which stores it reads."""

    modalities: Annotated[str, typer.Option(help="What the model reads, of dna, rna, protein.")] = ",".join(MODALITIES)
    dataset: DatasetOption = Path("dataset")
    cache: CacheOption = "cache"
    run: RunOption = Path("runs/run")
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=NAME",
            help="Store to read, where there are several: rna=nt-v2-250m. Several joined by + are layers to mix.",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The fields of ``ModelConfig``, but for the modalities."""

    aggregator: Annotated[str, typer.Option(help=f"How they are mixed: {', '.join(AGGREGATORS)}.")] = _MODEL.aggregator
    centres: Annotated[Centres, typer.Option(help="Whose tokens are updated and pooled.")] = _MODEL.centres
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of a block, queries of attention pooling.")] = (
        _MODEL.heads
    )
    rounds: Annotated[int, typer.Option(min=1, help="How often each centre reads the others.")] = _MODEL.rounds
    width: Annotated[
        int | None, typer.Option(min=1, help="Project tokens to this width first. Default: each encoder's own.")
    ] = _MODEL.width
    pre_norm: Annotated[bool, typer.Option(help="LayerNorm before each cross-attention.")] = _MODEL.pre_norm
    feed_forward: Annotated[
        int, typer.Option(min=0, help="Feed-forward layer after each cross-attention, so many widths wide; 0 for none.")
    ] = _MODEL.feed_forward
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that perceiver, c-abstractor and linear compress a modality to.")
    ] = _MODEL.tokens
    depth: Annotated[
        int | None, typer.Option(min=1, help="Layers of perceiver (2), blocks either side in c-abstractor (3).")
    ] = _MODEL.depth
    bins: Annotated[
        int, typer.Option(min=1, help="Equal parts of a sequence whose means concat and gated-sum read.")
    ] = _MODEL.bins
    pooling: Annotated[PoolingName, typer.Option(help="From tokens to a vector.")] = _MODEL.pooling
    hidden: Annotated[
        int, typer.Option(min=1, help="Width of the hidden layers of concat, gated-sum and the mlp head.")
    ] = _MODEL.hidden
    dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Dropout of concat, gated-sum and the mlp head, below 1.")
    ] = _MODEL.dropout
    head: Annotated[HeadName, typer.Option(help="From features to tissues.")] = _MODEL.head
    rank: Annotated[int, typer.Option(min=1, help="Directions that tissues share in the low-rank head.")] = _MODEL.rank
    lengths: Annotated[bool, typer.Option(help="Also give the head the log number of tokens.")] = _MODEL.lengths
    modality_dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Chance in training that a sample loses a modality.")
    ] = _MODEL.modality_dropout


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """The fields of ``TrainConfig``."""

    learning_rate: Annotated[float, typer.Option(help="Adam's step, above 0.")] = _TRAIN.learning_rate
    batch_size: Annotated[int, typer.Option(min=1, help="Transcripts a step.")] = _TRAIN.batch_size
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training rows.")] = _TRAIN.epochs
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better validation loss before the end.")] = (
        _TRAIN.patience
    )
    weight_decay: Annotated[float, typer.Option(min=0, help="0 is plain Adam, more is AdamW.")] = _TRAIN.weight_decay
    schedule: Annotated[Schedule, typer.Option(help="How the learning rate falls over all epochs.")] = _TRAIN.schedule
    warmup: Annotated[float, typer.Option(min=0, max=1, help="Share of steps over which it rises.")] = _TRAIN.warmup
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradients, above 0.")] = _TRAIN.clip
    loss: Annotated[LossName, typer.Option(help="On the z-scale, or on TPM.")] = _TRAIN.loss
    tissue_weight: Annotated[
        list[str] | None, typer.Option(metavar="TISSUE=WEIGHT", help="How much its errors count in the loss.")
    ] = None
    precision: Annotated[Precision, typer.Option(help="Of the model's matrix products.")] = _TRAIN.precision
    seed: Annotated[int, typer.Option(min=0, help="Initial weights and dropout.")] = _TRAIN.seed
    data_seed: Annotated[int, typer.Option(min=0, help="Order of the training rows.")] = _TRAIN.data_seed
    bucketed: Annotated[bool, typer.Option(help="Rows of like length in one batch.")] = _TRAIN.bucketed
    device: DeviceOption = _TRAIN.device
    resident: Annotated[Resident, typer.Option(help="Keep stores in the memory of the device.")] = _TRAIN.resident
    max_tokens_per_batch: Annotated[
        int | None, typer.Option(min=1, help="Tokens computed on at a time; saves memory.")
    ] = _TRAIN.max_tokens_per_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """The fields of ``SplitConfig``."""

    split: Annotated[
        SplitUnit, typer.Option(help="Division of the rows: as the dataset says, or what stays together in folds.")
    ] = _SPLIT.unit
    folds: Annotated[int, typer.Option(min=2, help="Parts that the rows are cut into, but for given.")] = _SPLIT.folds
    fold: Annotated[int, typer.Option(min=0, help="Part that is the test set.")] = _SPLIT.fold
    inner_folds: Annotated[int, typer.Option(min=0, help="Cut the rest again, for choices.")] = _SPLIT.inner_folds
    inner_fold: Annotated[int, typer.Option(min=0, help="Part of the rest that is scored.")] = _SPLIT.inner_fold
    validation_fraction: Annotated[float, typer.Option(help="Share of the units for early stopping, in folds.")] = (
        _SPLIT.validation_fraction
    )
    split_seed: Annotated[int, typer.Option(min=0, help="Of the draw of folds.")] = _SPLIT.seed
    split_column: Annotated[str, typer.Option(help="Column whose equal values stay together.")] = _SPLIT.column
    similarity: Annotated[
        float, typer.Option(help="Share of equal letters from which on the proteins of two genes stay together.")
    ] = _SPLIT.similarity
    split_tool: Annotated[SimilarityTool, typer.Option(help="What finds similar sequences.")] = _SPLIT.tool


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningOptions:
    """The fields of ``FinetuneConfig``, and what a fine-tuning starts from."""

    finetune: Annotated[
        str | None, typer.Option(metavar="MODALITIES", help="Train the encoders of these too; others stay cached.")
    ] = None
    from_run: Annotated[
        Path | None, typer.Option("--from", help="Frozen run whose head and settings fine-tuning begins with.")
    ] = None
    method: Annotated[str, typer.Option(help="What learns in encoders: full, lora, or last:K blocks.")] = _TUNE.method
    encoder_learning_rate: Annotated[float, typer.Option(help="Adam's step for encoders.")] = _TUNE.learning_rate
    encoder_weight_decay: Annotated[float, typer.Option(help="AdamW for encoders.")] = _TUNE.weight_decay
    lora_rank: Annotated[int, typer.Option(min=1, help="Rank of what LoRA adds.")] = _TUNE.lora_rank
    lora_alpha: Annotated[float, typer.Option(help="LoRA's additions are scaled by alpha / rank.")] = _TUNE.lora_alpha
    lora_dropout: Annotated[float, typer.Option(help="Dropout before LoRA's additions.")] = _TUNE.lora_dropout
    ema: Annotated[float, typer.Option(help="Score a moving average of weights that keeps this share a step.")] = (
        _TUNE.ema
    )
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Run blocks again in the backward pass: less memory, slower.")
    ] = _TUNE.checkpointing
    weights: Annotated[
        list[str] | None, typer.Option(metavar="MODALITY=DIR", help="Published files of an encoder that is trained.")
    ] = None
    shard: Annotated[
        bool, typer.Option("--shard", help="Share weights of encoders out among the processes of torchrun (FSDP).")
    ] = False
