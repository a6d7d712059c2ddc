"""Weights that can be drawn again anywhere: a number depends on the seed, the name of its tensor and its place there.

Needs NumPy alone, so that it runs beside every public implementation and in our tests. Scales keep a network of any
depth alive: every block answers to its input, nothing explodes, and normalisations are never the identity.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Layout",
    "borzoi_layout",
    "draw_tensors",
    "enformer_layout",
    "esm_layout",
    "esmc_layout",
    "rotary_frequencies",
    "t5_layout",
]

Layout = dict[str, tuple[int, ...]]
"""Shapes of the tensors of a published file, by name."""

_TABLES = ("embeddings.weight", "embed_tokens.weight", "shared.weight", "relative_attention_bias.weight")


def draw_tensors(layout: Mapping[str, Iterable[int]], seed: int) -> dict[str, NDArray[Any]]:
    """All tensors of a layout."""
    return {name: _draw(name, tuple(shape), seed) for name, shape in layout.items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    last = name.rsplit(".", 1)[-1]
    if last in _FIXED:
        return _FIXED[last](shape)
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    normal = np.random.default_rng([seed, key]).standard_normal(shape, np.float32)
    if last == "running_var":
        return np.exp(np.float32(0.2) * normal)
    if len(shape) == 1:
        return np.float32(last == "weight") + np.float32(0.1) * normal
    if name.endswith(_TABLES):
        return normal
    scale = 0.25 if last.startswith("rel_") else np.prod(shape[1:], dtype=float) ** -0.5
    if name.endswith(("query.weight", "key.weight", "to_q.weight", "to_k.weight")):
        scale *= 1.5  # else attention were close to a plain mean
    if name.endswith("SelfAttention.q.weight"):
        scale *= 0.15  # T5 does not divide scores by the root of the width of a head
    return np.float32(scale) * normal


def rotary_frequencies(head: int) -> NDArray[np.float32]:
    """As the published files of ESM-2 and NT-v2 hold them, (head / 2,)."""
    return (1 / 10_000 ** (np.arange(0, head, 2, dtype=np.float64) / head)).astype(np.float32)


_FIXED: dict[str, Callable[[tuple[int, ...]], NDArray[Any]]] = {
    "num_batches_tracked": lambda _: np.array(1000),
    "position_ids": lambda shape: np.arange(shape[1])[None],
    "inv_freq": lambda shape: rotary_frequencies(2 * shape[0]),
}


def esm_layout(sizes: Mapping[str, int], vocabulary: int, positions: int, *, gated: bool, rotary: bool) -> Layout:
    """ESM-2 and both Nucleotide Transformers, with the language-model head and all that plays no part here."""
    width, inner = sizes["width"], sizes["feed_forward"]
    layout: Layout = {
        "esm.embeddings.word_embeddings.weight": (vocabulary, width),
        "esm.embeddings.position_embeddings.weight": (positions, width),
        "esm.embeddings.position_ids": (1, positions),
        "esm.contact_head.regression.weight": (1, sizes["layers"] * sizes["heads"]),
        "esm.contact_head.regression.bias": (1,),
        "lm_head.bias": (vocabulary,),
        "lm_head.decoder.weight": (vocabulary, width),
        **_linear("lm_head.dense", width, width),
        **_norm("lm_head.layer_norm", width),
        **_norm("esm.encoder.emb_layer_norm_after", width),
    }
    for number in range(sizes["layers"]):
        at = f"esm.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            layout |= _linear(f"{at}.attention.self.{part}", width, width)
        if rotary:
            layout[f"{at}.attention.self.rotary_embeddings.inv_freq"] = (width // sizes["heads"] // 2,)
        layout |= _linear(f"{at}.attention.output.dense", width, width)
        layout |= _norm(f"{at}.attention.LayerNorm", width) | _norm(f"{at}.LayerNorm", width)
        layout |= _linear(f"{at}.intermediate.dense", width, 2 * inner if gated else inner, bias=not gated)
        layout |= _linear(f"{at}.output.dense", inner, width, bias=not gated)
    return layout


def esmc_layout(sizes: Mapping[str, int]) -> Layout:
    """ESM C under the names of transformers, without its head."""
    width, inner = sizes["width"], sizes["feed_forward"]
    layout: Layout = {"esmc.embed_tokens.weight": (64, width), "esmc.norm.weight": (width,)}
    for number in range(sizes["layers"]):
        at = f"esmc.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            layout |= _linear(f"{at}.self_attn.{part}", width, width, bias=False)
        layout |= {f"{at}.self_attn.{part}_norm.weight": (width,) for part in "qk"}
        layout |= _norm(f"{at}.input_layernorm", width) | _norm(f"{at}.post_attention_layernorm", width)
        for part in ("gate_proj", "up_proj"):
            layout |= _linear(f"{at}.mlp.{part}", width, inner, bias=False)
        layout |= _linear(f"{at}.mlp.down_proj", inner, width, bias=False)
    return layout


def t5_layout(sizes: Mapping[str, int], vocabulary: int, *, gated: bool) -> Layout:
    """The encoder half of T5."""
    width, inner, heads = sizes["width"], sizes["feed_forward"], sizes["heads"] * sizes["key_dim"]
    layout: Layout = {"shared.weight": (vocabulary, width), "encoder.final_layer_norm.weight": (width,)}
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    layout[bias] = (sizes["buckets"], sizes["heads"])
    for number in range(sizes["layers"]):
        first, last = (f"encoder.block.{number}.layer.{half}" for half in (0, 1))
        for part in "qkv":
            layout |= _linear(f"{first}.SelfAttention.{part}", width, heads, bias=False)
        layout |= _linear(f"{first}.SelfAttention.o", heads, width, bias=False)
        for part in ("wi_0", "wi_1") if gated else ("wi",):
            layout |= _linear(f"{last}.DenseReluDense.{part}", width, inner, bias=False)
        layout |= _linear(f"{last}.DenseReluDense.wo", inner, width, bias=False)
        layout |= {f"{half}.layer_norm.weight": (width,) for half in (first, last)}
    return layout


def enformer_layout(sizes: Mapping[str, int]) -> Layout:
    """The trunk of Enformer; ``width`` is that of its output, twice that of its transformer."""
    dim, half = sizes["width"] // 2, sizes["width"] // 4
    widths = [half, *(round(half * 2 ** (i / 5) / sizes["divisor"]) * sizes["divisor"] for i in range(6))]
    layout: Layout = {"stem.0.weight": (half, 4, 15), "stem.0.bias": (half,)}
    layout |= _residual_and_pool("stem", half)
    for number, (before, after) in enumerate(pairwise(widths)):
        at = f"conv_tower.{number}"
        layout |= _conv_block(f"{at}.0", before, after, 5) | _residual_and_pool(at, after)
    keys = sizes["heads"] * sizes["key_dim"]
    for number in range(sizes["layers"]):
        first, second = f"transformer.{number}.0.fn", f"transformer.{number}.1.fn"
        for part, (before, after) in {
            "to_q": (dim, keys),
            "to_k": (dim, keys),
            "to_v": (dim, dim),
            "to_rel_k": (dim // sizes["heads"], keys),
        }.items():
            layout |= _linear(f"{first}.1.{part}", before, after, bias=False)
        for part in ("rel_content_bias", "rel_pos_bias"):
            layout[f"{first}.1.{part}"] = (1, sizes["heads"], 1, sizes["key_dim"])
        layout |= _norm(f"{first}.0", dim) | _linear(f"{first}.1.to_out", dim, dim) | _norm(f"{second}.0", dim)
        layout |= _linear(f"{second}.1", dim, 2 * dim) | _linear(f"{second}.4", 2 * dim, dim)
    return layout | _conv_block("final_pointwise.1", widths[-1], 2 * dim, 1)


def borzoi_layout(sizes: Mapping[str, int], *, flashed: bool) -> Layout:
    """Borzoi or Flashzoi with the head of its tracks, if there are any."""
    dim, channels = sizes["dim"], (512, 608, 736, 896, 1056, 1280)
    layout: Layout = _conv("conv_dna.conv_layer", 4, channels[0], 15)
    for number, (before, after) in enumerate(pairwise(channels)):  # poolings stand in between
        layout |= _named_conv_block(f"res_tower.{2 * number}", before, after, 5)
    layout |= _named_conv_block("unet1.1", channels[-1], dim, 5)
    layout |= _named_conv_block("horizontal_conv0", channels[-1], dim, 1)
    layout |= _named_conv_block("final_joined_convs.0", dim, 1920, 1)
    for name in ("horizontal_conv1", "upsampling_unet1.0", "upsampling_unet0.0"):
        layout |= _named_conv_block(name, dim, dim, 1)
    for name in ("separable1", "separable0"):
        layout[f"{name}.conv_layer.0.weight"] = (dim, 1, 3)
        layout |= _conv(f"{name}.conv_layer.1", dim, dim, 1)
    for number in range(sizes["layers"]):
        first, second = f"transformer.{number}.0.fn", f"transformer.{number}.1.fn"
        layout |= _norm(f"{first}.0", dim) | _norm(f"{second}.0", dim)
        layout |= _shared_keys(f"{first}.1.mha", dim, sizes) if flashed else _relative_keys(f"{first}.1", dim, sizes)
        layout |= _linear(f"{second}.1", dim, 2 * dim) | _linear(f"{second}.4", 2 * dim, dim)
    tracks = sizes.get("tracks", 7611)
    return layout | (_conv("human_head", 1920, tracks, 1) if tracks else {})


def _shared_keys(name: str, dim: int, sizes: Mapping[str, int]) -> Layout:
    shared = 2 * sizes["key_value_heads"] * dim // sizes["heads"]
    return _linear(f"{name}.Wqkv", dim, dim + shared) | _linear(f"{name}.out_proj", dim, dim)


def _relative_keys(name: str, dim: int, sizes: Mapping[str, int]) -> Layout:
    keys, values = sizes["heads"] * sizes["key_dim"], sizes["heads"] * sizes["value_dim"]
    outputs = {"to_q": (dim, keys), "to_k": (dim, keys), "to_v": (dim, values), "to_rel_k": (32, keys)}
    layout = _linear(f"{name}.to_out", values, dim)
    for part, (before, after) in outputs.items():
        layout |= _linear(f"{name}.{part}", before, after, bias=False)
    biases = {f"{name}.rel_{part}_bias": (1, sizes["heads"], 1, sizes["key_dim"]) for part in ("content", "pos")}
    return layout | biases


def _conv(name: str, before: int, after: int, kernel: int) -> Layout:
    return {f"{name}.weight": (after, before, kernel), f"{name}.bias": (after,)}


def _named_conv_block(name: str, before: int, after: int, kernel: int) -> Layout:
    norm = f"{name}.norm"
    statistics: Layout = {f"{norm}.running_mean": (before,), f"{norm}.running_var": (before,)}
    statistics[f"{norm}.num_batches_tracked"] = ()
    return _norm(norm, before) | statistics | _conv(f"{name}.conv_layer", before, after, kernel)


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Layout:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int) -> Layout:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv_block(name: str, before: int, after: int, kernel: int) -> Layout:
    statistics: Layout = {f"{name}.0.running_mean": (before,), f"{name}.0.running_var": (before,)}
    statistics[f"{name}.0.num_batches_tracked"] = ()
    return (
        _norm(f"{name}.0", before)
        | statistics
        | {f"{name}.2.weight": (after, before, kernel), f"{name}.2.bias": (after,)}
    )


def _residual_and_pool(name: str, width: int) -> Layout:
    return _conv_block(f"{name}.1.fn", width, width, 1) | {f"{name}.2.to_attn_logits.weight": (width, width, 1, 1)}
