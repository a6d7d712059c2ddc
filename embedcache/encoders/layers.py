"""Several layers of one encoder: their numbers, and encoders that have one only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.errors import InvalidSettingError

__all__ = ["OneLayer", "check_layers"]


def check_layers(spec: EncoderSpec, layers: Sequence[int], *, any_layer: bool = True) -> None:
    """Refuse layers that an encoder of this spec does not compute.

    Args:
        spec: Of the encoder, which ends behind ``spec.layer``.
        layers: As in ``spec.LayeredEncoder``.
        any_layer: Whether it gives layers before that one.

    Raises:
        InvalidSettingError: At least one is not there.
    """
    last = spec.layer
    before = range(1, spec.architecture.get("layers", 1) if last == -1 else last) if any_layer else range(0)
    if wrong := [layer for layer in layers if layer != last and layer not in before]:
        more = f"{before[0]} to {before[-1]} or {last}" if before else f"{last} only"
        raise InvalidSettingError(f"Encoder {spec.name}, as it was loaded, gives no layer {wrong[0]}. Ask for {more}.")


class OneLayer:
    """An encoder that writes ``encode`` alone, as a ``LayeredEncoder`` of the layer in its spec."""

    def __init__(self, encoder: Encoder) -> None:
        self.spec = encoder.spec
        self.encoder = encoder

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """As the encoder does."""
        return self.encoder.encode(sequences)

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[NDArray[np.float32]]]:
        """Its one layer, see ``spec.LayeredEncoder``."""
        check_layers(self.spec, layers, any_layer=False)
        return {self.spec.layer: self.encoder.encode(sequences)}
