"""Several layers of one encoder: their numbers, encoders that have one only, and beginning before asking."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.spec import Encoder, EncoderSpec, LayeredEncoder, Pending, StartingEncoder
from embedcache.errors import InvalidSettingError

__all__ = ["Done", "OneLayer", "OneOf", "Starting", "check_layers", "start_layers"]

T = TypeVar("T")
Rows = NDArray[np.float32]


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

    def encode(self, sequences: Sequence[str]) -> list[Rows]:
        """As the encoder does."""
        return self.encoder.encode(sequences)

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[Rows]]:
        """Its one layer, see ``spec.LayeredEncoder``."""
        check_layers(self.spec, layers, any_layer=False)
        return {self.spec.layer: self.encoder.encode(sequences)}


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A result that is there already, as a ``Pending`` one."""

    value: T

    def result(self) -> T:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class OneOf(Generic[T]):
    """One of several pending results."""

    pending: Pending[Mapping[int, T]]
    layer: int

    def result(self) -> T:
        """Wait for all, and give this one."""
        return self.pending.result()[self.layer]


class Starting(ABC):
    """The other methods of a ``spec.StartingEncoder``, for an encoder that writes ``start_layers``."""

    spec: EncoderSpec

    @abstractmethod
    def start_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Pending[dict[int, list[Rows]]]:
        """Begin what ``encode_layers`` does: on a GPU without waiting for it."""

    def start(self, sequences: Sequence[str]) -> Pending[list[Rows]]:
        """Begin what ``encode`` does."""
        return OneOf(self.start_layers(sequences, [self.spec.layer]), self.spec.layer)

    def encode(self, sequences: Sequence[str]) -> list[Rows]:
        """Embed normalised, already cropped sequences: (tokens, width) each, in their order.

        Raises:
            EmbedCacheError: A number that is not finite came out, or what the encoder itself refuses.
        """
        return self.start(sequences).result()

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[Rows]]:
        """Embed sequences once for several layers, see ``spec.LayeredEncoder``."""
        return self.start_layers(sequences, layers).result()


def start_layers(
    encoder: LayeredEncoder, sequences: Sequence[str], layers: Sequence[int]
) -> Pending[dict[int, list[Rows]]]:
    """Begin ``encode_layers`` of any encoder; one that cannot begin without waiting computes at once."""
    if isinstance(encoder, StartingEncoder):
        return encoder.start_layers(sequences, layers)
    return Done(encoder.encode_layers(sequences, layers))
