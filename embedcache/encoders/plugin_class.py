'''A class of yours as an encoder: a few attributes and one method, ``encode``.

This is all of a plug-in, here in a file ``hydropathy.py``:

    import numpy as np

    class Hydropathy:
        """Kyte-Doolittle hydropathy of each residue, and of its neighbourhood."""

        modality = "protein"
        width = 2
        licence = "MIT"
        version = "1"

        def encode(self, sequences):
            table = dict(zip("ARNDCQEGHILKMFPSTWYV", (1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5,
                                                    3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2)))
            arrays = []
            for sequence in sequences:
                own = np.array([table.get(letter, 0.0) for letter in sequence])
                arrays.append(np.stack([own, np.convolve(own, np.ones(9) / 9)[4:-4]], axis=1))
            return arrays

``PYTHONPATH=. embedcache build --modality protein --encoder hydropathy:Hydropathy`` embeds with it, in worker
processes, under SLURM and on Ray too. An entry point of the group ``embedcache.encoders`` or the environment
variable EMBEDCACHE_ENCODERS may name the class as well; then it is known by its ``name``.

Attributes: ``modality`` (or ``modalities``) and ``width`` must be there. ``encode`` gets normalised sequences (upper
case, RNA in DNA letters, within ``max_tokens``) and gives an array (tokens, width) for each, special tokens left out.
The constructor takes nothing, or ``device``, the name of a torch device. All else has a default, see ``_Given``.
'''

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.options import EncoderOptions
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import count_tokens
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError, MissingDependencyError
from embedcache.sequences import Modality

