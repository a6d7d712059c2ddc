"""Nucleotide Transformers of their authors: the Haiku modules and the tokenizer of ``nucleotide_transformer`` (JAX).

Needs their public repository on the path; it is no package of an index.
"""

import re

import cases
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import reference
from nucleotide_transformer.model import NucleotideTransformerConfig, build_nucleotide_transformer_fn
from nucleotide_transformer.tokenizers import NucleotidesKmersTokenizer, compute_tokens_to_ids_v2

PLACES = {  # the end of a module's name in Haiku, and the published name; {} is the place of the block
    "self_attention/query": "esm.encoder.layer.{}.attention.self.query",
    "self_attention/key": "esm.encoder.layer.{}.attention.self.key",
    "self_attention/value": "esm.encoder.layer.{}.attention.self.value",
    "self_attention/mha_output": "esm.encoder.layer.{}.attention.output.dense",
    "self_attention_layer_norm": "esm.encoder.layer.{}.attention.LayerNorm",
    "final_layer_norm": "esm.encoder.layer.{}.LayerNorm",
    "fc1": "esm.encoder.layer.{}.intermediate.dense",
    "fc2": "esm.encoder.layer.{}.output.dense",
    "emb_layer_norm_after": "esm.encoder.emb_layer_norm_after",
    "lm_head_fc_1": "lm_head.dense",
    "lm_head_layer_norm": "lm_head.layer_norm",
    "lm_final_fc": "lm_head.decoder",
    "positional_embeddings/~/embed": "esm.embeddings.position_embeddings",
    "embed": "esm.embeddings.word_embeddings",
}


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors in its own places, every one of which must fit."""
    sizes, is_v2 = case.sizes, case.family == "nt-v2"
    table = compute_tokens_to_ids_v2(6)[0] if is_v2 else None
    tokenizer = NucleotidesKmersTokenizer(k_mers=6, prepend_cls_token=True, tokens_to_ids=table)
    middle, last = sizes["layers"] // 2, sizes["layers"]
    config = NucleotideTransformerConfig(
        alphabet_size=4107 if is_v2 else 4105,
        pad_token_id=tokenizer.pad_token_id,
        mask_token_id=tokenizer.mask_token_id,
        max_positions=1000,
        attention_heads=sizes["heads"],
        embed_dim=sizes["width"],
        ffn_embed_dim=sizes["feed_forward"],
        num_layers=last,
        positional_embedding=None if is_v2 else "learned",
        add_bias_ffn=not is_v2,
        use_rotary_embedding=is_v2,
        ffn_activation_name="swish" if is_v2 else "gelu-no-approx",
        use_glu_in_ffn=is_v2,
        token_dropout=not is_v2,
        masking_ratio=0.15,
        masking_prob=0.8,
        embeddings_layers_to_save=(middle, last),
    )
    network = hk.transform(build_nucleotide_transformer_fn(config))
    places = jax.eval_shape(network.init, jax.random.PRNGKey(0), jnp.zeros((1, 4), jnp.int32))
    parameters = {
        module: {name: _parameter(module, name, tensors, wanted) for name, wanted in found.items()}
        for module, found in places.items()
    }

    def embed(sequence: str) -> reference.Rows:
        ids = jnp.asarray([tokenizer.tokenize(sequence)[1]], jnp.int32)
        found = network.apply(parameters, jax.random.PRNGKey(0), ids)
        rows = {middle: found[f"embeddings_{middle}"], -1: found[f"embeddings_{last}"]}
        return {layer: np.asarray(one[0, 1:]) for layer, one in rows.items()}  # <cls> before

    return embed


def _parameter(module: str, name: str, tensors: reference.Tensors, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    place = next(published for end, published in PLACES.items() if module.endswith(end))
    if block := re.search(r"attention_layer_(\d+)/", module):
        place = place.format(block[1])
    if place == "lm_head.decoder" and name == "b":
        place = "lm_head"
    kind = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias", "embeddings": "weight"}[name]
    tensor = tensors[f"{place}.{kind}"]
    tensor = tensor.T if name == "w" else tensor
    assert tensor.shape == wanted.shape, f"{module} {name}: {tensor.shape}, expected {wanted.shape}"
    return jnp.asarray(tensor)


if __name__ == "__main__":
    reference.run(load, ["jax", "jaxlib", "dm-haiku"], "nucleotide_transformer.model.NucleotideTransformer")
