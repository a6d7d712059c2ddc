"""What a user runs to get sequences into a store that lacks them: the command with all settings of its spec."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import cast

from embedcache.encoders.hub import typed_name
from embedcache.encoders.plugin_class import place_of
from embedcache.encoders.plugins import find_card
from embedcache.encoders.spec import EncoderSpec, StoreDtype
from embedcache.place import Place

__all__ = ["how_to_fill"]


def how_to_fill(spec: EncoderSpec, dataset: Path, cache: str | Place) -> str:
    """One sentence with the commands that bring the sequences of a dataset into the store of a spec.

    Published weights that lie in a directory of the user's need --weights as well: a spec knows their digest only.

    Args:
        spec: Of the store, there or not.
        dataset: Directory of the dataset.
        cache: Root of the cache.
    """
    where = f"--cache {shlex.quote(str(cache))}"
    if spec.is_imported:
        kind = spec.adapter.removeprefix("imported/")
        return (
            f"Run `embedcache import --format {kind} --modality {spec.modality} --encoder {spec.name} --input ... "
            f"--dataset {shlex.quote(str(dataset))} {where}` as for the first sequences of this store."
        )
    if spec.source_dtype:
        source = replace(spec, store_dtype=cast("StoreDtype", spec.source_dtype), source_dtype="")
        convert = (
            f"embedcache convert --modality {spec.modality} --encoder {source.directory} --store-dtype "
            f"{spec.store_dtype} {where}"
        )
        return f"Run `{_build(source)} --dataset {shlex.quote(str(dataset))} {where}`, then `{convert}`."
    return f"Run `{_build(spec)} --dataset {shlex.quote(str(dataset))} {where}`."


def _build(spec: EncoderSpec) -> str:
    """``embedcache build`` with what the spec has and the defaults of its encoder have not."""
    name, flags = _card_name(spec)
    known = find_card(name)
    limit = known.max_tokens if known else 0
    rule = known.crops.get(spec.modality, "error") if known and spec.max_tokens else "error"
    settings = {
        "layer": (spec.layer, -1),
        "pooling": (spec.pooling, "none"),
        "dtype": (spec.compute_dtype, "float32"),
        "store-dtype": (spec.store_dtype, "float16"),
        "max-tokens": (spec.max_tokens, limit),
        "crop": (spec.crop, rule),
        "overlap": (spec.overlap, spec.max_tokens // 4 if spec.crop == "windows" else 0),
    }
    flags += [f"--{option} {value}" for option, (value, default) in settings.items() if value != default]
    return " ".join([f"embedcache build --modality {spec.modality} --encoder {name}", *flags])


def _card_name(spec: EncoderSpec) -> tuple[str, list[str]]:
    """Name of the card, and the option for drawn weights: ``esm2-8m-random3`` is esm2-8m with --random-init 3."""
    if (typed := typed_name(spec)) is not None:
        return typed
    seed = spec.weights.removeprefix("seed:")
    for suffix in (f"-random{seed}", f"-seed{seed}"):
        if spec.weights.startswith("seed:") and spec.name.endswith(suffix) and find_card(spec.name) is None:
            return spec.name.removesuffix(suffix), [f"--random-init {seed}"]
    return (find_card(spec.name) is None and place_of(spec)) or spec.name, []
