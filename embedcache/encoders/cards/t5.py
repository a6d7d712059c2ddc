"""ProtT5, ProstT5 and Ankh: the encoder half of T5 networks trained on proteins."""

from dataclasses import replace

from embedcache.encoders.cards.card import EncoderCard, one_size

__all__ = ["ANKH", "CARDS", "PROTT5"]

PROTT5 = EncoderCard(
    name="prott5",
    modalities=("protein",),
    adapter="t5/1",
    loader="embedcache.encoders.t5:load_prott5",
    width=0,
    settings={"key_dim": 128, "buckets": 32, "max_distance": 128, "activation": "relu", "layer_norm_eps": 1e-6},
    tokens="letter",
    special=(0, 1),
    trained_tokens=511,
    key_prefix="encoder.",
    unused=("decoder.", "lm_head."),
    same={"encoder.embed_tokens.weight": ("shared.weight", "decoder.embed_tokens.weight")},
    config={"model_type": "t5", "vocab_size": 128},
    shape={
        "width": "d_model",
        "layers": "num_layers",
        "heads": "num_heads",
        "feed_forward": "d_ff",
        "key_dim": "d_kv",
        "buckets": "relative_attention_num_buckets",
        "max_distance": "relative_attention_max_distance",
        "activation": "feed_forward_proj",
        "layer_norm_eps": "layer_norm_epsilon",
    },
    # as in published code that loads the files; the files themselves were never seen
    from_memory=True,
    licence="AFL-3.0",
    commercial=True,
    citation="Elnaggar et al., IEEE TPAMI 2022, doi:10.1109/TPAMI.2021.3095381",
)

PROSTT5 = replace(
    PROTT5,
    loader="embedcache.encoders.t5:load_prostt5",
    special=(1, 1),
    trained_tokens=510,
    config={"model_type": "t5", "vocab_size": 150},
    licence="MIT",
    citation="Heinzinger et al., NAR Genomics and Bioinformatics 2024, doi:10.1093/nargab/lqae150",
)

ANKH = replace(
    PROTT5,
    name="ankh",
    loader="embedcache.encoders.t5:load_ankh",
    settings={"key_dim": 64, "buckets": 64, "max_distance": 128, "activation": "gated-gelu", "layer_norm_eps": 1e-6},
    config={"model_type": "t5", "vocab_size": 144},
    licence="CC-BY-NC-SA-4.0",
    commercial=False,
    citation="Elnaggar et al., arXiv 2023, doi:10.48550/arXiv.2301.06568",
)

_XL = (1024, 24, 32)

CARDS = (
    one_size(PROTT5, "prott5-xl", "Rostlab/prot_t5_xl_uniref50", _XL, feed_forward=16384),
    one_size(PROTT5, "prott5-xl-half", "Rostlab/prot_t5_xl_half_uniref50-enc", _XL, feed_forward=16384),
    one_size(PROSTT5, "prostt5", "Rostlab/ProstT5", _XL, feed_forward=16384),
    one_size(ANKH, "ankh-base", "ElnaggarLab/ankh-base", (768, 48, 12), feed_forward=3072),
    one_size(ANKH, "ankh-large", "ElnaggarLab/ankh-large", (1536, 48, 16), feed_forward=3840),
)
