"""An encoder that a run has trained, as one that ``embedcache build`` runs: ``run:DIRECTORY``.

``embedcache`` finds ``run_card`` by the entry point ``run`` of the group ``embedcache.places``. The weights of the run
(those of LoRA are added to the layers that they belong to) have a digest of their own, so that what is built with them
is a store of its own, from which ablations go on.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from embedcache.encoders.bins import BinEncoder
from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.of_spec import card_name
from embedcache.encoders.options import EncoderOptions
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import card
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.encoders.weights import cast_weights, weights_digest
from embedcache.errors import InvalidSettingError
from embedcache.sequences import Modality
from heads.finetune.encoder import TunedEncoder
from heads.trained import TrainedRun, load_trained

__all__ = ["Merged", "find", "load", "merge", "merged_encoder", "run_card"]

PREFIX = "run:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A trained encoder with all its weights in place."""

    spec: EncoderSpec
    """Of the store that training began with."""
    core: Any
    """The encoder that ran it: its kind, its vocabulary."""
    model: nn.Module
    """In float32."""


def run_card(name: str) -> EncoderCard:
    """What can be said of ``run:DIRECTORY`` before its weights are read.

    Raises:
        CheckpointError: There is no finished run.
        InvalidSettingError: None of its encoders was trained.
    """
    run = load_trained(name.removeprefix(PREFIX), "cpu")
    modalities = _tuned(run)
    first = EncoderSpec.from_json(run.description["specs"][modalities[0]])
    base = card(card_name(first)[0])
    return replace(
        base,
        name=f"tuned-{_plain(run.directory.path.resolve().name)}",
        repository=str(run.directory.path.absolute()),
        modalities=modalities,
        loader="heads.finetune.cached:load",
        finder="heads.finetune.cached:find",
        bundled="",
        weights="own",
    )


def find(found: EncoderCard, modality: Modality, options: EncoderOptions) -> tuple[EncoderCard, Merged]:
    """The card of one trained encoder of a run, and its weights; see ``registry.Finder``.

    Raises:
        InvalidSettingError: It was trained behind an inner layer, or drawn weights are asked for.
    """
    if options.get("random_init") is not None:
        raise InvalidSettingError(f"{found.name} has weights of its own. Leave out --random-init.")
    run = load_trained(found.repository, "cpu")
    merged = merged_encoder(run, modality, options.get("weights"))
    spec = merged.spec
    if spec.layer != -1:
        raise InvalidSettingError(
            f"The {modality} encoder of {run.directory.path} was trained behind layer {spec.layer}, and only whole "
            "ones can be cached. Fine-tune a run on the last layer."
        )
    base = card(card_name(spec)[0])
    kept = ("layers", "heads", "feed_forward")
    shape = {name: value for name, value in spec.architecture.items() if name not in kept}
    return replace(
        base,
        name=found.name,
        modalities=(modality,),
        adapter=f"tuned/{spec.adapter}",
        loader=found.loader,
        **{name: spec.architecture.get(name, 0) for name in kept},
        settings=shape,
        max_tokens=spec.max_tokens,
        crops={modality: spec.crop},
        weights=weights_digest(merged.model.state_dict()),
        bundled="",
        repository=spec.model_id,
    ), merged


def load(spec: EncoderSpec, weights: Any, device: str) -> Encoder:
    """The encoder in the settings of the spec; ``weights`` is what ``find`` gave."""
    assert isinstance(weights, Merged)
    model = cast_weights(weights.model, _dtype(spec))
    if isinstance(weights.core, BinEncoder):
        return BinEncoder(spec, model, device)
    assert isinstance(weights.core, PackedEncoder)
    return PackedEncoder(spec, model, weights.core.vocabulary, device, weights.core.network)


def merged_encoder(run: TrainedRun, modality: Modality, weights: Path | None = None) -> Merged:
    """The trained encoder of a run, its adapters added to the layers that they belong to.

    Args:
        run: A fine-tuned one.
        modality: Whose encoder was trained.
        weights: Directory with the published files that training began with.

    Raises:
        InvalidSettingError: It was not trained.
    """
    if modality not in _tuned(run):
        raise InvalidSettingError(
            f"The {modality} encoder of {run.directory.path} was not trained, only that of {', '.join(_tuned(run))}."
        )
    return merge(run.encoder(modality, weights))


def merge(tuned: TunedEncoder) -> Merged:
    """An encoder with its adapters added in; ``tuned`` is used up."""
    model = tuned.model if tuned.adapter is None else tuned.adapter.merge_and_unload()
    for parameter in model.parameters():  # peft writes behind the back of torch, which laid-out copies would not see
        parameter.data = parameter.data.clone()
    return Merged(spec=tuned.spec, core=tuned.core, model=model)


def _tuned(run: TrainedRun) -> tuple[Modality, ...]:
    if run.finetune is None:
        raise InvalidSettingError(
            f"{run.directory.path} trained no encoder: it has those of its cache. Give one of `heads train --finetune`."
        )
    return run.finetune.modalities


def _plain(name: str) -> str:
    return re.sub("[^A-Za-z0-9._]+", "-", name).strip("-.") or "run"


def _dtype(spec: EncoderSpec) -> Any:
    import torch

    return getattr(torch, spec.compute_dtype)
