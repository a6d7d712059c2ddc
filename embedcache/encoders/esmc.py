"""ESM C (Cambrian): protein language models, through the ``EsmcModel`` of transformers.

Rotary like ESM-2, with other parts: queries and keys are normalised over their whole width, the feed-forward is gated,
nothing has a bias but two of the normalisations, and each branch is divided by the root of a 36th of the depth.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import EsmcConfig, EsmcModel

from embedcache.encoders.attention import attend_by_runs
from embedcache.encoders.blocks import PackState, block_step, collect_layers, runs_in_place
from embedcache.encoders.linear import linear, linear_joined
from embedcache.encoders.packing import Network, PackedEncoder, Vocabulary
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import ESM_CLS, ESM_EOS, ESM_MASK, ESM_PAD, esm_ids
from embedcache.encoders.weights import Weights, fill_weights

__all__ = ["load"]

ROWS = 64
"""Rows of the embedding table; the letters of ESM-2 stand in the first 33, ``|`` in place of ``<null_1>``."""


def load(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """Build ESM C in the architecture of the spec; weights None draws them from its seed."""
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model: Any = EsmcModel(config(spec))
    fill_weights(model, spec, weights)
    vocabulary = Vocabulary(ids=esm_ids, before=ESM_CLS, after=ESM_EOS)
    network = Network(run=run_blocks, blocks="layers", norm="norm")
    return PackedEncoder(spec, model, vocabulary, device, network)


def config(spec: EncoderSpec) -> EsmcConfig:
    """Published settings of ESM C, in the size of the spec."""
    return EsmcConfig(
        vocab_size=ROWS,
        pad_token_id=ESM_PAD,
        bos_token_id=ESM_CLS,
        eos_token_id=ESM_EOS,
        mask_token_id=ESM_MASK,
        hidden_size=spec.width,
        num_hidden_layers=spec.architecture["layers"],
        num_attention_heads=spec.architecture["heads"],
        intermediate_size=spec.architecture["feed_forward"],
        rope_parameters={"rope_type": "default", "rope_theta": spec.architecture["rope_theta"]},
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
        attention_dropout=0.0,
    )


def run_blocks(model: Any, inputs: dict[str, Any], layers: Sequence[int]) -> dict[int, Tensor]:
    """Take a pack through the model, as ``blocks.run_blocks`` does with an ``EsmModel``."""
    x = inputs["rows"] if "rows" in inputs else model.embed_tokens(inputs["input_ids"])  # (1, N, D)
    in_place = runs_in_place(x)
    # cos, sin: (1, N, d); the modules want them in the number format of the rows
    turns = model.rotary_emb(x.float() if in_place else x, inputs["position_ids"])
    state = PackState.of(model, inputs["runs"], turns) if in_place else None
    step = block_step(_block, inputs, turns, state)
    return collect_layers(model.layers, step, x, layers, model.norm, inputs=inputs)


def _block(block: Any, x: Tensor, state: PackState) -> Tensor:
    """One block on a CPU: (N, D) to (N, D), a new tensor."""
    assert state.turns is not None, "ESM C is rotary"
    inner, mlp, width = block.self_attn, block.mlp, x.shape[1]
    parts = (inner.q_proj, inner.k_proj, inner.v_proj), (state.order, state.order, state.unchanged)
    mixed = linear_joined(*parts, block.input_layernorm(x)).float()  # (N, 3 D)
    for rows, norm in zip(mixed.chunk(3, dim=1), (inner.q_norm, inner.k_norm), strict=False):  # values are left
        # mean and variance do not care for the order of columns, the weights go with it
        rows.copy_(F.layer_norm(rows, (width,), norm.weight[state.order].float(), None, norm.eps))
    pairs = mixed[:, : 2 * width].view(len(x), 2 * state.heads, -1, 2)
    torch.view_as_complex(pairs).mul_(state.turns)
    query, key, value = mixed.view(len(x), 3 * state.heads, -1).chunk(3, dim=1)  # (N, heads, d) each
    seen = attend_by_runs(query, key, value, state.runs, inner.scaling).flatten(1).to(x.dtype)
    x = linear(inner.o_proj, seen).div_(block.scaling_factor).add_(x)
    y = block.post_attention_layernorm(x)
    gated = F.silu(linear(mlp.gate_proj, y)).mul_(linear(mlp.up_proj, y))
    return linear(mlp.down_proj, gated).div_(block.scaling_factor).add_(x)
