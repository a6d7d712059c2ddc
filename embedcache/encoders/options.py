"""What a user can choose about an encoder, and the spec that follows from its card and these choices."""

from pathlib import Path
from typing import Any, TypedDict, Unpack, cast, get_args

from embedcache.choices import ComputeDtype, Crop, StoreDtype
from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.spec import EncoderSpec, SpecialTokens
from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.sequences import Modality

__all__ = ["EncoderOptions", "card_spec"]


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
    keep_special: bool
    """Whether rows of special tokens are stored too, from which later blocks can be run; not by default."""
    pooling: str
    """``none`` (the default), ``mean`` or ``adaptive-<most rows>``, see ``pooling``."""
    revision: str | None
    """Commit of the repository; without it the one on the card, else the one in the hub cache."""
    trust_remote_code: bool
    """Whether code that comes with the weights may run; only encoders named ``hf:`` have any."""
    download: bool
    """Whether published files that are missing may be fetched into the hub cache."""


_DEFAULTS: EncoderOptions = {
    "weights": None,
    "random_init": None,
    "dtype": "float32",
    "store_dtype": "float16",
    "crop": None,
    "overlap": None,
    "max_tokens": None,
    "layer": -1,
    "keep_special": False,
    "pooling": "none",
    "revision": None,
    "trust_remote_code": False,
    "download": False,
}


def card_spec(found: EncoderCard, modality: Modality, **options: Unpack[EncoderOptions]) -> EncoderSpec:
    """The spec from the card alone; ``weights`` in it stays empty where files decide.

    Raises:
        EmbedCacheError: A choice that there is not, or that the encoder does not allow.
    """
    chosen: EncoderOptions = {**_DEFAULTS, **options}
    _check_choices(
        modality=(modality, Modality),
        dtype=(chosen["dtype"], ComputeDtype),
        store_dtype=(chosen["store_dtype"], StoreDtype),
    )
    if not found.finder:
        _check_plain(found, chosen)
    name, identity = _seeded(found, chosen["weights"], chosen["random_init"])
    limit = _limit(found, chosen["max_tokens"])
    rule = _crop(found, modality, chosen["crop"], limit)
    return EncoderSpec(
        name=name,
        modality=modality,
        adapter=found.adapter,
        model_id="random" if identity.startswith("seed:") else found.repository or found.bundled,
        revision=found.revision if found.finder else "",
        weights=identity,
        architecture=_architecture(found),
        width=found.width,
        tokens=found.tokens,
        max_tokens=limit,
        crop=rule,
        overlap=limit // 4 if chosen["overlap"] is None and rule == "windows" else chosen["overlap"] or 0,
        layer=chosen["layer"],
        special_tokens=_special(found, chosen["keep_special"]),
        pooling=chosen["pooling"],
        attention=found.attention,
        compute_dtype=chosen["dtype"],
        store_dtype=chosen["store_dtype"],
    )


def _check_choices(**chosen: tuple[str, Any]) -> None:
    for setting, (value, allowed) in chosen.items():
        if value not in get_args(allowed):
            raise UnknownNameError(setting, value, get_args(allowed))


def _architecture(found: EncoderCard) -> dict[str, Any]:
    shape = {"layers": found.layers, "heads": found.heads, "feed_forward": found.feed_forward}
    return {**{name: value for name, value in shape.items() if value}, **found.settings}


def _check_plain(found: EncoderCard, chosen: EncoderOptions) -> None:
    """Refuse choices that have no meaning for an encoder whose code is ours."""
    if chosen["trust_remote_code"]:
        raise InvalidSettingError(f"Encoder {found.name} has no remote code. Leave out --trust-remote-code.")
    is_read = chosen["weights"] is None and chosen["random_init"] is None and not found.weights
    if chosen["revision"] is not None and not is_read:
        raise InvalidSettingError(
            f"Revision {chosen['revision']} is of {found.repository or 'no repository'}, which is not read where "
            "weights are drawn or lie in a directory. Leave out --revision."
        )


def _seeded(found: EncoderCard, weights: Path | None, seed: int | None) -> tuple[str, str]:
    """Name of an encoder and identity of its weights; the latter is empty if files hold them that were not read."""
    if weights is not None and (seed is not None or found.weights.startswith("seed:")):
        raise InvalidSettingError(
            f"Encoder {found.name} with random weights takes no files, but {weights} is given. "
            "Leave out the directory, or the seed."
        )
    if seed is None:
        return found.name, found.weights
    if seed < 0:
        raise InvalidSettingError(f"Seed {seed} of random weights is negative. Give 0 or more.")
    if found.weights.startswith("seed:"):
        return found.name if found.weights == f"seed:{seed}" else f"{found.name}-seed{seed}", f"seed:{seed}"
    return f"{found.name}-random{seed}", f"seed:{seed}"


def _special(found: EncoderCard, keep: bool) -> SpecialTokens:
    if not keep:
        return "dropped"
    if not any(found.special):
        raise InvalidSettingError(
            f"Encoder {found.name} has no special tokens whose rows could be kept. Leave out --keep-special."
        )
    before, after = found.special
    return cast(SpecialTokens, f"kept-{before}-{after}")


def _limit(found: EncoderCard, wanted: int | None) -> int:
    if wanted is None:
        return found.max_tokens
    if wanted < 0 or (found.max_tokens and not 0 < wanted <= found.max_tokens):
        allowed = f"1 to {found.max_tokens}" if found.max_tokens else "0 (no limit) or more"
        raise InvalidSettingError(f"Encoder {found.name} cannot take {wanted} tokens. Give {allowed}.")
    return wanted


def _crop(found: EncoderCard, modality: Modality, wanted: Crop | None, limit: int) -> Crop:
    if wanted is not None:
        _check_choices(crop=(wanted, Crop))
    if wanted == "windows" or limit:  # windows without a size are refused by the spec
        return wanted or found.crops.get(modality, "error")
    return "error"  # without a limit no rule changes anything, and must not make another store
