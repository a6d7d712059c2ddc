"""Products with weights that oneDNN has laid out."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedcache.encoders import linear as module
from embedcache.encoders.linear import linear, linear_add, linear_gelu, linear_joined


def drawn(rows: int, width: int = 1280, out: int = 320, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(width, out, dtype=dtype), torch.randn(rows, width).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_products_are_those_of_the_layer(dtype: torch.dtype, bias: bool) -> None:
    layer, x = drawn(70, dtype=dtype)
    layer.bias = layer.bias if bias else None  # type: ignore[assignment]
    other = torch.randn(70, 320).to(dtype)
    want = F.linear(x.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float())
    atol = 1e-5 if dtype == torch.float32 else 0.03
    assert torch.allclose(linear(layer, x).float(), want, atol=atol)
    assert torch.allclose(linear_gelu(layer, x).float(), F.gelu(want), atol=atol)
    assert torch.allclose(linear_add(layer, x, other).float(), want + other.float(), atol=2 * atol)


@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_rows_do_not_depend_on_how_many_there_are(threads: int, set_threads: Callable[[int], None]) -> None:
    set_threads(threads)
    layer, x = drawn(1500)
    whole = linear_gelu(layer, x)
    for rows in (2, 3, 5, 11, 16, 100, 257, 1000):
        assert torch.equal(linear_gelu(layer, x[:rows].contiguous()), whole[:rows])


def test_weights_that_were_trained_are_laid_out_again() -> None:
    layer, x = drawn(8)
    with torch.inference_mode():
        before = linear(layer, x)
    with torch.no_grad():
        layer.weight.mul_(2)
    with torch.inference_mode():
        assert not torch.equal(linear(layer, x), before)
        assert torch.allclose(linear(layer, x), layer(x), atol=1e-5)


def test_an_adapter_and_gradients_go_through_the_layer_itself() -> None:
    class Adapted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
            return super().forward(input) + 1

    adapted = Adapted(4, 3)
    x = torch.ones(2, 4)
    with torch.inference_mode():
        assert torch.equal(linear(adapted, x), F.linear(x, adapted.weight, adapted.bias) + 1)
    plain = nn.Linear(4, 3)
    linear(plain, x).sum().backward()
    assert plain.weight.grad is not None


@torch.inference_mode()
def test_weights_beyond_the_limit_are_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 0)
    layer, x = drawn(8)
    assert torch.equal(linear(layer, x), F.linear(x, layer.weight, layer.bias))
    assert layer not in module._LAID_OUT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_joined_layers_are_those_side_by_side_with_their_columns_in_order(dtype: torch.dtype) -> None:
    layers, (_, x) = [drawn(8, 64, n, dtype)[0] for n in (32, 32, 16)], drawn(8, 64, dtype=dtype)
    orders = [torch.randperm(32), torch.arange(32).flip(0), torch.arange(16)]
    for factor in (1, 2):  # trained in between
        with torch.no_grad():
            layers[1].weight.mul_(factor)
            layers[2].bias.add_(factor)
        for _ in range(2):
            orders[0] = orders[0].flip(0)
            with torch.inference_mode():
                want = torch.cat([layer(x)[:, order] for layer, order in zip(layers, orders, strict=True)], dim=1)
                assert torch.allclose(linear_joined(layers, orders, x), want, atol=1e-5)
