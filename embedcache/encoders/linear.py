"""Linear layers on a CPU: oneDNN with weights that are laid out once, and what follows a product in the same call.

A product takes a seventh less time than with ``torch.nn.functional.linear``, which uses MKL in float32, and GELU next
to none. No row depends on how many others there are, unless it is alone. ``torch`` makes these calls for its own
compiler; where they are missing the plain ones give the same numbers but for the last digits.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["linear", "linear_add", "linear_gelu", "linear_joined"]

FORMATS = (torch.float32, torch.bfloat16)
"""Number formats that oneDNN computes in on any CPU."""
MOST_BYTES = 4 << 30
"""Weights that are laid out, for they are then there twice; the products of what is beyond are plain ones."""
ROWS = 512
"""Rows of a product that the layout is chosen for; any number may come."""

Version = tuple[tuple[int, int], ...]
"""Tells weights from what they were before training changed them."""

_JOINED: WeakKeyDictionary[nn.Module, tuple[Version, list[Tensor], nn.Linear]] = WeakKeyDictionary()
_LAID_OUT: WeakKeyDictionary[nn.Linear, tuple[Version, Tensor]] = WeakKeyDictionary()
_WATCHED: WeakKeyDictionary[nn.Linear, bool] = WeakKeyDictionary()


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer computes: (N, in) to (N, out)."""
    weight = _laid_out(layer, x)
    if weight is None:
        return cast(Tensor, layer(x))
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, "none", [], ""))


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """GELU, the exact one, of what a layer computes."""
    weight = _laid_out(layer, x)
    if weight is None:
        return F.gelu(layer(x))
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, "gelu", [], "none"))


def linear_add(layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """What a layer computes, plus ``other``, (N, out)."""
    weight = _laid_out(layer, x)
    if weight is None:
        return cast(Tensor, layer(x)).add_(other)
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, layer.bias, "add"))


def linear_joined(layers: Sequence[nn.Module], orders: Sequence[Tensor], x: Tensor) -> Tensor:
    """What several layers compute, side by side, the columns of each in an order of its own.

    Args:
        layers: Each (N, in) to (N, out), all with a bias or all without.
        orders: For each layer, which of its columns comes where: (out,) indices.
        x: (N, in).
    """
    with_bias = {getattr(layer, "bias", None) is not None for layer in layers}
    if len(with_bias) > 1 or not all(_fits(layer, x) for layer in layers):
        return torch.cat([layer(x)[:, order] for layer, order in zip(layers, orders, strict=True)], dim=1)
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    now = _version(*plain)
    then, so, joined = _JOINED.get(plain[0], (None, [], None))
    if joined is None or then != now or not all(map(torch.equal, so, orders)):
        joined = nn.Linear(x.shape[1], sum(map(len, orders)), bias=True in with_bias, device="meta")
        for name in ("weight", "bias") if True in with_bias else ("weight",):
            rows = [getattr(layer, name)[order] for layer, order in zip(plain, orders, strict=True)]
            setattr(joined, name, nn.Parameter(torch.cat(rows), requires_grad=False))
        _JOINED[plain[0]] = now, list(orders), joined
        for layer in plain:
            _watch(layer, plain[0])
    return linear(joined, x)


def _laid_out(layer: nn.Module, x: Tensor) -> Tensor | None:
    """Weights as oneDNN wants them; None where the layer itself is to be called."""
    if not _fits(layer, x):
        return None
    assert isinstance(layer, nn.Linear)
    weight, now = layer.weight, _version(layer)
    then, found = _LAID_OUT.get(layer, (None, None))
    if then == now:
        return found
    if found is None and sum(one.nbytes for _, one in _LAID_OUT.values()) + weight.nbytes > MOST_BYTES:
        return None
    found = cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS))
    _LAID_OUT[layer] = now, found
    _watch(layer, layer)
    return found


def _watch(layer: nn.Linear, held: nn.Linear) -> None:
    """Forget what was laid out for ``held`` once a gradient reaches ``layer``: fused optimisers raise no version."""
    if layer in _WATCHED:
        return
    _WATCHED[layer] = True
    of = ref(held)

    def forget(_: Tensor) -> None:
        if (gone := of()) is not None:
            _JOINED.pop(gone, None)
            _LAID_OUT.pop(gone, None)

    parameters: tuple[Any, ...] = (layer.weight, layer.bias)
    for one in parameters:
        if one is not None and one.requires_grad:
            one.register_post_accumulate_grad_hook(forget)


def _version(*layers: nn.Linear) -> Version:
    """Training changes weights in place."""
    found = [one for layer in layers for one in (layer.weight, layer.bias) if one is not None]
    return tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in found)


def _fits(layer: nn.Module, x: Tensor) -> bool:
    if type(layer) is not nn.Linear:  # an adapter, say, which computes something else
        return False
    is_here = x.device.type == "cpu" and x.dim() == 2 and x.dtype in FORMATS
    return is_here and torch.is_inference_mode_enabled() and _is_available()


@cache
def _is_available() -> bool:
    backends: Any = torch.backends
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return bool(backends.mkldnn.is_available()) and all(hasattr(torch.ops.mkldnn, name) for name in names)
