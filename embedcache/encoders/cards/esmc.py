"""ESM C (Cambrian)."""

from embedcache.encoders.cards.card import EncoderCard, one_size

__all__ = ["CARDS", "ESMC"]

ESMC = EncoderCard(
    name="esmc",
    modalities=("protein",),
    adapter="esmc/1",
    loader="embedcache.encoders.esmc:load",
    width=0,
    settings={"rope_theta": 10000.0},
    tokens="letter",
    special=(1, 1),
    trained_tokens=2046,
    key_prefix="esmc.",
    unused=("lm_head.",),
    config={"model_type": "esmc", "vocab_size": 64},
    shape={
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "rope_theta": "rope_parameters.rope_theta",
    },
    # as in published code that loads the files; the files themselves were never seen
    from_memory=True,
    licence="MIT",
    commercial=True,
    citation="ESM Team, ESM Cambrian, 2024, https://evolutionaryscale.ai/blog/esm-cambrian",
)

CARDS = (
    one_size(ESMC, "esmc-300m", "biohub/ESMC-300M", (960, 30, 15), feed_forward=2560),
    one_size(ESMC, "esmc-600m", "biohub/ESMC-600M", (1152, 36, 18), feed_forward=3072),
    one_size(ESMC, "esmc-6b", "biohub/ESMC-6B", (2560, 80, 40), feed_forward=6912),
)
