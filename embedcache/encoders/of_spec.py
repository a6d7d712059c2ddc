"""From the spec of a store back to the encoder that its rows came from."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from embedcache.choices import StoreDtype
from embedcache.encoders.hub import typed_name
from embedcache.encoders.options import EncoderOptions
from embedcache.encoders.plugin_class import place_of
from embedcache.encoders.plugins import find_card
from embedcache.encoders.registry import load_encoder
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.errors import CacheMismatchError, InvalidSettingError

__all__ = ["card_name", "encoder_of_spec", "source_spec"]


def encoder_of_spec(
    spec: EncoderSpec, *, device: str = "cpu", weights: Path | None = None, download: bool = False
) -> Encoder:
    """Load the very encoder that a store was built with.

    Args:
        spec: Of the store.
        device: A torch device.
        weights: Directory with the published files, or run that trained it; else the hub cache is searched.
        download: Whether files that are missing may be fetched into the hub cache.

    Raises:
        InvalidSettingError: The rows came from another tool.
        CacheMismatchError: What is found now has other weights, or other settings.
        EmbedCacheError: What ``load_encoder`` raises, such as weights that are missing.
    """
    if spec.is_imported:
        raise InvalidSettingError(
            f"The {spec.modality} embeddings of {spec.name} were imported, so there is no encoder to run. "
            "Build them with `embedcache build`."
        )
    wanted = source_spec(spec)
    name, seed = card_name(wanted)
    if spec.is_tuned:
        if weights is None and find_card(name) is None:
            raise InvalidSettingError(
                f"{name} is an encoder that a run has trained, and its store does not say where that run lies. Give "
                f"the directory of the run as its weights: --weights {spec.modality}=RUN."
            )
        name, weights = f"run:{weights}" if weights else name, None
    if "code" in spec.architecture:
        raise InvalidSettingError(
            f"{name} comes with code of its own, which runs in `embedcache build --trust-remote-code` only. "
            "Choose an encoder without."
        )
    options: EncoderOptions = {**_options(wanted, seed, weights), "download": download}
    found = load_encoder(name, wanted.modality, device=device, **options)
    if different := [field for field in found.spec.differing(wanted) if field != "revision"]:
        said = "; ".join(
            f"{field} {getattr(wanted, field)!r}, now {getattr(found.spec, field)!r}" for field in different
        )
        raise CacheMismatchError(
            f"Encoder {name} is not the one of {spec.directory}: {said[:300]}. "
            "Give the directory of the weights that the store was built with."
        )
    return found


def _options(wanted: EncoderSpec, seed: int | None, weights: Path | None) -> EncoderOptions:
    options: EncoderOptions = {
        "layer": wanted.layer,
        "pooling": wanted.pooling,
        "dtype": wanted.compute_dtype,
        "store_dtype": wanted.store_dtype,
        "keep_special": wanted.special_tokens != "dropped",
        "max_tokens": wanted.max_tokens,
        "crop": wanted.crop,
    }
    if wanted.crop == "windows":
        options["overlap"] = wanted.overlap
    if seed is not None:
        options["random_init"] = seed
    if weights is not None:
        options["weights"] = weights
    if wanted.adapter.startswith("hf/") and wanted.revision:
        options["revision"] = wanted.revision
    return options


def source_spec(spec: EncoderSpec) -> EncoderSpec:
    """The spec of a store before it was converted to another number format; ``spec`` if it was not."""
    if not spec.source_dtype:
        return spec
    return replace(spec, store_dtype=cast("StoreDtype", spec.source_dtype), source_dtype="")


def card_name(spec: EncoderSpec) -> tuple[str, int | None]:
    """Name that the encoder is loaded by, and the seed of drawn weights that has to be given with it.

    ``esm2-8m-random3`` is esm2-8m with the seed 3.
    """
    seed = spec.weights.removeprefix("seed:")
    if (typed := typed_name(spec)) is not None:
        return typed[0], int(seed) if spec.weights.startswith("seed:") else None
    for suffix in (f"-random{seed}", f"-seed{seed}"):
        if spec.weights.startswith("seed:") and spec.name.endswith(suffix) and find_card(spec.name) is None:
            return spec.name.removesuffix(suffix), int(seed)
    return (find_card(spec.name) is None and place_of(spec)) or spec.name, None
