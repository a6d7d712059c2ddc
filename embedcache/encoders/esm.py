"""ESM-2: protein language models, through the ``EsmModel`` of transformers."""

from typing import Any

import torch
from transformers import EsmConfig, EsmModel

from embedcache.encoders.packing import PackedEncoder, Vocabulary
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import ESM_CLS, ESM_EOS, ESM_MASK, ESM_PAD, ESM_VOCABULARY, esm_ids
from embedcache.encoders.weights import Weights, fill_weights

__all__ = ["load"]


def load(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """Build ESM-2 in the architecture of the spec; weights None draws them from its seed."""
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model: Any = EsmModel(config(spec), add_pooling_layer=False)
    model.contact_head = None  # never called: no weights to ask for, none to train
    fill_weights(model, spec, weights)
    return PackedEncoder(spec, model, Vocabulary(ids=esm_ids, before=ESM_CLS, after=ESM_EOS), device)


def config(spec: EncoderSpec) -> EsmConfig:
    """Published settings of ESM-2, in the size of the spec."""
    return EsmConfig(
        vocab_size=len(ESM_VOCABULARY),
        pad_token_id=ESM_PAD,
        mask_token_id=ESM_MASK,
        hidden_size=spec.width,
        num_hidden_layers=spec.architecture["layers"],
        num_attention_heads=spec.architecture["heads"],
        intermediate_size=spec.architecture["feed_forward"],
        layer_norm_eps=spec.architecture["layer_norm_eps"],
        position_embedding_type="rotary",
        max_position_embeddings=1026,
        emb_layer_norm_before=False,
        token_dropout=True,  # scales every embedding by 0.88 where nothing is masked
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
