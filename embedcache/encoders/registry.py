"""From the name of an encoder to its spec, and to the encoder itself.

The spec of an encoder with drawn weights is made without ``torch``; the spec of a published one reads and
hashes its weights. Loaders are imported when their encoder is first loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from embedcache.encoders.cards import CARDS, PAPER_ENCODERS, TINY_ENCODERS, EncoderCard
from embedcache.encoders.layers import OneLayer
from embedcache.encoders.plugins import import_place, load_plugins
from embedcache.encoders.spec import ComputeDtype, Encoder, EncoderSpec, LayeredEncoder, StoreDtype
from embedcache.encoders.tokens import Crop
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.sequences import Modality

if TYPE_CHECKING:
    from embedcache.encoders.weights import Weights

__all__ = [
    "CARDS",
    "PAPER_ENCODERS",
    "TINY_ENCODERS",
    "EncoderCard",
    "EncoderOptions",
    "Loader",
    "card",
    "check_reads",
    "encoder_spec",
    "layer_specs",
    "load_encoder",
    "load_layers",
    "register_encoder",
    "registered_loader",
]

Loader = Callable[[EncoderSpec, "Weights | None", str], Encoder]
"""Takes the spec, the weights (None if they are drawn from the seed of the spec) and a torch device."""

_LOADERS: dict[str, Loader] = {}


def card(name: str) -> EncoderCard:
    """The card of an encoder.

    Raises:
        UnknownNameError: No such encoder; the nearest name is offered.
    """
    if name not in CARDS:
        load_plugins()
    if name not in CARDS:
        raise UnknownNameError("encoder", name, CARDS)
    return CARDS[name]


def check_reads(found: EncoderCard, modality: Modality) -> None:
    """Raise InvalidInputError unless an encoder reads sequences of this modality."""
    if modality not in found.modalities:
        fitting = [name for name, other in CARDS.items() if modality in other.modalities]
        raise InvalidInputError(
            f"Encoder {found.name} reads {' or '.join(found.modalities)}, not {modality}. "
            f"Choose one of: {', '.join(fitting)}."
        )


def register_encoder(new: EncoderCard, loader: Loader | None = None) -> None:
    """Make an encoder known by the name on its card, for this process.

    Args:
        new: The card. Its digest-relevant fields go into every spec made from it.
        loader: Called to load it; without one ``new.loader`` is imported.

    Raises:
        InvalidInputError: The name is taken by another encoder.
    """
    if CARDS.get(new.name, new) != new:
        raise InvalidInputError(f"Encoder {new.name!r} is already registered with another card. Choose another name.")
    CARDS[new.name] = new
    if loader is not None:
        _LOADERS[new.name] = loader


def registered_loader(name: str) -> Loader | None:
    """The function that was registered with a card; None if it is the one that the card names."""
    loader = _LOADERS.get(name)
    named = f"{getattr(loader, '__module__', '')}:{getattr(loader, '__qualname__', '')}"
    return None if named == CARDS[name].loader else loader


class EncoderOptions(TypedDict, total=False):
    """What a user can choose about an encoder; what is left out is as its card says."""

    weights: Path | None
    """Directory with the published files; the hub cache is searched without it."""
    random_init: int | None
    """Seed of drawn weights in place of published ones."""
    dtype: ComputeDtype
    """Number format of the computation, float32 by default."""
    store_dtype: StoreDtype
    """Number format in the store, float16 by default."""
    crop: Crop | None
    """What to do with input over the limit; by default the card's rule."""
    overlap: int | None
    """Tokens that neighbouring windows share at least, under the crop ``windows``; by default a quarter of one."""
    max_tokens: int | None
    """Limit without special tokens, 0 for none; by default the card's."""
    layer: int
    """Output of which block: 1 for the first, -1 (the default) for the last with its final normalisation."""
    pooling: str
    """``none`` (the default), ``mean`` or ``adaptive-<most rows>``, see ``pooling``."""


