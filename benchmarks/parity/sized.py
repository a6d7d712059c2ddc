"""Our card of an encoder in the sizes of a case; needs our package, unlike the modules beside it."""

from dataclasses import replace

import cases

from embedcache.encoders.cards import CARDS, EncoderCard

__all__ = ["sized_card"]

SHAPE = ("width", "layers", "heads", "feed_forward")


def sized_card(case: cases.Case) -> EncoderCard:
    """The card as it is if the case has the published width, else another that expects the sizes of the case."""
    found = CARDS[case.encoder]
    if found.width == case.sizes["width"] and found.heads == case.sizes["heads"]:
        return found
    shape = {name: case.sizes[name] for name in SHAPE}
    settings = {name: value for name, value in case.sizes.items() if name not in SHAPE}
    published = cases.config(case.family, case.sizes)
    config = {name: published[name] for name in found.config}
    return replace(found, **shape, settings={**found.settings, **settings}, config=config)
