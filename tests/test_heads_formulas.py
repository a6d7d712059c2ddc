"""Aggregators against their formulas, written out for one sample at a time."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedcache.ragged import Ragged
from embedcache.sequences import MODALITIES, Modality
from heads.attention import CrossAttention
from heads.config import ModelConfig
from heads.model import ExpressionModel

WIDTHS: dict[Modality, int] = {"dna": 8, "rna": 16, "protein": 12}
MIXED = {"dna": [4, 7, 0, 3, 0], "rna": [5, 1, 3, 0, 0], "protein": [0, 9, 6, 0, 0]}


def name_of(options: Mapping[str, object]) -> str:
    return "-".join(str(value) for value in options.values())


def model_of(**changes: object) -> ExpressionModel:
    torch.manual_seed(0)
    config = ModelConfig(**{"heads": 2, "hidden": 16, "tokens": 4, **changes})  # type: ignore[arg-type]
    model = ExpressionModel(config, WIDTHS, 3).eval()
    for name, parameter in model.named_parameters():  # nothing may hide behind a weight that starts at 0 or 1
        if "norm" in name or "gate" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def batch(lengths: Mapping[str, list[int]]) -> dict[Modality, Ragged]:
    return {m: Ragged.from_list([torch.randn(t, WIDTHS[m]) for t in lengths[m]]) for m in MODALITIES}


def norm(layer: nn.Module, x: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * weight + bias


def attention(layer: nn.Module, x: Tensor, context: Tensor, heads: int = 2) -> Tensor:
    pairs = ((layer.query, x), (layer.key, context), (layer.value, context))
    q, k, v = (linear(t).chunk(heads, -1) for linear, t in pairs)  # type: ignore[operator]
    parts = [(a @ b.T / a.shape[1] ** 0.5).softmax(-1) @ c for a, b, c in zip(q, k, v, strict=True)]
    return layer.out(torch.cat(parts, -1))  # type: ignore[operator, no-any-return]


def hidden_layer(layer: nn.Module, x: Tensor) -> Tensor:
    first, wide, _, back = layer  # type: ignore[misc]
    return back(F.gelu(wide(norm(first, x))))


def resampled(module: nn.Module, tokens: Tensor) -> Tensor:
    context, x = module.project(tokens), module.latents  # type: ignore[operator]
    for layer in module.layers:  # type: ignore[union-attr]
        both = torch.cat([norm(layer.context_norm, context), norm(layer.norm, x)])
        x = x + attention(layer, norm(layer.norm, x), both)
        x = x + hidden_layer(layer.feed_forward, x)
    return x  # type: ignore[return-value]


def abstracted(module: nn.Module, tokens: Tensor) -> Tensor:
    def block(layer: nn.Module, x: Tensor) -> Tensor:
        width = x.shape[1]
        wide = layer.wide.linear  # type: ignore[union-attr]
        kernel = wide.weight.view(width, 3, width).transpose(1, 2)  # type: ignore[operator, union-attr]
        inner = F.conv1d(F.silu(norm(layer.norm, x)).T[None], kernel, wide.bias, padding=1)[0].T  # type: ignore[arg-type]
        return x + layer.narrow(F.silu(norm(layer.inner_norm, inner)))  # type: ignore[operator]

    x = module.project(tokens)  # type: ignore[operator]
    for layer in module.before:  # type: ignore[union-attr]
        x = block(layer, x)
    x = F.adaptive_avg_pool1d(x.T[None], 4)[0].T
    for layer in module.after:  # type: ignore[union-attr]
        x = block(layer, x)
    return x


def linear_map(module: nn.Module, tokens: Tensor) -> Tensor:
    return F.adaptive_avg_pool1d(module(tokens).T[None], 4)[0].T


@pytest.mark.parametrize("options", [{}, {"width": 6}, {"centres": "protein"}], ids=name_of)
@pytest.mark.parametrize(
    ("aggregator", "compress"),
    [("perceiver", resampled), ("c-abstractor", abstracted), ("linear", linear_map)],
)
def test_compressing_aggregators_are_their_formulas(
    aggregator: str, compress: object, options: dict[str, object]
) -> None:
    """Mean over the present segments [h_m ; C_o1 ; C_o2] of the mean of each."""
    model = model_of(aggregator=aggregator, **options)
    frame, tokens = model.aggregator, batch(MIXED)
    frame = getattr(frame, "segments", frame)
    found = model.aggregator(tokens)
    for i in range(5):
        own = {m: tokens[m].to_list()[i] for m in MODALITIES}
        vectors = []
        for centre in model.config.centre_modalities:
            project = frame.project[centre] if "width" in options else nn.Identity()  # type: ignore[index, union-attr]
            segments = [project(own[centre])]
            for other in MODALITIES:
                if other != centre and len(own[other]):
                    segments.append(compress(frame.compress[f"{centre}_reads_{other}"], own[other]))  # type: ignore[index, operator, union-attr]
            means = [segment.mean(0) for segment in segments if len(segment)]
            width = options.get("width", WIDTHS[centre])
            vectors.append(torch.stack(means).mean(0) if means else torch.zeros(width))  # type: ignore[call-overload]
        torch.testing.assert_close(found[i], torch.cat(vectors), atol=2e-5, rtol=2e-5)


def test_blocks_with_normalisation_and_feed_forward_are_their_formula() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(8, 6, 2, pre_norm=True, feed_forward=3)
    for module in (layer.norm, layer.context_norm):
        nn.init.normal_(module.weight)  # type: ignore[union-attr]
    x, context = (Ragged.from_list([torch.randn(n, w) for n in ns]) for w, ns in ((8, [4, 3, 2]), (6, [5, 0, 7])))
    for own, other, found in zip(x.to_list(), context.to_list(), layer(x, context).to_list(), strict=True):
        expected = own
        if len(other):
            expected = own + attention(layer, norm(layer.norm, own), norm(layer.context_norm, other))  # type: ignore[arg-type]
            expected = expected + hidden_layer(layer.feed_forward, expected)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gated_sum_is_its_formula() -> None:
    model, tokens = model_of(aggregator="gated-sum"), batch(MIXED)
    layer, found = model.aggregator, model.aggregator(tokens)
    for i in range(5):
        own = {m: tokens[m].to_list()[i] for m in MODALITIES}
        hidden = [
            F.gelu(layer.project[m](own[m].mean(0))) if len(own[m]) else torch.zeros(16)  # type: ignore[attr-defined]
            for m in MODALITIES
        ]
        scores = layer.gate(torch.cat(hidden))  # type: ignore[attr-defined]
        present = [k for k, m in enumerate(MODALITIES) if len(own[m])]
        weights = scores[present].softmax(0) if present else scores[present]
        expected = sum((w * hidden[k] for w, k in zip(weights, present, strict=True)), torch.zeros(16))
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