def encoder_spec(name: str, modality: Modality, **options: Unpack[EncoderOptions]) -> EncoderSpec:
    """Everything that will decide the numbers of an encoder, without loading it.

    Args:
        name: Name of a card.
        modality: Of the sequences.
        **options: See ``EncoderOptions``.

    Raises:
        EmbedCacheError: No such encoder, a setting it does not allow, weights that are missing or of another.
    """
    return _resolve(card(name), modality, options)[0]


def load_encoder(name: str, modality: Modality, *, device: str = "cpu", **options: Unpack[EncoderOptions]) -> Encoder:
    """Load an encoder, ready to embed. Arguments and errors as in ``encoder_spec``, and a torch device."""
    spec, weights = _resolve(card(name), modality, options)
    loaded = _loader(card(name))(spec, weights, device)
    return WindowedEncoder(loaded) if spec.crop == "windows" else loaded


def load_layers(
    name: str, modality: Modality, layers: Sequence[int], *, device: str = "cpu", **options: Unpack[EncoderOptions]
) -> LayeredEncoder:
    """Load an encoder once for several of its layers; ``layer_specs`` gives their specs.

    Args:
        name: Name of a card.
        modality: Of the sequences.
        layers: At least one, numbered as ``EncoderOptions.layer``, which itself is not looked at.
        device: A torch device.
        **options: See ``EncoderOptions``.

    Raises:
        EmbedCacheError: As ``encoder_spec``; or the encoder gives one layer a pass, and several are asked for.
    """
    found = card(name)
    spec, weights = _resolve(found, modality, {**options, "layer": -1})
    numbers = {one.layer for one in layer_specs(name, spec, layers)}
    deepest = -1 if -1 in numbers else max(numbers)
    loaded = _loader(found)(replace(spec, layer=deepest), weights, device)
    if not isinstance(loaded, LayeredEncoder):
        if len(numbers) > 1:
            raise InvalidSettingError(
                f"Encoder {name} gives one layer a pass, not {len(numbers)}. Ask for one layer at a time."
            )
        loaded = OneLayer(loaded)
    return WindowedEncoder(loaded) if spec.crop == "windows" else loaded


def layer_specs(name: str, spec: EncoderSpec, layers: Sequence[int]) -> list[EncoderSpec]:
    """The spec of each layer, in the order asked for; a layer under two numbers comes once.

    Args:
        name: Name of the card.
        spec: Of any layer of the encoder.
        layers: Numbered as ``EncoderOptions.layer``.

    Raises:
        InvalidSettingError: The encoder has no such layer, or no layer is asked for.
    """
    count = spec.architecture.get("layers", 1)
    if not layers:
        raise InvalidSettingError(f"No layer of {name} is asked for. Give 1 to {count}, or -1 for the last.")
    return [replace(spec, layer=number) for number in dict.fromkeys(_layer(card(name), one, count) for one in layers)]


def _resolve(found: EncoderCard, modality: Modality, options: EncoderOptions) -> tuple[EncoderSpec, "Weights | None"]:
    """The spec, and the weights if files hold them, read and hashed once."""
    spec, weights = _drawn_spec(found, modality, **options), None
    if not spec.weights:
        spec, weights = _with_weights(found, spec, options.get("weights"))
    # only the files know how many layers there are
    return layer_specs(found.name, spec, [options.get("layer", -1)])[0], weights


