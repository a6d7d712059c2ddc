"""From the name of an encoder to its spec, and to the encoder itself.

The spec of an encoder with drawn weights is made without ``torch``; the spec of a published one reads and
hashes its weights. Loaders are imported when their encoder is first loaded.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from embedcache.encoders.cards import CARDS, PAPER_ENCODERS, TINY_ENCODERS, EncoderCard
from embedcache.encoders.spec import ComputeDtype, Encoder, EncoderSpec, StoreDtype
from embedcache.encoders.tokens import Crop
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
    "load_encoder",
    "register_encoder",
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
    max_tokens: int | None
    """Limit without special tokens, 0 for none; by default the card's."""
    layer: int
    """Output of which block: 1 for the first, -1 (the default) for the last with its final normalisation."""


def encoder_spec(name: str, modality: Modality, **options: Unpack[EncoderOptions]) -> EncoderSpec:
    """Everything that will decide the numbers of an encoder, without loading it.

    Args:
        name: Name of a card.
        modality: Of the sequences.
        **options: See ``EncoderOptions``.

    Raises:
        EmbedCacheError: No such encoder, a setting it does not allow, weights that are missing or of another.
    """
    spec = _drawn_spec(card(name), modality, **options)
    return spec if spec.weights else _with_weights(card(name), spec, options.get("weights"))[0]


def load_encoder(name: str, modality: Modality, *, device: str = "cpu", **options: Unpack[EncoderOptions]) -> Encoder:
    """Load an encoder, ready to embed. Arguments and errors as in ``encoder_spec``, and a torch device."""
    found = card(name)
    spec, tensors = _drawn_spec(found, modality, **options), None
    if not spec.weights:
        spec, tensors = _with_weights(found, spec, options.get("weights"))
    return _loader(found)(spec, tensors, device)


def _drawn_spec(
    found: EncoderCard,
    modality: Modality,
    *,
    weights: Path | None = None,
    random_init: int | None = None,
    dtype: ComputeDtype = "float32",
    store_dtype: StoreDtype = "float16",
    crop: Crop | None = None,
    max_tokens: int | None = None,
    layer: int = -1,
) -> EncoderSpec:
    """The spec from the card alone; ``weights`` in it stays empty where files decide."""
    _check_choices(dtype=(dtype, ComputeDtype), store_dtype=(store_dtype, StoreDtype))
    check_reads(found, modality)
    name, drawn = _seeded(found, weights, random_init)
    limit = _limit(found, max_tokens)
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
        # without a limit the rule changes nothing, and must not make another store
        crop=(crop or found.crops.get(modality, "error")) if limit else "error",
        layer=_layer(found, layer),
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


def _layer(found: EncoderCard, wanted: int) -> int:
    """-1 for the last layer, however it was named, else its number from 1."""
    layer = wanted + 1 + found.layers if wanted < 0 else wanted
    if wanted == -1 or layer == found.layers:
        return -1
    if not found.any_layer:
        raise InvalidSettingError(f"Encoder {found.name} gives its last layer only, not {wanted}. Give -1.")
    if not 1 <= layer < found.layers:
        raise InvalidSettingError(
            f"Encoder {found.name} has no layer {wanted}. Give 1 to {found.layers}, or -1 for the last."
        )
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
        module, _, function = found.loader.partition(":")
        _LOADERS[found.name] = getattr(import_module(module), function)
    return _LOADERS[found.name]
