"""Enformer of its authors: the Sonnet modules ``enformer.py`` and ``attention_module.py`` (TensorFlow).

Needs these two files of their public repository on the path, in the version of May 2022 or later ("to match trained
SOTA model"): it divides gamma densities by their maximum over positions. The version before divided by the maximum of
the whole table.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import attention_module
import cases
import enformer
import numpy as np
import reference
import sonnet as snt
import tensorflow as tf
from numpy.typing import NDArray

Pairs = list[tuple[tf.Variable, NDArray[np.float32]]]

# their own look at the signatures fails with the decorators of newer versions of Sonnet's dependencies
TRAINED = (
    enformer.Sequential,
    enformer.Residual,
    attention_module.MultiheadAttention,
    snt.Dropout,
    snt.distribute.CrossReplicaBatchNorm,
)


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors in its own places, every one of which must fit and none of which is left over."""
    sizes = case.sizes
    _set_sizes(sizes)
    enformer.accepts_is_training = lambda module: isinstance(module, TRAINED)
    model = enformer.Enformer(channels=sizes["width"] // 2, num_transformer_layers=sizes["layers"])
    stem, tower, transformer, _, pointwise = model.trunk._layers
    stages = (stem, tower, transformer, pointwise)  # no crop

    def embed(sequence: str) -> reference.Rows:
        x = tf.constant(enformer.one_hot_encode(sequence)[None])
        for stage in stages:
            x = stage(x, is_training=False)
        return {-1: x[0].numpy()}

    embed("A" * 256)  # makes the variables
    left = dict(tensors)
    pairs: Pairs = _conv(stem._layers[0], "stem.0", left) + _residual_and_pool(stem, "stem", left)
    for number, block in enumerate(tower._layers):
        pairs += _conv_block(block._layers[0], f"conv_tower.{number}.0", left)
        pairs += _residual_and_pool(block, f"conv_tower.{number}", left)
    for number, block in enumerate(transformer._layers):
        pairs += _attention(block, f"transformer.{number}", left)
    pairs += _conv_block(pointwise._layers[0], "final_pointwise.1", left)
    for variable, tensor in pairs:
        variable.assign(tensor)
    assert all(name.endswith("num_batches_tracked") for name in left), sorted(left)
    return embed


def _set_sizes(sizes: cases.Mapping[str, int]) -> None:
    """Other sizes than the published ones, which stand in their code."""
    attention, spread = attention_module.MultiheadAttention, enformer.exponential_linspace_int
    features = sizes["width"] // 2 // sizes["heads"]
    changed = {
        "key_size": sizes["key_dim"],
        "value_size": features,
        "num_heads": sizes["heads"],
        "num_relative_position_features": features,
    }
    attention_module.MultiheadAttention = lambda **settings: attention(**settings | changed)
    enformer.exponential_linspace_int = lambda start, end, num, **_: spread(start, end, num, sizes["divisor"])


def _conv(module: object, name: str, left: reference.Tensors) -> Pairs:
    return [(module.w, left.pop(f"{name}.weight").transpose(2, 1, 0)), (module.b, left.pop(f"{name}.bias"))]


def _linear(module: object, name: str, left: reference.Tensors, *, bias: bool = True) -> Pairs:
    return [(module.w, left.pop(f"{name}.weight").T)] + ([(module.b, left.pop(f"{name}.bias"))] if bias else [])


def _norm(module: object, name: str, left: reference.Tensors) -> Pairs:
    return [(module.scale, left.pop(f"{name}.weight")), (module.offset, left.pop(f"{name}.bias"))]


def _conv_block(module: object, name: str, left: reference.Tensors) -> Pairs:
    norm, _, conv = module._layers
    found = _norm(norm, f"{name}.0", left)
    found += [(norm.moving_mean.average, left.pop(f"{name}.0.running_mean"))]
    found += [(norm.moving_variance.average, left.pop(f"{name}.0.running_var"))]
    by_channel = [(variable, tensor.reshape(variable.shape)) for variable, tensor in found]  # the last axis
    return by_channel + _conv(conv, f"{name}.2", left)


def _residual_and_pool(module: object, name: str, left: reference.Tensors) -> Pairs:
    _, residual, pool = module._layers
    logits = left.pop(f"{name}.2.to_attn_logits.weight")[:, :, 0, 0].T
    return [*_conv_block(residual._module, f"{name}.1.fn", left), (pool._logit_linear.w, logits)]


def _attention(block: object, name: str, left: reference.Tensors) -> Pairs:
    first, second = (residual._module._layers for residual in block._layers)
    attention, at = first[1], f"{name}.0.fn.1"
    found = _norm(first[0], f"{name}.0.fn.0", left) + _linear(attention._embedding_layer, f"{at}.to_out", left)
    for part, layer in {
        "to_q": attention._q_layer,
        "to_k": attention._k_layer,
        "to_v": attention._v_layer,
        "to_rel_k": attention._r_k_layer,
    }.items():
        found += _linear(layer, f"{at}.{part}", left, bias=False)
    found += [(attention._r_w_bias, left.pop(f"{at}.rel_content_bias"))]
    found += [(attention._r_r_bias, left.pop(f"{at}.rel_pos_bias"))]
    found += _norm(second[0], f"{name}.1.fn.0", left) + _linear(second[1], f"{name}.1.fn.1", left)
    return found + _linear(second[4], f"{name}.1.fn.4", left)


if __name__ == "__main__":
    reference.run(load, ["tensorflow-cpu", "dm-sonnet"], "Enformer of deepmind-research")
