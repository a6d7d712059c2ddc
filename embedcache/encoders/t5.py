"""ProtT5, ProstT5 and Ankh: the encoder half of T5, through the ``T5Stack`` of transformers.

Positions enter as a bias on the scores that depends on the distance of two residues, so that sequences can be packed
(see ``attention``). The rows between blocks are float32 in any number format, as in transformers' own half precision,
and are never clamped: numbers that float16 cannot hold are an error, not other numbers.

All write a residue as one token: ``ids`` of the vocabularies are A 3, L 4, G 5 and so on, ``</s>`` 1 at the end.
ProtT5 and ProstT5 were trained with the rare residues U, Z, O, B as X; J, for which there is no token, is X too.
Ankh has tokens for them; J is ``<unk>``. ProstT5 begins with ``<AA2fold>``, which says that residues follow.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

from embedcache.encoders.attention import Runs, attend_by_runs
from embedcache.encoders.blocks import collect_layers
from embedcache.encoders.linear import linear
from embedcache.encoders.packing import Network, PackedEncoder, Vocabulary
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.weights import Weights, fill_weights, seed_of
from embedcache.errors import InvalidInputError

__all__ = ["ankh_ids", "load_ankh", "load_prostt5", "load_prott5", "prott5_ids"]

RESIDUES = "ALGVSREDTIPKFQNYMHWCXBOUZ"
"""Letters in the order of their ids, which begin behind ``<pad>``, ``</s>`` and ``<unk>``."""
EOS, UNKNOWN, FIRST = 1, 2, 3
AA2FOLD = 149
ACTIVATIONS = ("relu", "gated-gelu")


def load_prott5(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """ProtT5 in the architecture of the spec; weights None draws them from its seed."""
    return _load(spec, weights, device, rows=128, vocabulary=Vocabulary(ids=prott5_ids, before=None, after=EOS))


def load_prostt5(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """ProstT5 reading residues, not 3Di letters; as ``load_prott5``."""
    return _load(spec, weights, device, rows=150, vocabulary=Vocabulary(ids=prott5_ids, before=AA2FOLD, after=EOS))


def load_ankh(spec: EncoderSpec, weights: Weights | None, device: str) -> PackedEncoder:
    """Ankh, as ``load_prott5``."""
    return _load(spec, weights, device, rows=144, vocabulary=Vocabulary(ids=ankh_ids, before=None, after=EOS))


def _table(unknown: int, **others: int) -> NDArray[np.int64]:
    table = np.full(256, unknown, np.int64)
    for index, letter in enumerate(RESIDUES):
        table[ord(letter)] = others.get(letter, FIRST + index)
    return table


_X = FIRST + RESIDUES.index("X")
_ANKH = _table(UNKNOWN)
_PROTT5 = _table(_X, U=_X, Z=_X, O=_X, B=_X)


def ankh_ids(sequence: str) -> NDArray[np.int64]:
    """Ids of residues for Ankh, one a letter, without ``</s>``; J is ``<unk>``."""
    return _ids(sequence, _ANKH)


def prott5_ids(sequence: str) -> NDArray[np.int64]:
    """Ids of residues for ProtT5 and ProstT5, one a letter, without special tokens; B, J, O, U and Z are X."""
    return _ids(sequence, _PROTT5)


def _ids(sequence: str, table: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = table[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]
    return found


def _load(
    spec: EncoderSpec, weights: Weights | None, device: str, *, rows: int, vocabulary: Vocabulary
) -> PackedEncoder:
    with torch.random.fork_rng(devices=[]):  # construction draws, and must not move the caller's seed
        model: Any = T5Stack(config(spec, rows))
    fill_weights(model, spec, weights)
    if seed_of(spec) is not None:
        _soften(model)
    if spec.compute_dtype == "float16":  # as in transformers: what leaves a feed-forward may be over 65,504
        for block in model.block:
            block.layer[-1].DenseReluDense.wo.float()
    network = Network(run=run_blocks, blocks="block", norm="final_layer_norm")
    return PackedEncoder(spec, model, vocabulary, device, network)


def config(spec: EncoderSpec, rows: int) -> T5Config:
    """Published settings, in the size of the spec.

    Raises:
        InvalidInputError: A feed-forward that none of the family has.
    """
    activation = spec.architecture["activation"]
    if activation not in ACTIVATIONS:
        raise InvalidInputError(
            f"Weights of {spec.name} have a feed-forward of the kind {activation!r}, expected one of "
            f"{', '.join(ACTIVATIONS)}. Give the published files of this encoder."
        )
    return T5Config(
        vocab_size=rows,
        d_model=spec.width,
        d_kv=spec.architecture["key_dim"],
        d_ff=spec.architecture["feed_forward"],
        num_layers=spec.architecture["layers"],
        num_heads=spec.architecture["heads"],
        relative_attention_num_buckets=spec.architecture["buckets"],
        relative_attention_max_distance=spec.architecture["max_distance"],
        layer_norm_epsilon=spec.architecture["layer_norm_eps"],
        feed_forward_proj=activation,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )


@torch.no_grad()
def _soften(model: Any) -> None:
    """Let drawn queries be as T5 trains them: it does not divide scores by the root of the width of a head."""
    for block in model.block:
        attention = block.layer[0].SelfAttention
        attention.q.weight.mul_(1.5**2 * attention.key_value_proj_dim**-0.5)


def run_blocks(model: Any, inputs: dict[str, Any], layers: Sequence[int]) -> dict[int, Tensor]:
    """Take a pack through the model, as ``blocks.run_blocks`` does with an ``EsmModel``."""
    x = inputs["rows"] if "rows" in inputs else model.embed_tokens(inputs["input_ids"])  # (1, N, D)
    bias = _bias(model.block[0].layer[0].SelfAttention, inputs["longest"])
    step: Callable[[Any, Tensor], Tensor]
    if torch.is_inference_mode_enabled():
        x = x.float()
        step = partial(_block, bias=bias, runs=inputs["runs"])
    else:
        about = {name: inputs[name] for name in ("runs", "bounds", "longest")}

        def step(block: Any, x: Tensor) -> Tensor:
            return cast(Tensor, block(x, position_bias=bias, **about)[0])

    return collect_layers(model.block, step, x, layers, model.final_layer_norm, inputs=inputs)


def _bias(attention: T5Attention, longest: int) -> Tensor:
    """Bias on the scores of keys -T + 1 to T - 1 places behind a query, T the ``longest``: (heads, 2 T - 1)."""
    table = attention.relative_attention_bias.weight  # (buckets, heads)
    bucket_of: Any = attention._relative_position_bucket
    buckets = bucket_of(
        torch.arange(1 - longest, longest, device=table.device),
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return table[buckets].T


def _block(block: Any, x: Tensor, bias: Tensor, runs: Runs) -> Tensor:
    """One block: (1, N, D) float32 to (1, N, D) float32, a new tensor."""
    rows, (first, last) = x[0], block.layer
    inner, dense = first.SelfAttention, last.DenseReluDense
    y = first.layer_norm(rows)  # in the compute dtype
    query, key, value = (linear(layer, y).view(len(y), inner.n_heads, -1) for layer in (inner.q, inner.k, inner.v))
    if x.device.type == "cpu":  # kernels of half precision are no faster there
        query, key, value = query.float(), key.float(), value.float()
    seen = attend_by_runs(query, key, value, runs, inner.scaling, bias=bias).flatten(1).to(y.dtype)
    rows = rows + linear(inner.o, seen)
    return (rows + _feed_forward(dense, last.layer_norm(rows)))[None]


def _feed_forward(dense: nn.Module, x: Tensor) -> Tensor:
    layers: Any = dense
    if hasattr(dense, "wi_0"):
        x = F.gelu(linear(layers.wi_0, x), approximate="tanh").mul_(linear(layers.wi_1, x))
    else:
        x = linear(layers.wi, x).relu_()
    return linear(layers.wo, x.to(layers.wo.weight.dtype))
