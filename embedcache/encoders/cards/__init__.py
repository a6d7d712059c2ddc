"""The encoders known by name: one card each, facts only. Nothing here computes or imports ``torch``."""

from embedcache.encoders.cards import borzoi, enformer, esm, esmc, mini, multimolecule, nt, t5, tiny
from embedcache.encoders.cards.card import EncoderCard
from embedcache.sequences import Modality

__all__ = ["CARDS", "MINI_ENCODERS", "PAPER_ENCODERS", "TINY_ENCODERS", "EncoderCard"]

_FAMILIES = (esm, esmc, t5, nt, enformer, borzoi, mini, multimolecule, tiny)

CARDS: dict[str, EncoderCard] = {card.name: card for family in _FAMILIES for card in family.CARDS}
"""All encoders by name; ``registry.register_encoder`` adds to it."""

PAPER_ENCODERS: dict[Modality, str] = {"dna": "enformer", "rna": "nt-v2-250m", "protein": "esm2-150m"}
"""The published encoder of a modality, as in IsoFormer."""

MINI_ENCODERS: dict[Modality, str] = {"dna": "mini-dna", "rna": "mini-rna", "protein": "mini-protein"}
"""Small and pretrained, in the package: what runs without a download. Results with them are labelled so."""

TINY_ENCODERS: dict[Modality, str] = {
    "dna": "tiny-random-dna",
    "rna": "tiny-random-rna",
    "protein": "tiny-random-protein",
}
"""Need no download; their numbers mean nothing beyond what composition and random mixing carry."""
