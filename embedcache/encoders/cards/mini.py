"""Small pretrained encoders of our own, in the package; ``embedcache.encoders.mini`` trained them."""

from dataclasses import replace

from embedcache.encoders.cards.card import EncoderCard
from embedcache.encoders.cards.esm import ESM_SHAPE, ROTARY_UNUSED
from embedcache.sequences import Modality

__all__ = ["CARDS"]

_MINI = EncoderCard(
    name="mini",
    modalities=("protein",),
    adapter="mini/1",
    loader="embedcache.encoders.mini.network:load",
    width=160,
    layers=4,
    heads=5,
    feed_forward=640,
    settings={"layer_norm_eps": 1e-5},
    tokens="letter",
    trained_tokens=512,
    bundled="embedcache.encoders.mini",
    key_prefix="esm.",
    unused=ROTARY_UNUSED,
    shape=ESM_SHAPE,
    config={
        "model_type": "esm",
        "position_embedding_type": "rotary",
        "token_dropout": False,
        "emb_layer_norm_before": False,
    },
    licence="Apache-2.0",
    commercial=True,
    citation="this package; see the model card beside the weights",
)


def _mini(modality: Modality, tokens: str, max_tokens: int = 0) -> EncoderCard:
    config = {**_MINI.config, "token_rule": tokens}
    special = (1, 1) if tokens == "letter" else (1, 0)
    card = replace(_MINI, name=f"mini-{modality}", modalities=(modality,), config=config)
    return replace(card, tokens=tokens, max_tokens=max_tokens, special=special)


CARDS = (
    _mini("dna", "nt-3mer", max_tokens=512),
    _mini("rna", "codon"),
    _mini("protein", "letter"),
)
