"""ESM-2 of its authors: the class ``esm.ESM2`` and the alphabet of fair-esm."""

import cases
import reference
import torch
from esm import ESM2, Alphabet

NAMES = {  # parts of the name of a tensor as published, and in fair-esm; applied in this order
    "esm.embeddings.word_embeddings": "embed_tokens",
    "esm.encoder.emb_layer_norm_after": "emb_layer_norm_after",
    "esm.encoder.layer.": "layers.",
    "esm.contact_head": "contact_head",
    ".attention.LayerNorm": ".self_attn_layer_norm",
    ".attention.output.dense": ".self_attn.out_proj",
    ".attention.self.query": ".self_attn.q_proj",
    ".attention.self.key": ".self_attn.k_proj",
    ".attention.self.value": ".self_attn.v_proj",
    ".attention.self.rotary_embeddings": ".self_attn.rot_emb",
    ".LayerNorm": ".final_layer_norm",
    ".intermediate.dense": ".fc1",
    ".output.dense": ".fc2",
    "lm_head.decoder.weight": "lm_head.weight",
}


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors under its own names, every one of which must fit."""
    alphabet = Alphabet.from_architecture("ESM-1b")
    sizes = case.sizes
    model = ESM2(sizes["layers"], sizes["width"], sizes["heads"], alphabet, token_dropout=True)
    assert sizes["feed_forward"] == 4 * sizes["width"], "fair-esm knows no other"
    named = {name: tensor for name, tensor in tensors.items() if "esm.embeddings.position" not in name}
    for ours, theirs in NAMES.items():
        named = {name.replace(ours, theirs): tensor for name, tensor in named.items()}
    named["lm_head.weight"] = named["embed_tokens.weight"]  # one tensor there; it plays no part here
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in named.items()}, strict=True)
    model.eval()
    convert = alphabet.get_batch_converter()
    middle, last = sizes["layers"] // 2, sizes["layers"]

    def embed(sequence: str) -> reference.Rows:
        _, _, ids = convert([("", sequence)])
        with torch.inference_mode():
            found = model(ids, repr_layers=[middle, last])["representations"]
        return {
            layer: found[number][0, 1:-1].numpy()  # <cls> before, <eos> behind
            for layer, number in ((middle, middle), (-1, last))
        }

    return embed


if __name__ == "__main__":
    reference.run(load, ["fair-esm", "torch"], "esm.ESM2")
