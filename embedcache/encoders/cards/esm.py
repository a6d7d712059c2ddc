"""ESM-2, and what all models of its architecture share."""

from embedcache.encoders.cards.card import EncoderCard, one_size

__all__ = ["CARDS", "ESM2", "ESM_SHAPE", "ESM_UNUSED", "ROTARY_UNUSED"]

ESM_UNUSED = ("lm_head.", "contact_head.", "pooler.", "embeddings.position_ids")
# rotary models carry a table of learned positions that they never read
ROTARY_UNUSED = (*ESM_UNUSED, "embeddings.position_embeddings.")
ESM_SHAPE = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "layer_norm_eps": "layer_norm_eps",
}

ESM2 = EncoderCard(
    name="esm2",
    modalities=("protein",),
    adapter="esm2/1",
    loader="embedcache.encoders.esm:load",
    width=0,
    settings={"layer_norm_eps": 1e-5},
    tokens="letter",
    special=(1, 1),
    trained_tokens=1022,
    key_prefix="esm.",
    unused=ROTARY_UNUSED,
    config={
        "model_type": "esm",
        "position_embedding_type": "rotary",
        "vocab_size": 33,
        "token_dropout": True,
        "emb_layer_norm_before": False,
        "is_folding_model": False,
    },
    shape=ESM_SHAPE,
    licence="MIT",
    commercial=True,
    citation="Lin et al., Science 2023, doi:10.1126/science.ade2574",
)

CARDS = (
    one_size(ESM2, "esm2-8m", "facebook/esm2_t6_8M_UR50D", (320, 6, 20)),
    one_size(ESM2, "esm2-35m", "facebook/esm2_t12_35M_UR50D", (480, 12, 20)),
    one_size(ESM2, "esm2-150m", "facebook/esm2_t30_150M_UR50D", (640, 30, 20)),
    one_size(ESM2, "esm2-650m", "facebook/esm2_t33_650M_UR50D", (1280, 33, 20)),
    one_size(ESM2, "esm2-3b", "facebook/esm2_t36_3B_UR50D", (2560, 36, 40)),
    one_size(ESM2, "esm2-15b", "facebook/esm2_t48_15B_UR50D", (5120, 48, 40)),
)
