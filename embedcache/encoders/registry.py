"""From the name of an encoder to its spec, and to the encoder itself.

The spec of an encoder with drawn weights is made without ``torch``; the spec of a published one reads and
hashes its weights. Loaders are imported when their encoder is first loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from embedcache.encoders.cards import CARDS, PAPER_ENCODERS, TINY_ENCODERS, EncoderCard
from embedcache.encoders.layers import OneLayer
from embedcache.encoders.options import EncoderOptions, card_spec
from embedcache.encoders.plugins import import_place, load_plugins, named_card
from embedcache.encoders.spec import Encoder, EncoderSpec, LayeredEncoder
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.sequences import Modality, check_modality

if TYPE_CHECKING:
    from embedcache.encoders.weights import Weights

__all__ = [
    "CARDS",
    "PAPER_ENCODERS",
    "TINY_ENCODERS",
    "EncoderCard",
    "EncoderOptions",
    "Finder",
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

Finder = Callable[[EncoderCard, Modality, EncoderOptions], tuple[EncoderCard, Any]]
"""Takes a card, the modality and what the user chose; gives the card with all that the spec needs, its ``weights``
empty only if they are to be drawn, and what the loader gets in place of ``Weights``."""

_LOADERS: dict[str, Loader] = {}


def card(name: str) -> EncoderCard:
    """The card of an encoder: by its name, or by its place, ``hf:OWNER/NAME`` or ``module:Class``.

    Raises:
        UnknownNameError: No such encoder; the nearest name is offered.
        InvalidInputError: Nothing of use is at that place.
    """
    if name not in CARDS:
        load_plugins()
    if name not in CARDS and (found := named_card(name)) is not None:
        register_encoder(found)
        return found
    if name not in CARDS:
        raise UnknownNameError("encoder", name, CARDS)
    return CARDS[name]


def check_reads(found: EncoderCard, modality: Modality) -> None:
    """Raise InvalidInputError unless an encoder reads sequences of this modality."""
    if modality not in found.modalities:
        fitting = [name for name, other in CARDS.items() if modality in other.modalities]
        raise InvalidInputError(
            f"Encoder {found.name} reads {' or '.join(found.modalities)}, not {modality}. "
            f"Choose one of: {', '.join(fitting[:8])}{', ...' if len(fitting) > 8 else ''} (`embedcache encoders`)."
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


def _resolve(found: EncoderCard, modality: Modality, options: EncoderOptions) -> tuple[EncoderSpec, Any]:
    """The spec, and the weights if files hold them, read and hashed once: ``Weights``, or what the finder gave."""
    check_modality(modality)
    check_reads(found, modality)
    weights: Any = None
    if found.finder:
        finder: Finder = import_place(found.finder, f"the card of {found.name}", "its finder")
        found, weights = finder(found, modality, options)
    spec = card_spec(found, modality, **options)
    if not spec.weights:
        revision = options.get("revision") or found.revision
        spec, weights = _with_weights(replace(found, revision=revision), spec, options)
    # only the files know how many layers there are
    return layer_specs(found.name, spec, [options.get("layer", -1)])[0], weights


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


def _with_weights(found: EncoderCard, spec: EncoderSpec, options: EncoderOptions) -> tuple[EncoderSpec, "Weights"]:
    """Find and hash the published weights; their files have the last word on the architecture."""
    from embedcache.encoders.weights import find_weights, weights_digest

    weights = find_weights(found, options.get("weights"), download=options.get("download", False))
    architecture = {**spec.architecture, **weights.architecture}
    digest = weights_digest(weights.tensors)
    return replace(spec, architecture=architecture, weights=digest, revision=weights.revision), weights


def _loader(found: EncoderCard) -> Loader:
    if found.name not in _LOADERS:
        _LOADERS[found.name] = import_place(found.loader, f"the card of {found.name}", "its loader")
    return _LOADERS[found.name]
