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
from embedcache.encoders.pooling import count_pooled, pool_rows, pooled_tokens
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.encoders.windows import WindowedEncoder, plan_windows, window_letters
from embedcache.errors import CacheMismatchError, InvalidSettingError
from embedcache.ragged import Ragged

__all__ = ["LiveTokens", "TrainableEncoder"]

TOKENS_PER_CALL = 16_384
"""Fills a GPU; an encoder on a CPU takes as many tokens of a call at a time as suit it."""


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """An encoder that also gives tensors which are open to gradients."""

    def encode_packed(self, sequences: Sequence[str]) -> Ragged:
        """Rows of cropped sequences, at least one, on the device and in the compute dtype."""
        ...


class LiveTokens:
    """Encoders of one modality, one for each layer that a run reads.

    Args:
        encoders: At least one; numbers of several are laid side by side.

    Raises:
        CacheMismatchError: They give a sequence different tokens.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
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
        by_layer = [[pool_rows(one, self.spec.pooling) for one in encoder.encode(letters)] for encoder in self.encoders]
        for i, *layers in zip(read, *by_layer, strict=True):
            found[i] = layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1)
        return found

    def tensors(self, sequences: Sequence[str]) -> list[Tensor]:
        """The same rows as float32 tensors that gradients flow through, to the weights of the encoder.

        Raises:
            InvalidSettingError: The encoder gives arrays only.
        """
        for encoder in self.encoders:
            inner = encoder.encoder if isinstance(encoder, WindowedEncoder) else encoder
            if not isinstance(inner, TrainableEncoder):
                raise InvalidSettingError(
                    f"Encoder {encoder.spec.name} gives numbers without gradients. Choose another encoder, "
                    "or keep this one frozen."
                )
        letters = [self.spec.cropped(one) for one in sequences]
        counts = [self.n_tokens(one) for one in sequences]
        by_layer = [_pooled(_packed(encoder, letters, counts), self.spec.pooling) for encoder in self.encoders]
        return [torch.cat(layers, dim=-1) if len(layers) > 1 else layers[0] for layers in zip(*by_layer, strict=True)]

    def _specs(self) -> list[EncoderSpec]:
        return [encoder.spec for encoder in self.encoders]


def _packed(encoder: Encoder, sequences: Sequence[str], counts: Sequence[int]) -> list[Tensor]:
    """Rows (T, D) of each cropped sequence, float32; none for one without tokens."""
    windowed = isinstance(encoder, WindowedEncoder)
    inner = encoder.encoder if isinstance(encoder, WindowedEncoder) else encoder
    assert isinstance(inner, TrainableEncoder)
    size, overlap = (encoder.spec.max_tokens, encoder.spec.overlap) if windowed else (max(counts, default=0), 0)
    plans = [plan_windows(n, size, overlap) if n else [] for n in counts]
    letters = [
        part
        for sequence, plan in zip(sequences, plans, strict=True)
        if plan
        for part in window_letters(sequence, encoder.spec.tokens, plan)
    ]
    parts = iter(inner.encode_packed(letters).to_list() if letters else [])
    none = torch.zeros(0, encoder.spec.width)
    return [
        torch.cat([next(parts)[one.first - one.start : one.last - one.start] for one in plan]).float() if plan else none
        for plan in plans
    ]


def _pooled(sequences: Sequence[Tensor], rule: str) -> list[Tensor]:
    """What ``pool_rows`` does, open to gradients."""
    pooled = []
    for rows in sequences:
        if count_pooled(len(rows), rule) == len(rows):
            pooled.append(rows)
            continue
        bounds = pooled_tokens(len(rows), rule).tolist()
        pooled.append(torch.stack([rows[start:stop].double().mean(0).float() for start, stop in bounds]))
    return pooled
