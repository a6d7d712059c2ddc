"""Nucleotide Transformers, version 1 and 2."""

from dataclasses import replace

from embedcache.encoders.cards.card import EncoderCard, one_size
from embedcache.encoders.cards.esm import ESM_SHAPE, ESM_UNUSED, ROTARY_UNUSED

__all__ = ["CARDS", "NT_V2"]

_NT_CITATION = "Dalla-Torre et al., Nature Methods 2025, doi:10.1038/s41592-024-02523-z"
_COMMIT_50M = "81b29e5786726d891dbf929404ef20adca5b36f1"
_INSTADEEP = "InstaDeepAI/nucleotide-transformer"

NT_V2 = EncoderCard(
    name="nt-v2",
    modalities=("dna", "rna"),
    adapter="nt-v2/1",
    loader="embedcache.encoders.nt:load_v2",
    width=0,
    settings={"layer_norm_eps": 1e-12},
    tokens="nt-6mer",
    special=(1, 0),
    max_tokens=2047,
    trained_tokens=2047,
    key_prefix="esm.",
    unused=ROTARY_UNUSED,
    config={
        "model_type": "esm",
        "position_embedding_type": "rotary",
        "vocab_size": 4107,
        "token_dropout": False,
        "emb_layer_norm_before": False,
        "add_bias_fnn": False,
    },
    shape=ESM_SHAPE,
    licence="CC-BY-NC-SA-4.0",
    commercial=False,
    citation=_NT_CITATION,
)

NT_V1 = replace(
    NT_V2,
    name="nt-v1",
    adapter="nt-v1/1",
    loader="embedcache.encoders.nt:load_v1",
    max_tokens=999,
    trained_tokens=999,
    unused=ESM_UNUSED,
    config={
        "model_type": "esm",
        "position_embedding_type": "absolute",
        "vocab_size": 4105,
        "token_dropout": True,
        "emb_layer_norm_before": False,
    },
    from_memory=True,
)


CARDS = (
    one_size(NT_V2, "nt-v2-50m", f"{_INSTADEEP}-v2-50m-multi-species", (512, 12, 16), revision=_COMMIT_50M),
    one_size(NT_V2, "nt-v2-100m", f"{_INSTADEEP}-v2-100m-multi-species", (512, 22, 16)),
    one_size(NT_V2, "nt-v2-250m", f"{_INSTADEEP}-v2-250m-multi-species", (768, 24, 16), from_memory=True),
    one_size(NT_V2, "nt-v2-500m", f"{_INSTADEEP}-v2-500m-multi-species", (1024, 29, 16)),
    one_size(NT_V1, "nt-v1-500m-human-ref", f"{_INSTADEEP}-500m-human-ref", (1280, 24, 20)),
    one_size(NT_V1, "nt-v1-500m-1000g", f"{_INSTADEEP}-500m-1000g", (1280, 24, 20)),
    one_size(NT_V1, "nt-v1-2.5b-1000g", f"{_INSTADEEP}-2.5b-1000g", (2560, 32, 20)),
    one_size(NT_V1, "nt-v1-2.5b-multi-species", f"{_INSTADEEP}-2.5b-multi-species", (2560, 32, 20)),
)
