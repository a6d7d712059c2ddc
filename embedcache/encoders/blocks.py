"""The blocks of an ``EsmModel`` over one pack, in as few passes over memory as their numbers allow.

On a CPU, where nothing is trained, the linear layers, normalisations and attention of the model are called one
by one, and what lies between them works in place or in the same call. In float32 the numbers are those of the modules
of transformers up to the last digits. In half precision rotation, attention and GELU are not rounded in between, so
that rows are nearer to those of float32 than the modules' own are. Elsewhere, and to train, the modules run as they
are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.models.esm.modeling_esm import EsmIntermediate

from embedcache.encoders.attention import Runs, attend_by_runs
from embedcache.encoders.linear import linear, linear_add, linear_gelu

__all__ = ["run_blocks"]


def run_blocks(model: Any, inputs: dict[str, Any], layers: Sequence[int]) -> dict[int, Tensor]:
    """Run the loop of ``EsmModel``, whose own outputs are the last state alone, or all states of all blocks.

    Args:
        model: The model; set to packed attention.
        inputs: Of one pack, as ``PackedEncoder`` makes them.
        layers: As in ``spec.LayeredEncoder``.

    Returns:
        The rows of each layer asked for, (N, D).
    """
    ids, positions = inputs["input_ids"], inputs["position_ids"]
    x = model.embeddings(input_ids=ids, position_ids=positions)  # (1, N, D)
    rotary = model.rotary_embeddings
    turns = None if rotary is None else rotary(x, positions)  # cos, sin: (1, N, d)
    in_place = torch.is_inference_mode_enabled() and x.device.type == "cpu"
    state = _State.of(model, inputs["runs"], turns) if in_place else None
    about = {name: inputs[name] for name in ("runs", "bounds", "longest")}
    found: dict[int, Tensor] = {}
    for number, block in enumerate(model.encoder.layer, 1):
        x = block(x, position_embeddings=turns, **about) if state is None else _block(block, x[0], state)[None]
        if number in layers:
            found[number] = x[0]
    if -1 in layers:
        found[-1] = model.encoder.emb_layer_norm_after(x)[0]
    return found


@dataclass(frozen=True, slots=True)
class _State:
    """What all blocks need to know of a pack."""

    runs: Runs
    heads: int
    turns: tuple[Tensor, Tensor] | None
    """Cosines, and sines with the sign that their half of the head takes, repeated over the heads: (N, D) float32."""

    @classmethod
    def of(cls, model: Any, runs: Runs, turns: tuple[Tensor, Tensor] | None) -> "_State":
        heads = model.config.num_attention_heads
        if turns is not None:
            cos, sin = (one[0].float() for one in turns)
            half = sin.shape[1] // 2
            sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
            turns = cos.repeat(1, heads), sin.repeat(1, heads)
        return cls(runs, heads, turns)


def _block(block: Any, x: Tensor, state: _State) -> Tensor:
    """One block: (N, D) to (N, D), a new tensor."""
    inner, after = block.attention.self, block.attention.output
    y = block.attention.LayerNorm(x)
    query, key = _turned(linear(inner.query, y), state), _turned(linear(inner.key, y), state)
    q, k, v = (t.view(len(t), state.heads, -1) for t in (query, key, linear(inner.value, y).to(query.dtype)))
    scale = inner.scaling * inner.attention_head_size**-0.5  # the model scales queries first, and then by 1
    mixed = attend_by_runs(q, k, v, state.runs, scale).flatten(1).to(x.dtype)
    x = linear_add(after.dense, mixed, x)
    return linear_add(block.output.dense, _expanded(block, block.LayerNorm(x)), x)


def _turned(x: Tensor, state: _State) -> Tensor:
    """Rotary positions on queries or keys, (N, D) float32; changes ``x``."""
    x = x.float()
    if state.turns is None:
        return x
    cos, sin = state.turns
    first, second = x.view(len(x), state.heads, -1).chunk(2, dim=-1)  # (N, heads, d / 2)
    swapped = torch.cat([second, first], dim=-1).flatten(1)
    return x.mul_(cos).addcmul_(swapped, sin)


def _expanded(block: Any, x: Tensor) -> Tensor:
    """First half of the feed-forward, activated."""
    if isinstance(block.intermediate, EsmIntermediate):
        return linear_gelu(block.intermediate.dense, x)
    return cast(Tensor, block.intermediate(x))