__all__ = ["ClassEncoder", "class_card", "find", "load", "place_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What a constructor or a method of another's class may raise; their text becomes one line."""


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What the attributes of a class say, with the defaults of those it leaves out."""

    modality: str = ""
    modalities: tuple[str, ...] = ()
    """In place of ``modality``, for a class that reads several."""
    width: int = 0
    """Numbers a token."""
    name: str = ""
    """What users type and stores are called; by default that of the class, ``MyEncoder`` as ``my-encoder``."""
    tokens: str = "letter"
    """Rule from letters to tokens, see ``tokens``."""
    max_tokens: int = 0
    """Most tokens that ``encode`` takes; 0 for no limit."""
    version: str = ""
    """Of the code: change it when the numbers change. Without one, any change of the file makes a new store."""
    weights: Any = ()
    """What the numbers were trained to: text, paths of files, or a list of these; or a static method that returns it.
    Files are hashed, so that other weights are another store."""
    batched: bool = False
    """Whether ``encode`` gets many sequences at once: faster, but their numbers may then depend on each other."""
    package: str = ""
    """What ``pip install`` needs for it."""
    repository: str = ""
    licence: str = "not stated"
    commercial: bool | None = None
    citation: str = ""


def class_card(place: str, found: type[Any]) -> EncoderCard:
    """The card of a class.

    Args:
        place: Its ``module:Class``.
        found: The class.

    Raises:
        InvalidInputError: An attribute is missing or wrong.
    """
    given = _Given(**{item.name: getattr(found, item.name) for item in fields(_Given) if hasattr(found, item.name)})
    _check_attributes(place, found, given)
    return EncoderCard(
        name=given.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", found.__name__).lower(),
        modalities=tuple(given.modalities) or (given.modality,),  # type: ignore[arg-type]  # checked
        adapter=f"{place}/{given.version}",
        loader="embedcache.encoders.plugin_class:load",
        finder="embedcache.encoders.plugin_class:find",
        width=given.width,
        tokens=given.tokens,
        max_tokens=given.max_tokens,
        any_layer=False,
        attention="padded" if given.batched else "single",
        weights="own",
        package=given.package,
        repository=given.repository,
        licence=given.licence,
        commercial=given.commercial,
        citation=given.citation,
    )


def place_of(spec: EncoderSpec) -> str | None:
    """``module:Class`` of the encoder, if a class of a plug-in it is."""
    place = spec.adapter.rpartition("/")[0]
    return place if ":" in place else None


def find(card: EncoderCard, modality: Modality, options: EncoderOptions) -> tuple[EncoderCard, type[Any]]:
    """The card with the identity of code and weights, and the class; see ``registry.Finder``."""
    for option in ("weights", "random_init", "revision", "trust_remote_code"):
        chosen = options.get(option)
        if chosen is not None and chosen is not False:  # seed 0 is a choice
            raise InvalidSettingError(
                f"Encoder {card.name} is a plug-in that brings its own weights. Leave out --{option.replace('_', '-')}."
            )
    place, _, version = card.adapter.rpartition("/")
    module, _, name = place.partition(":")
    found: type[Any] = getattr(import_module(module), name)
    adapter = card.adapter if version else f"{place}/code-{_code_digest(place, found)}"
    return replace(card, adapter=adapter, weights=_identity(place, found)), found


def load(spec: EncoderSpec, weights: Any, device: str) -> "ClassEncoder":
    """Make the encoder; ``weights`` is the class, as ``find`` gave it."""
    place = spec.adapter.rpartition("/")[0]
    takes_device = "device" in inspect.signature(weights).parameters
    try:
        made = weights(device=device) if takes_device else weights()
    except ImportError as error:
        raise _lacking(f"Encoder {place} needs a package that is not here", weights, error) from error
    except _FAILURES as error:
        raise InvalidInputError(
            f"Encoder {place} cannot be made: {type(error).__name__}: {error}. Its constructor may take `device` and "
            "nothing else that has no default."
        ) from error
    return ClassEncoder(spec, made)


def _lacking(what: str, found: type[Any], error: ImportError) -> MissingDependencyError:
    package = getattr(found, "package", "")
    return MissingDependencyError(f"{what}: {error}. {f'Run `pip install {package}`.' if package else 'Install it.'}")


class ClassEncoder:
    """An object of a plug-in's class as an ``Encoder``: its rows are checked, and it sees one sequence at a time.

    Attributes:
        spec: What it is.
        plugin: The object.
    """

    def __init__(self, spec: EncoderSpec, plugin: Any) -> None:
        self.spec = spec
        self.plugin = plugin

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Embed normalised, already cropped sequences: (tokens, width) each, in their order.

        Raises:
            EmbedCacheError: Rows of another shape, or a number that is not finite.
        """
        if self.spec.attention == "single":
            return [rows for one in sequences for rows in self._call([one])]
        return self._call(sequences) if sequences else []

    def _call(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        found = self.plugin.encode(list(sequences))
        if not isinstance(found, list | tuple) or len(found) != len(sequences):
            size = f" of {len(found)}" if isinstance(found, list | tuple) else ""
            raise EmbedCacheError(
                f"encode of {self.spec.name} returned a {type(found).__name__}{size} for {len(sequences)} sequences, "
                "expected a list of as many arrays. Mend the plug-in."
            )
        return [self._checked(rows, sequence) for rows, sequence in zip(found, sequences, strict=True)]

    def _checked(self, rows: Any, sequence: str) -> NDArray[np.float32]:
        expected = (self.spec.n_tokens(sequence), self.spec.width)
        array = np.asarray(rows)
        if np.iscomplexobj(array):  # a cast would drop the imaginary part with no more than a warning
            raise EmbedCacheError(
                f"encode of {self.spec.name} returned an array of {array.dtype}, expected real numbers. Mend the "
                "plug-in."
            )
        array = array.astype(np.float32, copy=False)
        if array.shape != expected:
            raise EmbedCacheError(
                f"encode of {self.spec.name} returned rows {array.shape} for a sequence of {len(sequence)} letters, "
                f"expected {expected}: one row a token ({self.spec.tokens}), no special tokens. Mend the plug-in."
            )
        if not np.isfinite(array).all():
            raise EmbedCacheError(f"encode of {self.spec.name} returned numbers that are not finite. Mend the plug-in.")
        return array


def _check_attributes(place: str, found: type[Any], given: _Given) -> None:
    modalities = tuple(given.modalities) or (given.modality,)
    wrong = [
        (not callable(getattr(found, "encode", None)), "has no method encode(sequences)"),
        (
            not all(one in get_args(Modality) for one in modalities),
            f"has modality {given.modality or given.modalities!r}, expected one of {', '.join(get_args(Modality))}",
        ),
        (type(given.width) is not int or given.width < 1, f"has width {given.width!r}, expected numbers a token"),
        (
            bool(given.name) and not _NAME.fullmatch(given.name),
            f"has name {given.name!r}, expected letters, digits, dots, underscores and dashes",
        ),
        (
            not re.fullmatch("[A-Za-z0-9._-]*", given.version) if isinstance(given.version, str) else True,
            f"has version {given.version!r}, expected text of letters, digits, dots, underscores and dashes",
        ),
        (
            type(given.max_tokens) is not int or given.max_tokens < 0,
            f"has max_tokens {given.max_tokens!r}, expected 0 (no limit) or more",
        ),
    ]
    if words := next((text for is_wrong, text in wrong if is_wrong), None):
        raise InvalidInputError(
            f"Class {place} {words}. Give it this as a class attribute or a method, see plugin_class."
        )
    try:
        count_tokens("A", given.tokens)
    except EmbedCacheError as error:
        raise InvalidInputError(f"Class {place} has tokens {given.tokens!r}. {error}") from error


def _code_digest(place: str, found: type[Any]) -> str:
    """Of the file in which the class stands."""
    try:
        code = Path(inspect.getfile(found)).read_bytes()
    except (OSError, TypeError) as error:
        raise InvalidInputError(
            f"Class {place} has no version, and the file with its code is not there. Give it `version = '1'`."
        ) from error
    return blake2b(code, digest_size=6).hexdigest()


def _identity(place: str, found: type[Any]) -> str:
    """``blake2b:<digest>`` of all that the class names as its weights, ``none`` if that is nothing."""
    named = getattr(found, "weights", ())
    try:
        named = named() if callable(named) else named
        parts = [named] if isinstance(named, str | Path) else list(named)
        digest = blake2b(digest_size=16)
        for part in parts:
            _add(digest, part)
    except ImportError as error:
        raise _lacking(f"Weights of {place} need a package", found, error) from error
    except _FAILURES as error:
        raise InvalidInputError(
            f"Weights of {place} cannot be told: {type(error).__name__}: {error}. Its attribute weights must be text, "
            "paths of files, or a list of these."
        ) from error
    return f"blake2b:{digest.hexdigest()}" if parts else "none"


def _add(digest: Any, part: str | Path) -> None:
    """Put a text, or the bytes of a file, into a digest; each with its kind and length in front."""
    if isinstance(part, str):
        digest.update(f"text {len(part.encode())}\0".encode() + part.encode())
        return
    if not isinstance(part, Path):
        raise TypeError(f"{part!r} is neither text nor a path")
    digest.update(f"file {part.stat().st_size}\0".encode())
    with part.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
