"""Encoders whose network is in an optional package: imported when one is chosen, and named when it is missing.

The package makes its models known to transformers; the rest is what ``hub`` and ``hub_model`` do for any model. The
shape on the card decides: files of another one are refused. With drawn weights the network is that of the package's
own defaults, and the spec needs no package.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.hub_files import HubFiles
from embedcache.encoders.options import EncoderOptions
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError, MissingDependencyError
from embedcache.sequences import Modality

if TYPE_CHECKING:
    from embedcache.encoders.hub_model import HubEncoder

__all__ = ["find", "load"]

_PACKAGE = "multimolecule"


def find(card: EncoderCard, modality: Modality, options: EncoderOptions) -> tuple[EncoderCard, HubFiles | None]:
    """The card with the identity of its weights, and the files; see ``registry.Finder``.

    Raises:
        MissingDependencyError: The package or the files are not here.
        InvalidInputError: The files are of a model of another shape.
    """
    if options.get("random_init") is not None and not card.settings.get("pieces"):
        return card, None  # pieces are those of a vocabulary, which is in the files
    _import_package(card.name)
    from embedcache.encoders import hub

    found, files = hub.find(card, modality, options)
    kind = getattr(files.config, "model_type", "")
    for what, value, expected in (
        ("model_type", kind, card.settings["model_type"]),
        ("width", found.width, card.width),
        ("layers", found.layers, card.layers),
        ("tokens", found.tokens, card.tokens),
    ):
        if value != expected:
            raise InvalidInputError(
                f"{files.directory} is not {card.name}: {what} is {value!r}, expected {expected!r}. Give the files of "
                f"{card.repository}, or name them as hf:DIRECTORY."
            )
    limit = min(filter(None, (card.max_tokens, found.max_tokens)), default=0)
    return replace(found, max_tokens=limit, settings={**card.settings, **found.settings}), files


def load(spec: EncoderSpec, weights: HubFiles | None, device: str) -> "HubEncoder":
    """Load a model; without files in the package's own shape, its weights drawn."""
    _import_package(spec.name)
    from embedcache.encoders import hub_model

    return hub_model.load(spec, weights or _own_defaults(spec), device)


def _own_defaults(spec: EncoderSpec) -> HubFiles:
    """What the package builds where nobody says otherwise, in the size of the spec."""
    from transformers import AutoConfig

    from embedcache.encoders.hub_model import describe_model
    from embedcache.encoders.hub_tokens import find_spelling

    package = import_module(_PACKAGE)
    config: Any = AutoConfig.for_model(spec.architecture["model_type"], num_hidden_layers=spec.architecture["layers"])
    if config.hidden_size != spec.width:
        raise InvalidInputError(
            f"{_PACKAGE} builds {spec.name} {config.hidden_size} wide, expected {spec.width}. Use version 0.2.2 of it."
        )
    tokenizer = package.RnaTokenizer() if spec.modality == "rna" else package.DnaTokenizer()
    return HubFiles(
        name=spec.name,
        directory=Path(),
        config=config,
        trust=False,
        attention=describe_model(spec.name, config, trust=False).attention,
        spelling=find_spelling(tokenizer, spec.modality, spec.name),
    )


def _import_package(name: str) -> Any:
    try:
        return import_module(_PACKAGE)
    except ImportError as error:
        raise MissingDependencyError(
            f"Encoder {name} needs the package {_PACKAGE} (AGPL-3.0), which cannot be imported: {error}. Run `pip "
            f"install {_PACKAGE}`, if its licence suits you."
        ) from error
