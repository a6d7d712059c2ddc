"""A scikit-learn estimator around the training loop: heads on arrays of embeddings, or on rows of a cache.

Shapes: N rows, F columns, K targets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from embedcache.dataset import read_info
from embedcache.errors import CacheMismatchError, InvalidInputError, InvalidSettingError
from embedcache.place import Place, parse_place
from embedcache.sequences import MODALITIES, Modality
from heads.arrays import ColumnSource, data_of, row_numbers, select, study_of
from heads.checks import in_order
from heads.config import (
    Centres,
    HeadName,
    LossName,
    ModelConfig,
    PoolingName,
    Precision,
    Resident,
    Schedule,
    SplitConfig,
    TrainConfig,
)
from heads.fit import deterministic, fit
from heads.inference import choose_device, predict_rows
from heads.metrics import mean_defined, r2_columns
from heads.open_sources import check_encoders
from heads.parameters import check_parameters, parameters_named
from heads.run import Run
from heads.sources import TokenSource
from heads.sweep.work import Opened, source_name
from heads.train import DivergedError

__all__ = ["HeadRegressor"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_MODEL, _TRAIN, _SPLIT = ModelConfig(), TrainConfig(), SplitConfig()
_KEPT = 2  # opened datasets whose summaries of stores stay in memory for the next fit


@dataclass(kw_only=True, eq=False, repr=False)
class HeadRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Trains a head with the loop of ``heads train``; works where scikit-learn takes a regressor.

    ``X`` is one of two things.

    - **Arrays.** Without ``dataset``, ``X`` (N, F) holds one vector of each modality a row, such as pooled embeddings,
      side by side; ``blocks`` names how many columns each has. A row that lacks a modality has NaN in all of its
      columns.
    - **Rows of a cache.** With ``dataset`` and ``cache``, ``X`` (N,) or (N, 1) holds row numbers of the dataset, or
      transcript IDs. Models that need all tokens read them from the cache. What is opened, and summaries of stores
      such as means, are kept in memory for the next fit. ``y`` may be left out: then the targets of the dataset are
      learned, and scored against.

    ``y`` is (N,) or (N, K), NaN where not measured. Its z-scale is that of training rows. ``groups`` of ``fit`` (genes
    of a dataset, without them; else each row by itself) are never cut apart when rows are drawn for early stopping.
    That does not cut folds for you: give ``cross_val_score`` and the like a ``GroupKFold`` with the same groups.

    The other parameters are those of ``ModelConfig`` and ``TrainConfig``, with other defaults for two: ``aggregator``
    is ``concat``, which needs one vector of each modality only, and ``modalities`` are all that there are.

    Attributes:
        model_: The best epoch, an ``ExpressionModel``.
        scaler_: Mean and sd of each target over training rows.
        history_: Losses and validation scores, a dictionary an epoch.
        best_epoch_: From 1 on.
        stopped_: Why training ended.
        n_features_in_: F, of arrays.

    Example:
        >>> pooled = HeadRegressor(blocks={"rna": 768, "protein": 640}, hidden=256)
        >>> cross_val_score(pooled, X, y, groups=genes, cv=GroupKFold(5))
        >>> cached = HeadRegressor(dataset="dataset", cache="cache", aggregator="cross-attention", width=64)
        >>> cached.fit(train_rows).predict(["ENST00000000233.10"])
    """

    dataset: str | Path | None = None
    """Directory that ``embedcache prepare`` wrote; None where X holds embeddings."""
    cache: str | Place | None = None
    """Root of the cache that the rows of ``dataset`` are read from."""
    encoders: Mapping[Modality, str] | None = None
    """Encoder of a modality, where the cache has several; as ``--encoder``."""
    blocks: Mapping[Modality, int] | None = None
    """Columns of X of each modality, in their order; None: all of X is one block."""
    modalities: Sequence[Modality] | None = None
    """What the model reads; None: all blocks, or all that the dataset has."""
    aggregator: str = "concat"
    centres: Centres = _MODEL.centres
    heads: int = _MODEL.heads
    rounds: int = _MODEL.rounds
    width: int | None = _MODEL.width
    pre_norm: bool = _MODEL.pre_norm
    feed_forward: int = _MODEL.feed_forward
    tokens: int = _MODEL.tokens
    depth: int | None = _MODEL.depth
    bins: int = _MODEL.bins
    pooling: PoolingName = _MODEL.pooling
    hidden: int = _MODEL.hidden
    dropout: float = _MODEL.dropout
    head: HeadName = _MODEL.head
    rank: int = _MODEL.rank
    lengths: bool = _MODEL.lengths
    modality_dropout: float = _MODEL.modality_dropout
    learning_rate: float = _TRAIN.learning_rate
    batch_size: int = _TRAIN.batch_size
    epochs: int = _TRAIN.epochs
    patience: int = _TRAIN.patience
    weight_decay: float = _TRAIN.weight_decay
    schedule: Schedule = _TRAIN.schedule
    warmup: float = _TRAIN.warmup
    clip: float | None = _TRAIN.clip
    loss: LossName = _TRAIN.loss
    tissue_weights: tuple[tuple[str, float], ...] = _TRAIN.tissue_weights
    """By the names of the columns of ``y``; "0", "1", ... where it has none."""
    precision: Precision = _TRAIN.precision
    seed: int = _TRAIN.seed
    data_seed: int = _TRAIN.data_seed
    bucketed: bool = _TRAIN.bucketed
    device: str = _TRAIN.device
    resident: Resident = _TRAIN.resident
    max_tokens_per_batch: int | None = _TRAIN.max_tokens_per_batch
    validation_fraction: float = _SPLIT.validation_fraction
    """Share of the rows, in whole groups, that early stopping looks at."""
    split_seed: int = _SPLIT.seed
    """Of the draw of these groups."""
    verbose: bool = False
    """Show progress."""

    @parameters_named()
    def fit(self, X: ArrayLike, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:  # noqa: N803
        """Train, and keep the epoch with the lowest validation loss. The same arguments give the same numbers.

        Args:
            X: (N, F), or rows of the dataset.
            y: (N,) or (N, K), NaN where not measured; None for the targets of the dataset.
            groups: (N,), what stays together when validation rows are drawn.

        Raises:
            ValueError: Arrays that scikit-learn or the settings do not take.
            CacheError: A store is missing or lacks sequences.
            DivergedError: The loss became infinite in the first epoch.
        """
        check_parameters(self.get_params(deep=False))
        config, device = self._config(TrainConfig), choose_device(self.device)
        SplitConfig(unit="gene", validation_fraction=self.validation_fraction, seed=self.split_seed)  # checks both
        sources, n_rows, rows = self._sources(X, y, is_fit=True)
        model = self._config(ModelConfig, modalities=tuple(sources))
        targets, self._is_single = self._targets(y, n_rows, rows)
        study = study_of(
            sources, targets, self._groups(groups, n_rows, rows),
            validation_fraction=self.validation_fraction, seed=self.split_seed,
        )  # fmt: skip
        run = Run(model, config, study=study, device=device)
        with deterministic(device):
            fit([run], study, lambda _: None, title="fit", quiet=not self.verbose)
        if not run.best_epoch:
            raise DivergedError(
                f"{run.stopped} in epoch {run.epoch}, before any model could be kept. "
                f"Use a learning_rate below {config.learning_rate:g}."
            )
        run.model.load_state_dict(run.best)
        self.model_, self.scaler_ = run.model.cpu().eval(), study.scaler
        self.history_, self.best_epoch_, self.stopped_ = run.history, run.best_epoch, run.stopped
        self._stores = _stores(sources)
        return self

    @parameters_named()
    def predict(self, X: ArrayLike) -> Array:  # noqa: N803
        """Predictions in the units of ``y``, (N,) or (N, K) as ``y`` was.

        Raises:
            CacheMismatchError: The cache now means another store than the model was trained on.
        """
        check_is_fitted(self)
        check_parameters(self.get_params(deep=False))
        sources, n_rows, _ = self._sources(X)
        if (found := _stores(sources)) != self._stores:
            raise CacheMismatchError(
                f"The model was trained on {', '.join(self._stores)}, and {self.cache} now gives {', '.join(found)}. "
                "Name those stores in encoders, or fit again."
            )
        device = choose_device(self.device)
        with deterministic(device):
            model = self.model_.to(device)
            scaled = predict_rows(model, data_of(sources, n_rows), np.arange(n_rows), self._config(TrainConfig))
            model.cpu()  # a pickle must open where there is no such device
        found_y = self.scaler_.undo(scaled)
        return found_y[:, 0] if self._is_single else found_y

    @parameters_named()
    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:  # noqa: N803
        """R2 of each target over its measured rows, mean over targets that vary; NaN if none does."""
        predicted = self.predict(X)
        rows = None if self.dataset is None else row_numbers(self._opened().dataset, X)
        targets, _ = self._targets(y, len(predicted), rows)
        return mean_defined(r2_columns(targets.to_numpy(), predicted.reshape(len(predicted), -1)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.dataset is None
        tags.target_tags.multi_output = True
        tags.input_tags.two_d_array = self.dataset is None
        tags.input_tags.one_d_array = tags.input_tags.string = self.dataset is not None
        tags.input_tags.allow_nan = self.dataset is None and self.blocks is not None
        return tags

    def _config(self, cls: Any, **changes: Any) -> Any:
        """The parameters that are settings of a model or a training."""
        return cls(**{item.name: getattr(self, item.name) for item in fields(cls)} | changes)

    def _chosen(self, default: Iterable[Modality]) -> tuple[Modality, ...]:
        """What the model reads."""
        return in_order(cast(Any, default if self.modalities is None else self.modalities), "modalities are")

    def _opened(self) -> Opened:
        info = read_info(Path(cast(str, self.dataset)))
        return _open(str(Path(cast(str, self.dataset)).absolute()), str(info["files"]), str(self.cache))

    def _sources(
        self, X: ArrayLike, y: ArrayLike | None = None, *, is_fit: bool = False,  # noqa: N803
    ) -> tuple[dict[Modality, TokenSource], int, Rows | None]:  # fmt: skip
        """What is read, how many rows there are, and which of the dataset they are."""
        if self.dataset is None:
            return *self._columns(X, y, is_fit), None
        opened = self._opened()
        rows, encoders = row_numbers(opened.dataset, X), self.encoders or {}
        chosen = self._chosen(opened.dataset.modalities)
        check_encoders(encoders, chosen)
        sources = {m: select(opened.source(m, encoders.get(m), chosen), rows) for m in chosen}
        return sources, len(rows), rows

    def _columns(self, X: ArrayLike, y: Any, is_fit: bool) -> tuple[dict[Modality, TokenSource], int]:  # noqa: N803
        """Blocks of an array."""
        if is_fit and y is None:
            raise InvalidInputError(
                "HeadRegressor requires y to be passed, but the target y is None. Give y, or a dataset with targets."
            )
        values = validate_data(
            self, X, reset=is_fit, dtype=np.float32, copy=True, ensure_min_samples=2 if is_fit else 1,
            ensure_all_finite=True if self.blocks is None else "allow-nan",
        )  # fmt: skip
        only = self._chosen(MODALITIES[1:2])[0]
        blocks = {only: values.shape[1]} if self.blocks is None else self.blocks
        chosen = self._chosen(blocks)
        if sum(blocks.values()) != values.shape[1] or not {*chosen} <= {*blocks}:
            raise InvalidSettingError(
                f"blocks are {dict(blocks)}, modalities {', '.join(chosen)} and X has {values.shape[1]} columns. "
                "Give each modality its number of columns, in their order, all columns together."
            )
        ends = dict(zip(blocks, np.cumsum(list(blocks.values())).tolist(), strict=True))
        return {m: ColumnSource(values[:, ends[m] - blocks[m] : ends[m]], m) for m in chosen}, len(values)

    def _targets(self, y: ArrayLike | None, n_rows: int, rows: Rows | None) -> tuple[pd.DataFrame, bool]:
        """Targets (N, K) by name, and whether they were one column without a second dimension."""
        if y is None and rows is not None:
            known = self._opened().dataset
            if known.targets is None:
                raise InvalidInputError(f"{known.path} has no targets. Give y.")
            return known.targets.astype(np.float64).iloc[rows].reset_index(drop=True), False
        values = check_array(y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
        if len(values) != n_rows:
            raise InvalidInputError(f"X has {n_rows} rows and y has {len(values)}. Give a target for each row.")
        names = getattr(y, "columns", range(1 if values.ndim == 1 else values.shape[1]))
        return pd.DataFrame(values.reshape(n_rows, -1), columns=[str(name) for name in names]), values.ndim == 1

    def _groups(self, groups: ArrayLike | None, n_rows: int, rows: Rows | None) -> list[str]:
        """Name of the group of each row."""
        if groups is None and rows is not None:
            groups = self._opened().dataset.samples["gene_id"].iloc[rows].tolist()
        names = list(range(n_rows)) if groups is None else np.asarray(groups).ravel().tolist()
        if len(names) != n_rows:
            raise InvalidInputError(f"X has {n_rows} rows and groups has {len(names)}. Give a group for each row.")
        return [str(name) for name in names]


@lru_cache(maxsize=_KEPT)
def _open(dataset: str, content: str, cache: str) -> Opened:
    """A dataset and a cache; ``content`` tells a dataset that was written anew from the one in memory."""
    return Opened.open(Path(dataset), parse_place(cache))


def _stores(sources: Mapping[Modality, TokenSource]) -> tuple[str, ...]:
    """Names of the stores that sources are read from; none of arrays."""
    return tuple(source_name(cast(Any, one)) for one in sources.values() if not isinstance(one, ColumnSource))
