"""Which encoder an import claims to hold, as a spec that differs from any that we compute ourselves.

Its adapter is ``imported/<format>`` and its weights ``claimed:<words>``: nobody could check them. So an imported store
has another digest than a built one of the same settings, and imports with other words have another one again.
"""

import re
from dataclasses import dataclass, replace

from embedcache.choices import ComputeDtype, Crop, FormatName, StoreDtype
from embedcache.encoders.cards import CARDS
from embedcache.encoders.plugins import find_card
from embedcache.encoders.registry import encoder_spec
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import count_tokens
from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.exchange.formats import EmbeddingFile, Entry
from embedcache.sequences import Modality

__all__ = ["KEPT_AS", "Claim", "claimed_spec", "layers_of"]

CLAIMED = "claimed:"
KEPT_AS: dict[str, StoreDtype] = {
    "float32": "float32",
    "float64": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
"""Number formats of an input, and the one that a store keeps them in."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a user says of embeddings that another tool computed. None: as in the file if it is ours, else the card."""

    encoder: str
    """Name of a card, or of an encoder that has none; that needs ``tokens``."""
    tokens: str | None = None
    """Rule from letters to tokens of an encoder without a card."""
    source: str = ""
    """Words that tell these embeddings from others of the encoder, such as program and version."""
    layer: int | None = None
    dtype: ComputeDtype | None = None
    crop: Crop | None = None
    max_tokens: int | None = None
    store_dtype: StoreDtype | None = None
    """Number format to keep; None keeps that of the file."""


def layers_of(encoder: str) -> int:
    """Layers of an encoder, 0 if it has no card."""
    known = find_card(encoder)
    return known.layers if known else 0


def claimed_spec(
    claim: Claim, file: EmbeddingFile, first: Entry, *, file_format: FormatName, modality: Modality
) -> EncoderSpec:
    """The spec of the store that an import makes.

    Args:
        claim: What the user says.
        file: What the input says, if we wrote it; the layer that was chosen from it, if it names layers.
        first: An embedding of the input: its width, and whether it is pooled.
        file_format: Of the input.
        modality: Of the sequences.

    Raises:
        EmbedCacheError: The claim contradicts the record, the card or the embeddings.
    """
    store_dtype = _store_dtype(claim, first)
    if file.record is not None:
        base = _from_record(claim, file.record, modality)
    else:
        base = _from_card(claim, modality, first, file.layer)
    width, pooled = first.shape[-1], len(first.shape) == 1
    if width != base.width:
        raise InvalidInputError(
            f"{first.where} has width {width}, {claim.encoder} has {base.width}. Name the right --encoder."
        )
    return replace(
        base,
        adapter=f"imported/{file_format}",
        weights=CLAIMED + (claim.source or base.weights.removeprefix(CLAIMED)),
        pooling="mean" if pooled else "none",
        store_dtype=store_dtype,
        source_dtype="",
    )


def _store_dtype(claim: Claim, first: Entry) -> StoreDtype:
    """What the user asks for, else what the file has; float64 becomes float32."""
    if first.dtype not in KEPT_AS:
        raise InvalidInputError(f"{first.where} holds {first.dtype}, expected floating-point numbers. Give embeddings.")
    wanted = claim.store_dtype or KEPT_AS[first.dtype]
    if wanted not in KEPT_AS.values():
        raise InvalidSettingError(f"An import keeps float32, float16 or bfloat16, not {wanted}. Choose one of them.")
    return wanted


def _from_record(claim: Claim, record: EncoderSpec, modality: Modality) -> EncoderSpec:
    said = {
        "modality": modality,
        "name": claim.encoder,
        "tokens": claim.tokens,
        "layer": claim.layer,
        "compute_dtype": claim.dtype,
        "crop": claim.crop,
        "max_tokens": claim.max_tokens,
    }
    n_layers = int(record.architecture.get("layers", 0))
    if n_layers and claim.layer in (n_layers, -1):
        said["layer"] = -1
    for field, value in said.items():
        if value is not None and value != getattr(record, field):
            raise InvalidInputError(
                f"The file says that its {'encoder' if field == 'name' else field.replace('_', ' ')} is "
                f"{getattr(record, field)!r}, not {value!r}. Claim what it says"
                f"{'.' if field == 'name' else ', or leave the option out.'}"
            )
    return record


def _from_card(claim: Claim, modality: Modality, first: Entry, layer: int | None) -> EncoderSpec:
    chosen = claim.layer if layer is None else layer
    if (known := find_card(claim.encoder)) is None:
        return _without_card(claim, modality, first, chosen)
    if claim.tokens not in (None, known.tokens):
        raise InvalidSettingError(
            f"Encoder {claim.encoder} has tokens {known.tokens!r}, not {claim.tokens!r}. Leave out --tokens."
        )
    is_drawn = bool(known.weights)
    spec = encoder_spec(
        claim.encoder,
        modality,
        random_init=None if is_drawn else 0,  # so that no weights are looked for
        dtype=claim.dtype or "float32",
        crop=claim.crop,
        max_tokens=claim.max_tokens,
        layer=-1 if chosen is None else chosen,
    )
    if is_drawn:
        return spec
    return replace(spec, name=claim.encoder, model_id=known.repository, weights=CLAIMED + known.repository)


def _without_card(claim: Claim, modality: Modality, first: Entry, layer: int | None) -> EncoderSpec:
    if claim.tokens is None:
        raise InvalidInputError(
            f"{UnknownNameError('encoder', claim.encoder, CARDS)} To import an encoder that is not listed, say how it "
            "cuts letters into tokens: --tokens letter, nt-6mer, codon or bins-<letters>."
        )
    if not _NAME.fullmatch(claim.encoder) or len(claim.encoder) > 100:
        raise InvalidSettingError(
            f"Encoder name {claim.encoder!r} becomes a directory. Write it in up to 100 letters, digits, dots, "
            "underscores and dashes."
        )
    count_tokens("A", claim.tokens)  # raises UnknownNameError for a rule that does not exist
    limit = claim.max_tokens or 0
    return EncoderSpec(
        name=claim.encoder,
        modality=modality,
        adapter="",
        model_id=claim.encoder,
        weights=CLAIMED + claim.encoder,
        width=first.shape[-1],
        tokens=claim.tokens,
        max_tokens=limit,
        crop=(claim.crop or "error") if limit else "error",
        layer=-1 if layer is None else layer,
        attention="padded",
        compute_dtype=claim.dtype or "float32",
    )
