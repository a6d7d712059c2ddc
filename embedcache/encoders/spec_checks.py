"""Which settings of an encoder do not go together. Imports nothing slow."""

from typing import TYPE_CHECKING

from embedcache.encoders.pooling import most_pooled
from embedcache.errors import InvalidSettingError

if TYPE_CHECKING:
    from embedcache.encoders.spec import EncoderSpec

__all__ = ["check_settings"]


def check_settings(spec: "EncoderSpec") -> None:
    """Refuse settings that do not go together.

    Raises:
        InvalidSettingError: Unknown pooling, a negative limit, windows without a size, an overlap over it, special
            tokens of pooled rows.
    """
    most_pooled(spec.pooling)
    if spec.max_tokens < 0:
        raise InvalidSettingError(f"A limit of {spec.max_tokens} tokens is negative. Give 0 for no limit, or more.")
    if spec.crop == "windows":
        _check_windows(spec)
    if spec.crop != "windows" and spec.overlap:
        raise InvalidSettingError(
            f"An overlap of {spec.overlap} tokens needs windows, but the crop is {spec.crop}. "
            "Choose --crop windows, or give no overlap."
        )
    if spec.special_tokens != "dropped" and (spec.pooling != "none" or spec.crop == "windows"):
        raise InvalidSettingError(
            f"Special tokens of {spec.name} cannot be kept with pooling {spec.pooling} and crop {spec.crop}: no "
            "blocks could be run from such rows. Leave out --pooling, and choose a crop that keeps one stretch."
        )


def _check_windows(spec: "EncoderSpec") -> None:
    if spec.max_tokens < 1:
        raise InvalidSettingError(
            f"Encoder {spec.name} has no limit of tokens, so windows have no size. Give one (--max-tokens)."
        )
    if spec.tokens == "codon":
        raise InvalidSettingError(
            f"Encoder {spec.name} reads codons in the frame of the whole RNA, which a window does not know. "
            "Choose another crop (--crop keep-3-prime, keep-5-prime or center)."
        )
    if "-center-" in spec.tokens:
        raise InvalidSettingError(
            f"Encoder {spec.name} keeps the centre of a sequence ({spec.tokens}), so windows cannot be stitched. "
            "Choose another crop, or the encoder that keeps all bins."
        )
    if not 0 <= spec.overlap < spec.max_tokens:
        raise InvalidSettingError(
            f"Windows of {spec.max_tokens} tokens cannot overlap by {spec.overlap}. "
            f"Give an overlap of 0 to {spec.max_tokens - 1}."
        )
