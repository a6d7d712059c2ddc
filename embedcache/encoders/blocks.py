"""The blocks of an ``EsmModel`` over one pack, in as few passes over memory as their numbers allow.

On a CPU, where nothing is trained, the linear layers, normalisations and attention of the model are called one
by one and what lies between them works in place, on as many rows as stay in the cache. In float32 every number
is that of the modules of transformers, bit for bit: the same operations, in the same order. In half precision
rotation, attention and GELU are not rounded in between, so that rows are nearer to those of float32 than the
modules' own are. Elsewhere, and to train, the modules run as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.esm.modeling_esm import EsmIntermediate

from embedcache.encoders.attention import Runs, attend_by_runs

__all__ = ["run_blocks"]

CHUNK_ROWS = 512
"""Rows of the feed-forward at a time, for each thread: its 4 * D numbers a row then stay in the cache. Fewer are
slower again, since every product reads all weights."""


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
    state = _State.of(model, inputs["runs"], turns, x.shape[1]) if in_place else None
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
    edges: list[int]
    """Where chunks of rows begin and end."""

    @classmethod
    def of(cls, model: Any, runs: Runs, turns: tuple[Tensor, Tensor] | None, tokens: int) -> "_State":
        heads = model.config.num_attention_heads
        if turns is not None:
            cos, sin = (one[0].float() for one in turns)
            half = sin.shape[1] // 2
            sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
            turns = cos.repeat(1, heads), sin.repeat(1, heads)
        chunks = -(-tokens // (CHUNK_ROWS * torch.get_num_threads()))
        return cls(runs, heads, turns, [i * tokens // chunks for i in range(chunks + 1)])


def _block(block: Any, x: Tensor, state: _State) -> Tensor:
    """One block: (N, D) to (N, D), a new tensor."""
    inner, after = block.attention.self, block.attention.output
    y = block.attention.LayerNorm(x)
    scale = inner.attention_head_size**-0.5
    query, key = _turned(inner.query(y), state, scale), _turned(inner.key(y), state)
    q, k, v = (t.view(len(t), state.heads, -1) for t in (query, key, inner.value(y).to(query.dtype)))
    mixed = attend_by_runs(q, k, v, state.runs, inner.scaling).flatten(1).to(x.dtype)
    x = after.dense(mixed).add_(x)
    out = torch.empty_like(x)
    for start, stop in zip(state.edges[:-1], state.edges[1:], strict=True):
        rows = x[start:stop]
        torch.add(block.output.dense(_expanded(block, rows)), rows, out=out[start:stop])
    return out


def _turned(x: Tensor, state: _State, scale: float = 1.0) -> Tensor:
    """Rotary positions on queries or keys, (N, D) float32; changes ``x``."""
    x = x.float()
    if scale != 1.0:
        x.mul_(scale)
    if state.turns is None:
        return x
    cos, sin = state.turns
    first, second = x.view(len(x), state.heads, -1).chunk(2, dim=-1)  # (N, heads, d / 2)
    swapped = torch.cat([second, first], dim=-1).flatten(1)
    return x.mul_(cos).add_(swapped.mul_(sin))


def _expanded(block: Any, rows: Tensor) -> Tensor:
    """First half of the feed-forward, normalised before and activated."""
    normed = block.LayerNorm(rows)
    if not isinstance(block.intermediate, EsmIntermediate):
        return cast(Tensor, block.intermediate(normed))
    x: Tensor = block.intermediate.dense(normed)
    if x.dtype != torch.float32:
        return F.gelu(x)
    # the formula of ESM, x * 0.5 * (1 + erf(x / sqrt(2))): F.gelu multiplies by the inverse, and rounds otherwise
    return torch.div(x, math.sqrt(2.0)).erf_().add_(1.0).mul_(x.mul_(0.5))
