"""Token embeddings of one modality from an encoder that runs now: the numbers of a store before they are rounded.

Shapes: T tokens of a sequence, N packed tokens, D width of a layer, L layers.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.batching import cut_by_tokens
from embedcache.encoders.pooling import pool_rows
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import CacheMismatchError, InvalidSettingError
from embedcache.ragged import Ragged
from heads.finetune.encoder import TunedEncoder, pool_tokens

__all__ = ["LiveEncoder", "LiveTokens", "TrainableEncoder"]

TOKENS_PER_CALL = 16_384
"""Fills a GPU; an encoder on a CPU takes as many tokens of a call at a time as suit it."""


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """An encoder that also gives tensors which are open to gradients."""

    def encode_packed(self, sequences: Sequence[str]) -> Ragged:
        """Rows of cropped sequences, at least one, on the device and in the compute dtype."""
        ...


LiveEncoder = Encoder | TunedEncoder
"""A frozen encoder, or one that a run has trained."""


class LiveTokens:
    """Encoders of one modality, one for each layer that a run reads.

    Args:
        encoders: At least one; numbers of several are laid side by side.

    Raises:
        CacheMismatchError: They give a sequence different tokens.
    """

    def __init__(self, encoders: Sequence[LiveEncoder]) -> None:
        self.encoders = list(encoders)
        self.spec: EncoderSpec = self.encoders[0].spec
        """Of the first layer; crop and pooling are those of all."""
        rules = {(one.tokens, one.max_tokens, one.crop, one.overlap, one.pooling) for one in self._specs()}
        if len(rules) > 1:
            raise CacheMismatchError(
                f"The layers of {self.spec.name} that the run reads were cropped or pooled in different ways, which "
                "live encoders do not mix. Train the run on layers of one build."
            )
        self.width = sum(one.width for one in self._specs())

    def n_tokens(self, sequence: str) -> int:
        """Tokens that the encoder computes for a sequence."""
        return self.spec.n_tokens(sequence)

    def n_rows(self, sequence: str) -> int:
        """Rows of a sequence after pooling."""
        return self.spec.n_rows(sequence)

    def calls(self, sequences: Sequence[str]) -> list[list[str]]:
        """Sequences in the order of their length, cut into calls of ``TOKENS_PER_CALL`` tokens."""
        counts = np.array([self.n_tokens(one) for one in sequences], np.int64)
        order = np.argsort(-counts, kind="stable")
        return [[sequences[i] for i in part] for part in cut_by_tokens(order, counts, TOKENS_PER_CALL)]

    def rows(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """What a float32 store holds of each sequence, (rows, L * D): computed as a build does, without gradients."""
        found = [np.empty((0, self.width), np.float32)] * len(sequences)
        read = [i for i, one in enumerate(sequences) if self.n_tokens(one)]
        if not read:
            return found
        letters = [self.spec.cropped(sequences[i]) for i in read]
        by_layer = [_arrays(encoder, letters) for encoder in self.encoders]
        for i, *layers in zip(read, *by_layer, strict=True):
            found[i] = layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1)
        return found

    def tensors(self, sequences: Sequence[str]) -> list[Tensor]:
        """The same rows as float32 tensors that gradients flow through, to the weights of the encoder.

        Raises:
            InvalidSettingError: The encoder gives arrays only.
        """
        found = [torch.zeros(0, self.width)] * len(sequences)
        read = [i for i, one in enumerate(sequences) if self.n_tokens(one)]
        if not read:
            return found
        letters = [self.spec.cropped(sequences[i]) for i in read]
        by_layer = [_open(encoder, letters).to_list() for encoder in self.encoders]
        for i, *layers in zip(read, *by_layer, strict=True):
            found[i] = layers[0] if len(layers) == 1 else torch.cat(layers, dim=-1)
        return found

    def _specs(self) -> list[EncoderSpec]:
        return [encoder.spec for encoder in self.encoders]


def _arrays(encoder: LiveEncoder, letters: Sequence[str]) -> list[NDArray[np.float32]]:
    """Pooled rows (rows, D) of cropped sequences: of a trained encoder as its run predicts, else as a build stores."""
    if isinstance(encoder, TunedEncoder):
        with torch.inference_mode():
            return [one.cpu().numpy() for one in encoder.embed(letters).to_list()]
    return [pool_rows(one, encoder.spec.pooling) for one in encoder.encode(letters)]


def _open(encoder: LiveEncoder, letters: Sequence[str]) -> Ragged:
    """Pooled rows of cropped sequences, float32, open to gradients."""
    if isinstance(encoder, TunedEncoder):
        return encoder.embed(letters)
    inner = encoder.encoder if isinstance(encoder, WindowedEncoder) else encoder
    if not (isinstance(encoder, TrainableEncoder) and isinstance(inner, TrainableEncoder)):
        raise InvalidSettingError(
            f"Encoder {encoder.spec.name} gives numbers without gradients. Choose another encoder, or keep this one "
            "frozen."
        )
    pooled = pool_tokens(encoder.encode_packed(letters), encoder.spec.pooling)
    return pooled._replace(values=pooled.values.float())
