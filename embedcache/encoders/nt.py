"""Nucleotide Transformers: 6-mers of DNA or of RNA in DNA letters.

Version 1 is the ``EsmModel`` of transformers with learned absolute positions. Version 2 is rotary ESM with
a gated feed-forward, ``output(silu(a) * b)`` with ``a, b = intermediate(x).chunk(2)``, without biases;
transformers cannot load it, so the block is replaced here.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EsmConfig, EsmModel

from embedcache.encoders.linear import linear
from embedcache.encoders.packing import PackedEncoder, Vocabulary
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import (
    NT_CLS,
    NT_MASK,
    NT_PAD,
    NT_V1_SPECIAL,
    NT_V2_SPECIAL,
    nt_ids,
    nt_vocabulary,
)
from embedcache.encoders.weights import Weights, draw_normal, fill_weights, seed_of

__all__ = ["GatedIntermediate", "build_v1", "build_v2", "load_v1", "load_v2"]


class GatedIntermediate(nn.Module):
    """First half of the feed-forward of version 2; the name ``dense`` is fixed by the published files."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 2 * feed_forward, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., feed_forward)."""
        gate, value = linear(self.dense, x).chunk(2, dim=-1)  # the first half goes through the swish
        activated: Tensor = nn.functional.silu(gate) * value
        return activated


def load_v1(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """Version 1 in the architecture of the spec; weights None draws them from its seed."""
    # positions of the table begin one past the padding id
    return _encoder(spec, build_v1(spec), weights, NT_V1_SPECIAL, device, first_position=NT_PAD + 1)


def load_v2(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """Version 2 in the architecture of the spec; weights None draws them from its seed."""
    return _encoder(spec, build_v2(spec), weights, NT_V2_SPECIAL, device, first_position=0)


def build_v1(spec: EncoderSpec) -> Any:
    """The network of version 1, its weights not set yet."""
    settings = {"position_embedding_type": "absolute", "max_position_embeddings": 1002, "token_dropout": True}
    return _model(spec, NT_V1_SPECIAL, settings)


def build_v2(spec: EncoderSpec) -> Any:
    """The network of version 2, its weights not set yet."""
    settings = {"position_embedding_type": "rotary", "max_position_embeddings": 2050, "token_dropout": False}
    model = _model(spec, NT_V2_SPECIAL, settings)
    feed_forward = spec.architecture["feed_forward"]
    with torch.random.fork_rng(devices=[]):
        for layer in model.encoder.layer:
            layer.intermediate = GatedIntermediate(spec.width, feed_forward)
            layer.output.dense = nn.Linear(feed_forward, spec.width, bias=False)
    return model


def _model(spec: EncoderSpec, special: tuple[str, ...], settings: dict[str, Any]) -> Any:
    config = EsmConfig(
        vocab_size=len(nt_vocabulary(special)),
        pad_token_id=NT_PAD,
        mask_token_id=NT_MASK,
        hidden_size=spec.width,
        num_hidden_layers=spec.architecture["layers"],
        num_attention_heads=spec.architecture["heads"],
        intermediate_size=spec.architecture["feed_forward"],
        layer_norm_eps=spec.architecture["layer_norm_eps"],
        emb_layer_norm_before=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model: Any = EsmModel(config, add_pooling_layer=False)
    model.contact_head = None  # never called: no weights to ask for, none to train
    return model


def _encoder(
    spec: EncoderSpec,
    model: Any,
    weights: Weights | None,
    special: tuple[str, ...],
    device: str,
    *,
    first_position: int,
) -> PackedEncoder:
    fill_weights(model, spec, weights)
    seed = seed_of(spec)
    if seed is not None:
        _show_bases(model.embeddings.word_embeddings.weight, seed, len(special))
    vocabulary = Vocabulary(ids=partial(nt_ids, special=len(special)), before=NT_CLS, first_position=first_position)
    return PackedEncoder(spec, model, vocabulary, device)


@torch.no_grad()
def _show_bases(embeddings: Tensor, seed: int, special: int) -> None:
    """Let drawn embeddings of 6-mers share a part for each base at each place, as trained ones do.

    With 4,096 unrelated vectors in a small width, composition would drown in the noise of counting.
    """
    kmers = embeddings[special : special + 4**6]  # (4096, D), in the order product("ATCG")
    base_at = torch.cartesian_prod(*[torch.arange(4)] * 6)  # (4096, 6)
    bases = draw_normal((6, 4, kmers.shape[1]), seed, "bases of 6-mers").to(kmers)
    shared = bases[torch.arange(6), base_at].sum(1) / 6**0.5  # (4096, D), deviation 1
    kmers.mul_(0.6).add_(shared, alpha=0.8)
