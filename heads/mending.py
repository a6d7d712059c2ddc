"""What a user runs to get sequences into a store that lacks them: the command with all settings of its spec."""

import shlex
from pathlib import Path

from embedcache.encoders.hub import typed_name
from embedcache.encoders.of_spec import card_name, source_spec
from embedcache.encoders.plugins import find_card
from embedcache.encoders.spec import EncoderSpec
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
        source = source_spec(spec)
        convert = (
            f"embedcache convert --modality {spec.modality} --encoder {source.directory} --store-dtype "
            f"{spec.store_dtype} {where}"
        )
        return f"Run `{_build(source)} --dataset {shlex.quote(str(dataset))} {where}`, then `{convert}`."
    return f"Run `{_build(spec)} --dataset {shlex.quote(str(dataset))} {where}`."


def _build(spec: EncoderSpec) -> str:
    """``embedcache build`` with what the spec has and the defaults of its encoder have not."""
    name, flags = typed_name(spec) or _named(spec)
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
    flags += ["--keep-special"] if spec.special_tokens != "dropped" else []
    source = "--from-run RUN" if spec.is_tuned else f"--encoder {name}"  # a spec does not know where the run lies
    return " ".join([f"embedcache build --modality {spec.modality} {source}", *flags])


def _named(spec: EncoderSpec) -> tuple[str, list[str]]:
    name, seed = card_name(spec)
    return name, [] if seed is None else [f"--random-init {seed}"]