def _drawn_spec(
    found: EncoderCard,
    modality: Modality,
    *,
    weights: Path | None = None,
    random_init: int | None = None,
    dtype: ComputeDtype = "float32",
    store_dtype: StoreDtype = "float16",
    crop: Crop | None = None,
    overlap: int | None = None,
    max_tokens: int | None = None,
    layer: int = -1,
    pooling: str = "none",
) -> EncoderSpec:
    """The spec from the card alone; ``weights`` in it stays empty where files decide."""
    _check_choices(modality=(modality, Modality), dtype=(dtype, ComputeDtype), store_dtype=(store_dtype, StoreDtype))
    if crop is not None:
        _check_choices(crop=(crop, Crop))
    check_reads(found, modality)
    name, drawn = _seeded(found, weights, random_init)
    limit = _limit(found, max_tokens)
    # without a limit no rule changes anything, and must not make another store; windows would have no size
    rule = crop if crop == "windows" else (crop or found.crops.get(modality, "error")) if limit else "error"
    return EncoderSpec(
        name=name,
        modality=modality,
        adapter=found.adapter,
        model_id="random" if drawn else found.repository,
        weights=drawn,
        architecture=_architecture(found),
        width=found.width,
        tokens=found.tokens,
        max_tokens=limit,
        crop=rule,
        overlap=limit // 4 if overlap is None and rule == "windows" else overlap or 0,
        layer=layer,
        pooling=pooling,
        attention=found.attention,
        compute_dtype=dtype,
        store_dtype=store_dtype,
    )


def _check_choices(**chosen: tuple[str, Any]) -> None:
    for setting, (value, allowed) in chosen.items():
        if value not in get_args(allowed):
            raise UnknownNameError(setting, value, get_args(allowed))


def _architecture(found: EncoderCard) -> dict[str, Any]:
    shape = {"layers": found.layers, "heads": found.heads, "feed_forward": found.feed_forward}
    return {**{name: value for name, value in shape.items() if value}, **found.settings}


def _seeded(found: EncoderCard, weights: Path | None, seed: int | None) -> tuple[str, str]:
    """Name and ``seed:<number>`` of an encoder; the latter is empty if files hold its weights."""
    if weights is not None and (seed is not None or found.weights):
        raise InvalidSettingError(
            f"Encoder {found.name} with random weights takes no files, but {weights} is given. "
            "Leave out the directory, or the seed."
        )
    if seed is None:
        return found.name, found.weights
    if seed < 0:
        raise InvalidSettingError(f"Seed {seed} of random weights is negative. Give 0 or more.")
    if found.weights:
        return found.name if found.weights == f"seed:{seed}" else f"{found.name}-seed{seed}", f"seed:{seed}"
    return f"{found.name}-random{seed}", f"seed:{seed}"


def _limit(found: EncoderCard, wanted: int | None) -> int:
    if wanted is None:
        return found.max_tokens
    if wanted < 0 or (found.max_tokens and not 0 < wanted <= found.max_tokens):
        allowed = f"1 to {found.max_tokens}" if found.max_tokens else "0 (no limit) or more"
        raise InvalidSettingError(f"Encoder {found.name} cannot take {wanted} tokens. Give {allowed}.")
    return wanted


def _layer(found: EncoderCard, wanted: int, count: int) -> int:
    """-1 for the last of ``count`` layers, however it was named, else its number from 1."""
    layer = wanted + 1 + count if wanted < 0 else wanted
    if wanted == -1 or layer == count:
        return -1
    if not found.any_layer:
        raise InvalidSettingError(f"Encoder {found.name} gives its last layer only, not {wanted}. Give -1.")
    if not 1 <= layer < count:
        raise InvalidSettingError(f"Encoder {found.name} has no layer {wanted}. Give 1 to {count}, or -1 for the last.")
    return layer


def _with_weights(found: EncoderCard, spec: EncoderSpec, directory: Path | None) -> tuple[EncoderSpec, "Weights"]:
    """Find and hash the published weights; their files have the last word on the architecture."""
    from embedcache.encoders.weights import find_weights, weights_digest

    weights = find_weights(found, directory)
    architecture = {**spec.architecture, **weights.architecture}
    digest = weights_digest(weights.tensors)
    return replace(spec, architecture=architecture, weights=digest, revision=weights.revision), weights


def _loader(found: EncoderCard) -> Loader:
    if found.name not in _LOADERS:
        _LOADERS[found.name] = import_place(found.loader, f"the card of {found.name}", "its loader")
    return _LOADERS[found.name]
