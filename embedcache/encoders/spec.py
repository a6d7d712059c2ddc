"""What an encoder is: the settings that change its numbers, and the one method a plug-in writes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.tokens import Crop, count_tokens, crop_sequence
from embedcache.errors import CacheMismatchError, InvalidSequenceError
from embedcache.sequences import Modality

__all__ = ["ComputeDtype", "Encoder", "EncoderSpec", "StoreDtype"]

ComputeDtype = Literal["float32", "bfloat16", "float16"]
StoreDtype = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Everything that changes the numbers of an encoder. Two stores with one digest hold the same embeddings."""

    name: str
    """Short name that users type, such as ``esm2-150m``."""
    modality: Modality
    adapter: str
    """Code that runs the model and its version, such as ``esm/1``; raised when its numbers change."""
    model_id: str
    """Repository of the published weights, or ``random``."""
    revision: str = ""
    """Commit of that repository; empty when unknown (a local directory) or random."""
    weights: str
    """``blake2b:<digest of all tensors>``, or ``seed:<number>`` for random weights."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Settings the network was built with, JSON values only."""
    width: int
    """Numbers a token."""
    tokens: str
    """Rule from letters to tokens: ``letter``, ``nt-6mer`` or ``bins-<letters>``."""
    max_tokens: int = 0
    """Most tokens of a sequence, special tokens not counted; 0 for no limit."""
    crop: Crop = "error"
    """What happens to a sequence over ``max_tokens``."""
    layer: int = -1
    """Which layer's output, -1 for the last (after its final normalisation, if the model has one)."""
    special_tokens: Literal["dropped"] = "dropped"
    pooling: Literal["none"] = "none"
    attention: Literal["packed", "single", "padded"] = "packed"
    compute_dtype: ComputeDtype = "float32"
    store_dtype: StoreDtype = "float16"

    @property
    def is_random(self) -> bool:
        """True if the weights were drawn, not trained; shown wherever results appear."""
        return self.weights.startswith("seed:")

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of all fields; part of the directory name of the store."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def directory(self) -> str:
        """``<name>-<digest>``: the name of the store's directory under its modality."""
        return f"{self.name}-{self.digest}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "architecture": dict(self.architecture)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: str = "spec") -> "EncoderSpec":
        """Read what ``to_json`` wrote.

        Raises:
            CacheMismatchError: Fields are missing or unknown: another version wrote it.
        """
        known = {item.name for item in fields(cls)}
        if different := known ^ set(found):
            raise CacheMismatchError(
                f"{where}: encoder spec has other fields than this version of isoheads knows: {sorted(different)}. "
                "Use the version that wrote it, or build the store again."
            )
        return cls(**found)

    def cropped(self, sequence: str) -> str:
        """The part of a sequence that is embedded, by the crop rule.

        Raises:
            InvalidSequenceError: The sequence is over the limit and the rule is ``error``.
        """
        if not self.max_tokens or count_tokens(sequence, self.tokens) <= self.max_tokens:
            return sequence
        if self.crop == "error":
            raise InvalidSequenceError(
                f"{len(sequence)} letters are {count_tokens(sequence, self.tokens)} tokens, {self.name} takes "
                f"{self.max_tokens}. Choose a crop (--crop keep-3-prime, keep-5-prime or center), or shorter input."
            )
        return crop_sequence(sequence, self.tokens, self.max_tokens, self.crop)

    def n_tokens(self, sequence: str) -> int:
        """Rows that an embedding of the sequence has, after the crop."""
        return count_tokens(self.cropped(sequence), self.tokens)


class Encoder(Protocol):
    """A frozen network from sequences to token embeddings. A plug-in has a spec and writes this one method."""

    spec: EncoderSpec

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Embed normalised, already cropped sequences, together in one batch.

        Returns:
            One array (tokens, width) a sequence, in their order: residues or tokens only, never CLS, EOS or
            padding, as many rows as ``spec.n_tokens`` says.
        """
        ...
