"""The blocks of a network over one pack, and those of an ``EsmModel`` in as few passes as their numbers allow.

On a CPU, where nothing is trained, the linear layers, normalisations and attention of the model are called one
by one, and what lies between them works in place or in the same call. In float32 the numbers are those of the modules
of transformers up to the last digits. In half precision rotation, attention and GELU are not rounded in between, so
that rows are nearer to those of float32 than the modules' own are. Elsewhere, and to train, the modules run as they
are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.models.esm.modeling_esm import EsmIntermediate

from embedcache.encoders.attention import Runs, attend_by_runs
from embedcache.encoders.linear import linear_add, linear_gelu, linear_joined

__all__ = ["PackState", "block_step", "collect_layers", "run_blocks", "runs_in_place"]


def run_blocks(model: Any, inputs: dict[str, Any], layers: Sequence[int]) -> dict[int, Tensor]:
    """Run the loop of ``EsmModel``, whose own outputs are the last state alone, or all states of all blocks.

    Args:
        model: The model; set to packed attention.
        inputs: Of one pack, as ``PackedEncoder`` makes them.
        layers: As in ``spec.LayeredEncoder``.

    Returns:
        The rows of each layer asked for, (N, D).
    """
    positions = inputs["position_ids"]
    x = inputs.get("rows")  # (1, N, D)
    if x is None:
        x = model.embeddings(input_ids=inputs["input_ids"], position_ids=positions)
    rotary = model.rotary_embeddings
    turns = None if rotary is None else rotary(x, positions)  # cos, sin: (1, N, d)
    in_place = runs_in_place(x)
    state = PackState.of(model, inputs["runs"], turns) if in_place else None
    step = block_step(_block, inputs, turns, state)
    return collect_layers(model.encoder.layer, step, x, layers, model.encoder.emb_layer_norm_after, inputs=inputs)


def runs_in_place(x: Tensor) -> bool:
    """Whether what lies between the layers of a model may work in place: on a CPU where nothing is trained."""
    return torch.is_inference_mode_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def block_step(
    in_place: "Callable[[Any, Tensor, PackState], Tensor]",
    inputs: Mapping[str, Any],
    turns: tuple[Tensor, Tensor] | None,
    state: "PackState | None",
) -> Callable[[Any, Tensor], Tensor]:
    """What one block does with rows (1, N, D).

    Args:
        in_place: One block on rows (N, D), where there is a state.
        inputs: Of the pack.
        turns: cos and sin of its positions, for the block of the model itself.
        state: What ``in_place`` needs; None to call the block of the model.
    """
    about = {name: inputs[name] for name in ("runs", "bounds", "longest")}

    def step(block: Any, x: Tensor) -> Tensor:
        if state is None:
            return cast(Tensor, block(x, position_embeddings=turns, **about))
        return in_place(block, x[0], state)[None]

    return step


def collect_layers(
    blocks: Iterable[Any],
    step: Callable[[Any, Tensor], Tensor],
    x: Tensor,
    layers: Sequence[int],
    norm: Callable[[Tensor], Tensor],
    *,
    inputs: Mapping[str, Any],
) -> dict[int, Tensor]:
    """Take rows through all blocks, or those that are left, and keep those of the layers asked for.

    Args:
        blocks: In their order.
        step: What one block does: (1, N, D) to (1, N, D), a new tensor.
        x: Rows before the first block, (1, N, D), or behind as many as ``inputs`` say were done.
        layers: As in ``spec.LayeredEncoder``.
        norm: The normalisation behind the last block, for layer -1.
        inputs: Of the pack: ``done``, blocks that ``x`` has behind it, and ``checkpointing``, to keep nothing of the
            inside of a block for the backward pass but to run it again there.

    Returns:
        The rows of each layer, (N, D).
    """
    found: dict[int, Tensor] = {}
    again = inputs["checkpointing"] and torch.is_grad_enabled()
    for number, block in enumerate(blocks, 1):
        if number <= inputs["done"]:
            continue
        x = checkpoint(step, block, x, use_reentrant=False) if again else step(block, x)
        if number in layers:
            found[number] = x[0]
    if -1 in layers:
        found[-1] = norm(x)[0]
    return found


@dataclass(frozen=True, slots=True)
class PackState:
    """What all blocks need to know of a pack."""

    runs: Runs
    heads: int
    order: Tensor
    """Columns of a query or key with the halves of each head interleaved: pairs that turn together lie side by side."""
    unchanged: Tensor
    turns: Tensor | None
    """cos + i sin of every pair of a head, (N, 1, d / 2)."""

    @classmethod
    def of(cls, model: Any, runs: Runs, turns: tuple[Tensor, Tensor] | None) -> "PackState":
        """Of a pack with these lengths and cos, sin (1, N, d) of its positions."""
        heads = model.config.num_attention_heads
        unchanged = torch.arange(model.config.hidden_size)
        half = len(unchanged) // heads // 2
        order = unchanged.view(heads, 2, half).transpose(1, 2).flatten() if turns is not None else unchanged
        angles = None if turns is None else torch.complex(*(one[0, :, None, :half].float() for one in turns))
        return cls(runs, heads, order, unchanged, angles)


def _block(block: Any, x: Tensor, state: PackState) -> Tensor:
    """One block: (N, D) to (N, D), a new tensor."""
    inner, after = block.attention.self, block.attention.output
    parts = (inner.query, inner.key, inner.value), (state.order, state.order, state.unchanged)
    mixed = linear_joined(*parts, block.attention.LayerNorm(x)).float()  # (N, 3 D)
    if state.turns is not None:
        pairs = mixed[:, : 2 * x.shape[1]].view(len(x), 2 * state.heads, -1, 2)  # of queries and keys
        torch.view_as_complex(pairs).mul_(state.turns)
    scale = inner.scaling * inner.attention_head_size**-0.5  # the model scales queries first, and then by 1
    query, key, value = mixed.view(len(x), 3 * state.heads, -1).chunk(3, dim=1)  # (N, heads, d) each
    seen = attend_by_runs(query, key, value, state.runs, scale).flatten(1).to(x.dtype)
    x = linear_add(after.dense, seen, x)
    return linear_add(block.output.dense, _expanded(block, block.LayerNorm(x)), x)


def _expanded(block: Any, x: Tensor) -> Tensor:
    """First half of the feed-forward, activated."""
    if isinstance(block.intermediate, EsmIntermediate):
        return linear_gelu(block.intermediate.dense, x)
    return cast(Tensor, block.intermediate(x))
