"""What fine-tuning opens before it starts: the frozen run it comes from, encoders, and the rows of inner layers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.weights import weights_digest
from embedcache.errors import InvalidSettingError
from embedcache.place import Place
from embedcache.sequences import Modality
from embedcache.store import EmbeddingStore, list_stores
from embedcache.store.files import open_files
from embedcache.store.layout import read_layout
from heads.config import ModelConfig, TrainConfig
from heads.data import CachedDataset
from heads.finetune.config import FinetuneConfig
from heads.finetune.encoder import TunedEncoder
from heads.finetune.live import InnerSource, LiveRows, RowsOnly
from heads.finetune.run import TunedRun
from heads.mending import how_to_fill
from heads.open_sources import layers_of
from heads.rng import PrivateRng
from heads.setup import Study
from heads.sources import TokenSource
from heads.team import Alone
from heads.trained import TrainedRun

__all__ = ["Start", "describe_tuning", "open_tuned"]

log = logging.getLogger(__name__)

_EXACT = ("float32", "float16", "bfloat16", "int8")
"""Number formats of stores, the most exact first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a fine-tuning begins."""

    finetune: FinetuneConfig
    frozen: TrainedRun | None = None
    """The run whose head it begins with; None for a new head."""
    weights: Mapping[Modality, Path] | None = None
    """Directories with published files, by modality; the hub cache is searched for others."""
    shard: bool = False
    """Share the weights of the encoders out among the processes of a team. Numbers are the same but for rounding."""


def open_tuned(
    model: ModelConfig,
    config: TrainConfig,
    *,
    study: Study,
    device: torch.device,
    start: Start,
    team: Alone | None = None,
) -> tuple[TunedRun, Study]:
    """Load the encoders that are trained, and put them in place of their stores.

    Returns:
        The run, and the study whose batches it reads.

    Raises:
        InvalidSettingError: A modality that the model does not read, layers that are mixed, an encoder that cannot be
            trained in this way, or a frozen run of other settings.
        EmbedCacheError: Weights are missing, or others than those of the store.
    """
    finetune, team = start.finetune, team or Alone()
    if start.shard and team.size == 1:
        raise InvalidSettingError(
            "--shard shares weights out among processes, and this one is alone. Start several with torchrun or "
            "`accelerate launch`, or leave it out."
        )
    if unread := [m for m in finetune.modalities if m not in model.modalities]:
        raise InvalidSettingError(
            f"--finetune names {unread[0]}, which is not read. Add it to --modalities, or leave it out."
        )
    if mixed := [m for m in finetune.modalities if len(layers_of(study.sources[m])) > 1]:
        raise InvalidSettingError(
            f"--finetune {mixed[0]}: the run mixes layers of its encoder, and only one can be trained through. Name "
            "one layer with --encoder."
        )
    encoders, sources = {}, dict(study.data.sources)
    for modality in finetune.modalities:
        (layer,) = layers_of(study.sources[modality])
        with PrivateRng(config.seed, device).active():  # adapters are drawn
            weights = (start.weights or {}).get(modality)
            among = team if start.shard else None
            encoders[modality] = TunedEncoder(layer.store.spec, finetune, device, weights, among=among)
        sources[modality] = _source(study, modality, encoder=encoders[modality], store=layer.store, last=finetune.last)
    data = CachedDataset(study.dataset, sources, study.scaler)
    tuned = replace(study, data=data)
    run = TunedRun(model, config, study=tuned, device=device, finetune=finetune, encoders=encoders, team=team)
    if start.frozen is not None:
        run.model.load_state_dict(start.frozen.model.state_dict())
        run.measured = True
    return run, tuned


def describe_tuning(described: Mapping[str, Any], run: TunedRun, start: Start) -> dict[str, Any]:
    """What ``config.json`` says of a frozen run, and what is trained besides."""
    said: dict[str, Any] = start.finetune.to_json()
    said["inner"] = {modality: source.store.spec.directory for modality, source in run.inner.items()}
    said["parameters"] = {m: sum(one.numel() for one in e.trained.values()) for m, e in run.encoders.items()}
    said["weights"] = {m: str(place.absolute()) for m, place in (start.weights or {}).items()}
    if start.frozen is not None:
        frozen = start.frozen
        said["from"] = {
            "run": str(frozen.directory.path.absolute()),
            "best_epoch": frozen.best_epoch,
            "weights": weights_digest(frozen.model.state_dict()),
        }
    label = f"fine-tuned ({start.finetune.method}): {', '.join(start.finetune.modalities)}"
    return {**described, "finetune": said, "labels": [*described["labels"], label]}


def _source(
    study: Study, modality: Modality, *, encoder: TunedEncoder, store: EmbeddingStore, last: int | None
) -> TokenSource:
    """Rows of the layer below those that are trained, where the cache has them; else nothing but lengths."""
    if last is not None and encoder.n_blocks is not None and last < encoder.n_blocks:
        cache, done = store.root.parent.parent, encoder.n_blocks - last
        inner = _inner_store(cache, store.spec, done)
        if inner is not None:
            return InnerSource(inner, study.dataset.keys(modality), how_to_fill(inner.spec, study.dataset.path, cache))
        wanted = replace(store.spec, layer=done, pooling="none", special_tokens="kept-1-1")
        log.warning(
            "%s: the first %d of %d blocks are not trained and run in every step. To run them once, build this before "
            "a training begins: %s",
            *(modality, done, encoder.n_blocks, how_to_fill(wanted, study.dataset.path, cache).removeprefix("Run ")),
        )
    return RowsOnly(LiveRows(encoder, study.dataset, modality))


def _inner_store(cache: Place, wanted: EncoderSpec, done: int) -> EmbeddingStore | None:
    """A store of layer ``done`` with special tokens: same weights and input, the most exact number format there is."""
    free = {"layer", "special_tokens", "pooling", "store_dtype", "source_dtype", "compute_dtype"}
    found = []
    for place in list_stores(cache, wanted.modality):
        spec = read_layout(open_files(place)).spec
        is_inner = spec.special_tokens != "dropped" and spec.layer == done
        if is_inner and not set(spec.differing(wanted)) - free:
            found.append((_EXACT.index(spec.store_dtype), place))
    return EmbeddingStore.open(min(found)[1]) if found else None
