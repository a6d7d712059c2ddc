"""Enformer."""

from dataclasses import replace

from embedcache.encoders.cards.card import EncoderCard

__all__ = ["CARDS"]

ENFORMER = EncoderCard(
    name="enformer",
    modalities=("dna",),
    adapter="enformer/1",
    loader="embedcache.encoders.enformer:load",
    width=3072,
    layers=11,
    heads=8,
    feed_forward=3072,
    # the rule of the original model for its gamma position features; weights tuned in other ports need another
    settings={"key_dim": 64, "divisor": 128, "gamma": "position"},
    tokens="bins-128",
    trained_tokens=1536,
    any_layer=False,
    attention="single",
    repository="EleutherAI/enformer-official-rough",
    unused=("_trunk.", "_heads."),
    config={"dim": 1536, "depth": 11, "heads": 8},
    shape={"gamma": "gamma"},  # not in the published file: the default of the settings holds
    licence="CC-BY-4.0",
    commercial=True,
    citation="Avsec et al., Nature Methods 2021, doi:10.1038/s41592-021-01252-x",
)

ENFORMER_896 = replace(ENFORMER, name="enformer-896", tokens="bins-128-center-896")
"""Keeps the bins that the original predicts for, 896 of the 1,536 of a window of 196,608 bp; all of a shorter one."""

CARDS = (ENFORMER, ENFORMER_896)
