"""Borzoi and Flashzoi, as published for PyTorch: four replicates each, with heads that play no part here."""

from dataclasses import replace

from embedcache.encoders.cards.card import EncoderCard

__all__ = ["BORZOI", "CARDS", "FLASHZOI", "with_final"]

BORZOI = EncoderCard(
    name="borzoi",
    modalities=("dna",),
    adapter="borzoi/1",
    loader="embedcache.encoders.borzoi:load",
    width=1536,
    layers=8,
    heads=8,
    feed_forward=3072,
    settings={
        "output": "trunk",
        "dim": 1536,
        "channels": [512, 608, 736, 896, 1056, 1280],
        # poolings and what undoes them must meet: a window is padded with N at its end to a multiple of this,
        # and bins of padding only are dropped
        "multiple_bp": 128,
        "attention": "relative",
        "key_dim": 64,
        "value_dim": 192,
    },
    tokens="bins-32",
    # distances are told apart up to 4,096 bins of 128 bp
    max_tokens=16384,
    trained_tokens=16384,
    any_layer=False,
    attention="single",
    unused=("human_head.", "mouse_head.", "final_joined_convs."),
    config={"model_type": "borzoi", "flashed": False},
    shape={"layers": "depth", "heads": "heads", "key_dim": "attn_dim_key", "value_dim": "attn_dim_value"},
    from_memory=True,
    licence="CC-BY-4.0",
    commercial=True,
    citation="Linder et al., Nature Genetics 2025, doi:10.1038/s41588-024-02053-6",
)

_SHARED = ("output", "dim", "channels", "multiple_bp")

FLASHZOI = replace(
    BORZOI,
    name="flashzoi",
    adapter="flashzoi/1",
    settings={
        **{name: BORZOI.settings[name] for name in _SHARED},
        "attention": "rotary",
        "key_value_heads": 4,
        "rotary_dim": 128,
        "rotary_base": 20000.0,
    },
    config={"model_type": "borzoi", "flashed": True},
    shape={"layers": "depth", "heads": "heads"},
    licence="MIT",
    citation="Hingerl et al., bioRxiv 2024, doi:10.1101/2024.12.18.629121",
)


def with_final(card: EncoderCard) -> EncoderCard:
    """The same network behind its last joined convolutions, which all tracks are read from: 1,920 numbers a bin."""
    unused = tuple(name for name in card.unused if not name.startswith("final"))
    settings = {**card.settings, "output": "final"}
    return replace(card, name=f"{card.name}-final", width=1920, settings=settings, unused=unused)


def _published(family: EncoderCard, name: str) -> EncoderCard:
    return replace(family, name=name, repository=f"johahi/{name}")


_TRUNKS = (
    *(_published(BORZOI, f"borzoi-replicate-{number}") for number in range(4)),
    *(_published(BORZOI, f"borzoi-replicate-{number}-mouse") for number in range(4)),
    *(_published(FLASHZOI, f"flashzoi-replicate-{number}") for number in range(4)),
)

CARDS = (*_TRUNKS, *map(with_final, _TRUNKS))
