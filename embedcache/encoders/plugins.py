"""Encoders of other people: a class, or an ``EncoderCard``, in a module of theirs, found by its place ``module:NAME``.

``--encoder module:Class`` names the place of a class, see ``plugin_class`` for what it must have. An installed package
names the place as an entry point of the group ``embedcache.encoders``. A file of one's own on PYTHONPATH is named in
the environment variable EMBEDCACHE_ENCODERS, several with commas between them. Workers on this machine and those that
SLURM starts inherit both variables; a card says in turn where the encoder is loaded from.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from embedcache.encoders.cards import CARDS, EncoderCard
from embedcache.errors import InvalidInputError

__all__ = ["find_card", "import_place", "load_plugins", "named_card"]

GROUP = "embedcache.encoders"
PLACES = "embedcache.places"
"""Group of entry points: the prefix of a place, ``run`` in ``run:DIRECTORY``, and a function from such a name to a
card."""
VARIABLE = "EMBEDCACHE_ENCODERS"


def load_plugins() -> None:
    """Make the cards of all plug-ins known.

    Raises:
        InvalidInputError: A place that cannot be imported, that holds no card, or one with the name of another card.
    """
    for found, source in _plugin_cards():
        if CARDS.setdefault(found.name, found) != found:
            raise InvalidInputError(f"Encoder {found.name!r} from {source} is known with another card. Rename it.")


def find_card(name: str) -> EncoderCard | None:
    """The card of an encoder, of plug-ins too; None if there is none.

    Raises:
        InvalidInputError: See ``load_plugins``.
    """
    if name not in CARDS:
        load_plugins()
    return CARDS.get(name)


def _plugin_cards() -> Iterator[tuple[EncoderCard, str]]:
    for entry in entry_points(group=GROUP):
        source = f"entry point {entry.name!r} of {entry.dist.name if entry.dist else 'a package'}"
        yield _card(entry.value, source), source
    for place in os.environ.get(VARIABLE, "").split(","):
        if place.strip():
            yield _card(place.strip(), VARIABLE), VARIABLE


def import_place(place: str, source: str, what: str) -> Any:
    """What stands at ``module:NAME``.

    Raises:
        InvalidInputError: Nothing does; ``source`` named it, and ``what`` should be there.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        beside = Path(f"{module.split('.')[0]}.py").is_file() and isinstance(error, ModuleNotFoundError)
        here = " (PYTHONPATH=. for this folder)" if beside else ""
        raise InvalidInputError(
            f"{place!r} from {source} cannot be imported: {error}. Write module:NAME of {what}, with the folder of the "
            f"module on PYTHONPATH{here}, or remove it."
        ) from error


def named_card(name: str) -> EncoderCard | None:
    """The card of an encoder that is named by its place: ``hf:OWNER/NAME``, ``run:DIRECTORY`` or ``module:Class``.

    None for other names.

    Raises:
        InvalidInputError: There is no such thing at the place.
    """
    if name.startswith("hf:"):
        from embedcache.encoders.hub import hub_card

        return hub_card(name)
    prefix, sign, _ = name.partition(":")
    for entry in entry_points(group=PLACES, name=prefix) if sign else ():
        found: EncoderCard = entry.load()(name)
        return found
    return _card(name, "the name of the encoder") if ":" in name else None


def _card(place: str, source: str) -> EncoderCard:
    found = import_place(place, source, "an EncoderCard or a class")
    if isinstance(found, type):
        from embedcache.encoders.plugin_class import class_card

        return class_card(place, found)
    if not isinstance(found, EncoderCard):
        raise InvalidInputError(
            f"{place!r} from {source} is a {type(found).__name__}, expected an EncoderCard or a class with `encode`."
        )
    return found
