"""Small networks with drawn weights."""

from dataclasses import replace

from embedcache.encoders.cards.card import EncoderCard
from embedcache.encoders.cards.esm import ESM2
from embedcache.encoders.cards.nt import NT_V2
from embedcache.sequences import Modality

__all__ = ["CARDS"]


def _tiny(family: EncoderCard, modality: Modality) -> EncoderCard:
    """A small network of the family with drawn weights: for demonstrations and tests, and labelled so."""
    return replace(
        family,
        name=f"tiny-random-{modality}",
        modalities=(modality,),
        width=64,
        layers=2,
        heads=2,
        feed_forward=128,
        max_tokens=0,
        trained_tokens=0,
        weights="seed:0",
        licence="Apache-2.0",
        commercial=True,
        citation="this package; the numbers were drawn, not trained",
    )


CARDS = (_tiny(NT_V2, "dna"), _tiny(NT_V2, "rna"), _tiny(ESM2, "protein"))
