"""The network of the mini encoders: rotary ESM, with the letters of proteins, or with k-mers of bases.

Published as ``EsmForMaskedLM`` of transformers reads it: the encoder, and the head that it was trained with.
"""

from functools import partial
from typing import Any

import torch
from transformers import EsmConfig, EsmForMaskedLM, EsmModel

from embedcache.encoders.kmers import BASES, kmer_names
from embedcache.encoders.packing import PackedEncoder, Vocabulary
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import (
    ESM_CLS,
    ESM_EOS,
    ESM_MASK,
    ESM_PAD,
    ESM_VOCABULARY,
    NT_CLS,
    NT_MASK,
    NT_PAD,
    NT_V1_SPECIAL,
    base_ids,
    esm_ids,
    kmer_of,
)
from embedcache.encoders.weights import Weights, fill_weights

__all__ = ["build", "load", "names_of_tokens", "vocabulary"]


def load(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """The encoder in the architecture of the spec; weights None draws them from its seed."""
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model: Any = EsmModel(_config(spec), add_pooling_layer=False)
    model.contact_head = None  # never called: no weights to ask for, none to train
    fill_weights(model, spec, weights)
    return PackedEncoder(spec, model, vocabulary(spec.tokens), device)


def build(spec: EncoderSpec, deviation: float = 0.02) -> Any:
    """The encoder and the head that names masked tokens, freshly drawn from the global seed with this deviation."""
    config = _config(spec)
    config.initializer_range = deviation
    model: Any = EsmForMaskedLM(config)
    model.esm.contact_head = None
    return model


def vocabulary(rule: str) -> Vocabulary:
    """How sequences become ids under a rule of tokens."""
    if rule == "letter":
        return Vocabulary(ids=esm_ids, before=ESM_CLS, after=ESM_EOS)
    return Vocabulary(ids=partial(base_ids, rule=rule, special=len(NT_V1_SPECIAL)), before=NT_CLS)


def names_of_tokens(rule: str) -> list[str]:
    """All tokens in the order of their ids."""
    return list(ESM_VOCABULARY) if rule == "letter" else [*NT_V1_SPECIAL, *kmer_names(kmer_of(rule)), *BASES]


def _config(spec: EncoderSpec) -> EsmConfig:
    is_protein = spec.tokens == "letter"
    return EsmConfig(
        vocab_size=len(names_of_tokens(spec.tokens)),
        pad_token_id=ESM_PAD if is_protein else NT_PAD,
        mask_token_id=ESM_MASK if is_protein else NT_MASK,
        hidden_size=spec.width,
        num_hidden_layers=spec.architecture["layers"],
        num_attention_heads=spec.architecture["heads"],
        intermediate_size=spec.architecture["feed_forward"],
        layer_norm_eps=spec.architecture["layer_norm_eps"],
        position_embedding_type="rotary",
        max_position_embeddings=1026,
        emb_layer_norm_before=False,
        token_dropout=False,  # its scale would run over a whole pack, and training would not be what embedding is
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
