"""What an encoder is: the settings that change its numbers, and the one method a plug-in writes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedcache.choices import ComputeDtype, Crop, StoreDtype
from embedcache.encoders.pooling import count_pooled, pooled_tokens
from embedcache.encoders.spec_checks import check_settings
from embedcache.encoders.tokens import count_tokens, crop_bounds, token_spans
from embedcache.errors import CacheDamagedError, CacheMismatchError, InvalidSequenceError, InvalidSettingError
from embedcache.sequences import Modality

__all__ = [
    "Encoder",
    "EncoderSpec",
    "LayeredEncoder",
    "Pending",
    "SpecialTokens",
    "StartingEncoder",
]

SpecialTokens = Literal["dropped", "kept-1-0", "kept-0-1", "kept-1-1"]

Result_co = TypeVar("Result_co", covariant=True)

_ADDED = {"overlap": 0, "source_dtype": ""}
"""Fields that came after format version 1: left out of the JSON, and so of the digest, while they say nothing."""


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
    """Rule from letters to tokens: ``letter``, ``nt-<k>mer``, ``codon``, ``bins-<letters>`` or
    ``bins-<letters>-center-<tokens kept>``."""
    max_tokens: int = 0
    """Most tokens of a sequence, special tokens not counted; 0 for no limit."""
    crop: Crop = "error"
    """What happens to a sequence over ``max_tokens``."""
    overlap: int = 0
    """Tokens that neighbouring windows share at least, under the crop ``windows``."""
    layer: int = -1
    """Which layer's output, -1 for the last (after its final normalisation, if the model has one)."""
    special_tokens: SpecialTokens = "dropped"
    """``dropped``, or ``kept-<before>-<after>``: rows of so many special tokens before and after those of the sequence,
    from which the blocks behind ``layer`` can be run. Such a store is for fine-tuning; heads do not read it."""
    pooling: str = "none"
    """``none``, ``mean`` or ``adaptive-<most rows>``, see ``pooling``."""
    attention: Literal["packed", "single", "padded"] = "packed"
    compute_dtype: ComputeDtype = "float32"
    store_dtype: StoreDtype = "float16"
    source_dtype: str = ""
    """Number format that the rows of a converted store went through before; empty if they came as float32."""

    def __post_init__(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            InvalidSettingError: Unknown pooling, a negative limit, windows without a size, an overlap over it.
        """
        check_settings(self)
        if self.source_dtype not in ("", *get_args(StoreDtype)):
            raise InvalidSettingError(
                f"Source dtype {self.source_dtype!r} is not known. Leave it empty, or give one of: "
                f"{', '.join(get_args(StoreDtype))}."
            )

    @property
    def is_random(self) -> bool:
        """True if the weights were drawn, not trained; shown wherever results appear."""
        return self.weights.startswith("seed:") or self.model_id == "random"

    @property
    def is_small(self) -> bool:
        """True of the small encoders that come with the package; shown wherever results appear."""
        return self.adapter.removeprefix("tuned/").startswith("mini/")

    @property
    def is_tuned(self) -> bool:
        """True if a run of this project has trained it on; shown wherever results appear."""
        return self.adapter.startswith("tuned/")

    @property
    def is_imported(self) -> bool:
        """True if another tool computed the embeddings: nobody could check that they are what the spec says."""
        return self.adapter.startswith("imported/")

    @property
    def kept_special(self) -> tuple[int, int]:
        """Rows of special tokens before and after those of a sequence."""
        if self.special_tokens == "dropped":
            return 0, 0
        before, after = self.special_tokens.removeprefix("kept-").split("-")
        return int(before), int(after)

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
        """Plain JSON values, read back by ``from_json``; what a spec of version 1 could not say stays out."""
        values = {**asdict(self), "architecture": dict(self.architecture)}
        return {name: value for name, value in values.items() if name not in _ADDED or value != _ADDED[name]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: str = "spec") -> "EncoderSpec":
        """Read what ``to_json`` wrote.

        Raises:
            CacheMismatchError: Fields are missing or unknown: another version wrote it.
            CacheDamagedError: A value is none that we write.
        """
        values = {**_ADDED, **found}
        known = {item.name for item in fields(cls)}
        if different := known ^ set(values):
            raise CacheMismatchError(
                f"{where}: encoder spec has other fields than this version of isoheads knows: {sorted(different)}. "
                "Use the version that wrote it, or build the store again."
            )
        _check_types(values, where)
        try:
            return cls(**values)
        except InvalidSettingError as error:
            raise CacheDamagedError(f"{where}: {error} If the file was changed, restore it.") from error

    def differing(self, other: "EncoderSpec") -> list[str]:
        """Names of the fields in which two specs differ, sorted."""
        return sorted(item.name for item in fields(self) if getattr(self, item.name) != getattr(other, item.name))

    def cropped(self, sequence: str) -> str:
        """The part of a sequence that is embedded, by the crop rule; all of it under ``windows``.

        Raises:
            InvalidSequenceError: The sequence is over the limit and the rule is ``error``.
        """
        start, stop = self.bounds(sequence)
        return sequence[start:stop]

    def bounds(self, sequence: str) -> tuple[int, int]:
        """Letters [start, stop) of a sequence that are embedded. Errors as in ``cropped``."""
        if not self.max_tokens or count_tokens(sequence, self.tokens) <= self.max_tokens:
            return 0, len(sequence)
        if self.crop == "error":
            raise InvalidSequenceError(
                f"{len(sequence)} letters are {count_tokens(sequence, self.tokens)} tokens, {self.name} takes "
                f"{self.max_tokens}. Choose a crop (--crop windows, keep-3-prime, keep-5-prime or center), or shorter "
                "input."
            )
        return crop_bounds(sequence, self.tokens, self.max_tokens, self.crop)

    def spans(self, sequence: str) -> NDArray[np.int64]:
        """Letters [start, stop) of a sequence, before any crop, that each of its stored rows covers.

        Spans of unpooled rows follow each other without a gap; those of pooled rows may share letters, see
        ``pooling.pooled_tokens``. Errors as in ``cropped``.

        Returns:
            Shape (``n_rows(sequence)``, 2), 0-based.
        """
        start, stop = self.bounds(sequence)
        letters = start + token_spans(sequence[start:stop], self.tokens)
        rows = pooled_tokens(len(letters), self.pooling)
        spans = np.stack([letters[rows[:, 0], 0], letters[rows[:, 1] - 1, 1]], axis=1)
        before, after = self.kept_special  # which cover no letter
        return np.concatenate([np.full((before, 2), start), spans, np.full((after, 2), stop)])

    def n_tokens(self, sequence: str) -> int:
        """Tokens of a sequence that are embedded, after the crop and before pooling; special ones if they are kept."""
        return count_tokens(self.cropped(sequence), self.tokens) + sum(self.kept_special)

    def n_rows(self, sequence: str) -> int:
        """Rows that a store holds of a sequence, after crop and pooling; none if it has no tokens."""
        return count_pooled(self.n_tokens(sequence), self.pooling)


def _check_types(values: Mapping[str, Any], where: str) -> None:
    """Refuse values from a file that no spec can have, before any rule reads them."""
    for name, expected in get_type_hints(EncoderSpec).items():
        value = values[name]
        if expected in (int, str):
            is_good = type(value) is expected  # no subclass: true is not 1 token
        elif get_origin(expected) is Literal:
            is_good = value in get_args(expected)
        else:  # the architecture
            is_good = isinstance(value, Mapping)
        if not is_good:
            raise CacheDamagedError(
                f"{where}: {name} of the encoder is {value!r}. Restore the file, or build the store again."
            )


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


@runtime_checkable
class LayeredEncoder(Encoder, Protocol):
    """An encoder that gives several of its layers from one pass."""

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[NDArray[np.float32]]]:
        """Embed sequences as ``encode`` does, once for all layers.

        Args:
            sequences: Normalised and already cropped.
            layers: Numbers as in ``EncoderSpec.layer``: 1 for the first block, -1 for the last one with its
                final normalisation. None lies behind ``spec.layer``.

        Returns:
            For each layer what ``encode`` of the encoder with this layer in its spec gives, bit for bit.

        Raises:
            InvalidSettingError: The encoder does not have such a layer.
        """
        ...


class Pending(Protocol[Result_co]):
    """Work that goes on by itself, on a GPU for example."""

    def result(self) -> Result_co:
        """Wait for it, and give what it made; call it once."""
        ...


@runtime_checkable
class StartingEncoder(LayeredEncoder, Protocol):
    """An encoder that can compute while its caller works on the batch before."""

    def start(self, sequences: Sequence[str]) -> Pending[list[NDArray[np.float32]]]:
        """Begin what ``encode`` does."""
        ...

    def start_layers(
        self, sequences: Sequence[str], layers: Sequence[int]
    ) -> Pending[dict[int, list[NDArray[np.float32]]]]:
        """Begin what ``encode_layers`` does."""
        ...
