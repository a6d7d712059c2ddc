"""ESM C of its authors: the class ``ESMC`` and the tokenizer of the package ``esm``."""

import math

import cases
import numpy as np
import reference
import torch
from esm.models.esmc import ESMC
from esm.tokenization import get_esmc_model_tokenizers

PARTS = {  # of a block: their names there, and those of transformers, joined where several are one
    "attn.layernorm_qkv.0.weight": ("input_layernorm.weight",),
    "attn.layernorm_qkv.0.bias": ("input_layernorm.bias",),
    "attn.layernorm_qkv.1.weight": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "attn.out_proj.weight": ("self_attn.o_proj.weight",),
    "attn.q_ln.weight": ("self_attn.q_norm.weight",),
    "attn.k_ln.weight": ("self_attn.k_norm.weight",),
    "ffn.0.weight": ("post_attention_layernorm.weight",),
    "ffn.0.bias": ("post_attention_layernorm.bias",),
    "ffn.1.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),  # the first half goes through the swish
    "ffn.3.weight": ("mlp.down_proj.weight",),
}


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors under its own names; its head alone keeps what it was made with."""
    sizes = case.sizes
    tokenizer = get_esmc_model_tokenizers()
    model = ESMC(sizes["width"], sizes["heads"], sizes["layers"], tokenizer, use_flash_attn=False)
    state = {
        "embed.weight": tensors["esmc.embed_tokens.weight"],
        "transformer.norm.weight": tensors["esmc.norm.weight"],
    }
    for number in range(sizes["layers"]):
        for theirs, ours in PARTS.items():
            joined = np.concatenate([tensors[f"esmc.layers.{number}.{part}"] for part in ours])
            state[f"transformer.blocks.{number}.{theirs}"] = joined
    report = model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()}, strict=False)
    assert not report.unexpected_keys, report.unexpected_keys
    assert all(name.startswith("sequence_head.") for name in report.missing_keys), report.missing_keys
    assert model.transformer.blocks[0].scaling_factor == math.sqrt(sizes["layers"] / 36)
    model.eval()
    middle = sizes["layers"] // 2

    def embed(sequence: str) -> reference.Rows:
        with torch.inference_mode():
            found = model(model._tokenize([sequence]))
        rows = {middle: found.hidden_states[middle - 1], -1: found.embeddings}
        return {layer: one[0, 1:-1].numpy() for layer, one in rows.items()}  # <cls> before, <eos> behind

    return embed


if __name__ == "__main__":
    reference.run(load, ["esm", "torch"], "esm.models.esmc.ESMC")
