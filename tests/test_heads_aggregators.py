"""Every aggregator: against the formula on one sample at a time, missing modalities, summaries, and any widths."""

from collections.abc import Mapping
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from embedcache.sequences import MODALITIES, Modality
from heads.aggregators import what_it_reads
from heads.aggregators.gated_sum import gate_weights
from heads.config import AGGREGATORS, ModelConfig
from heads.model import ExpressionModel
from heads.pooling import fitting, summarise

WIDTHS: dict[Modality, int] = {"dna": 8, "rna": 16, "protein": 12}
SUBSETS = [subset for n in (1, 2, 3) for subset in combinations(MODALITIES, n)]
SMALL = {"heads": 2, "hidden": 16, "tokens": 4}
VARIANTS: list[dict[str, object]] = [
    *({"aggregator": name} for name in AGGREGATORS),
    *({"aggregator": name, "width": 6, "centres": "rna"} for name in ("perceiver", "c-abstractor", "linear")),
    *({"aggregator": name, "pooling": "max-mean"} for name in ("cross-attention", "perceiver", "concat", "gated-sum")),
    *({"aggregator": name, "pooling": "attention"} for name in ("cross-attention", "c-abstractor", "concat")),
    *({"aggregator": name, "bins": 3} for name in ("concat", "gated-sum")),
    {"aggregator": "cross-attention", "pre_norm": True, "feed_forward": 2, "rounds": 2},
    {"aggregator": "perceiver", "depth": 1},
    {"aggregator": "c-abstractor", "depth": 1},
]
LENGTHS = st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=4)
MIXED = {"dna": [4, 7, 0, 3, 0], "rna": [5, 1, 3, 0, 0], "protein": [0, 9, 6, 0, 0]}


def name_of(options: Mapping[str, object]) -> str:
    return "-".join(str(value) for value in options.values())


def model_of(**changes: object) -> ExpressionModel:
    torch.manual_seed(0)
    model = ExpressionModel(ModelConfig(**{**SMALL, **changes}), WIDTHS, 3).eval()  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():  # nothing may hide behind a weight that starts at 0 or 1
        if "norm" in name or "gate" in name or "query" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def batch(lengths: Mapping[str, list[int]]) -> dict[Modality, Ragged]:
    generator = torch.Generator().manual_seed(1)
    return {
        m: Ragged.from_list([torch.randn(t, WIDTHS[m], generator=generator) for t in lengths[m]]) for m in MODALITIES
    }


def select(tokens: Mapping[Modality, Ragged], rows: list[int]) -> dict[Modality, Ragged]:
    return {m: Ragged.from_list([ragged.to_list()[i] for i in rows]) for m, ragged in tokens.items()}


def fitted(model: ExpressionModel, tokens: Mapping[Modality, Ragged]) -> ExpressionModel:
    with torch.no_grad(), fitting(model):
        model(tokens)
    return model


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
@settings(deadline=None, max_examples=5)
@given(lengths=LENGTHS)
def test_a_sample_is_the_same_alone_and_in_a_batch(options: dict[str, object], lengths: list[tuple[int, ...]]) -> None:
    tokens = batch({m: [row[i] for row in lengths] for i, m in enumerate(MODALITIES)})
    model = fitted(model_of(**options), batch(MIXED))
    with torch.no_grad():
        together = model(tokens)
        assert bool(torch.isfinite(together).all())
        for i in range(len(lengths)):
            torch.testing.assert_close(together[i : i + 1], model(select(tokens, [i])), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_modalities_and_finite_gradients(options: dict[str, object], subset: tuple[Modality, ...]) -> None:
    if options.get("centres", "all") not in ("all", *subset):
        return
    model = model_of(modalities=subset, **options).train()
    tokens = batch(MIXED)
    for ragged in tokens.values():
        ragged.values.requires_grad_()
    out = model(tokens)
    assert out.shape == (5, 3)
    out.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    gradients |= {m: tokens[m].values.grad for m in subset}
    lost = [name for name, grad in gradients.items() if grad is None or not bool(torch.isfinite(grad).all())]
    assert not lost
    assert all(bool(tokens[m].values.grad.any(1).all()) for m in subset), "every token counts"  # type: ignore[union-attr]


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
def test_nobody_has_any_modality(options: dict[str, object]) -> None:
    model = model_of(**options)
    found = model(batch({m: [0, 0] for m in MODALITIES}))
    assert bool(torch.isfinite(found).all())
    found.sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
def test_a_summary_gives_what_tokens_give(options: dict[str, object]) -> None:
    config = model_of(**options).config
    for subset in SUBSETS:
        if config.centres not in ("all", *subset):
            continue
        tokens = {m: ragged for m, ragged in batch(MIXED).items() if m in subset}
        reads = what_it_reads(ModelConfig(**{**SMALL, **options, "modalities": subset}))  # type: ignore[arg-type]
        if reads == "tokens":
            continue
        summaries = {
            m: Ragged.from_list(
                [row[: len(row) * (n > 0)] for row, n in zip(summarise(ragged, reads), MIXED[m], strict=True)]
            )
            for m, ragged in tokens.items()
        }
        found = []
        for given_tokens in (tokens, summaries):
            model = fitted(model_of(modalities=subset, **options), given_tokens)
            found.append(model(given_tokens))
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


READS = {
    "cross-attention": "tokens", "perceiver": "tokens", "c-abstractor": "tokens", "linear": "mean-bins-4",
    "concat": "means", "attention-pooling": "tokens", "gated-sum": "means",
}  # fmt: skip


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_least_that_is_read(aggregator: str) -> None:
    assert what_it_reads(ModelConfig(aggregator=aggregator, tokens=4)) == READS[aggregator]


def test_the_least_that_is_read_depends_on_options() -> None:
    def reads(layers: dict[Modality, int] | None = None, **options: object) -> str:
        return what_it_reads(ModelConfig(**options), layers)  # type: ignore[arg-type]

    assert reads(aggregator="concat", bins=8) == "bins-8"
    assert reads(aggregator="concat", pooling="max-mean") == "max-means"
    assert reads(aggregator="gated-sum", pooling="attention") == "tokens"
    assert reads(modalities=("rna",)) == "means"
    assert reads(modalities=("rna",), pooling="max-mean") == "max-means"
    assert reads(modalities=("rna",), pooling="max-mean", width=8) == "tokens"
    assert reads(modalities=("rna",), pooling="mean", width=8) == "means"
    # a mean of mixed layers is a mix of means; the largest value of a mix is not a mix of largest values
    assert reads({"rna": 3}, aggregator="concat") == "means"
    assert reads({"rna": 3}, aggregator="concat", pooling="max-mean") == "tokens"
    assert reads({"rna": 1}, aggregator="concat", pooling="max-mean") == "max-means"
    assert reads({"dna": 3}, modalities=("rna",), aggregator="concat", pooling="max-mean") == "max-means"


def test_gates_share_one_among_the_present() -> None:
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    weights = gate_weights(torch.randn(4, 3) * 5, present)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert not weights[~present].any()
    assert weights[2, 1] == 1


def test_convolutions_do_not_reach_into_a_neighbour() -> None:
    """A sample packed between two others must not see them: neighbours with huge values."""
    model = model_of(aggregator="c-abstractor")
    tokens = batch({"dna": [4, 4, 4], "rna": [3, 3, 3], "protein": [2, 2, 2]})
    alone = model(select(tokens, [1]))
    for ragged in tokens.values():
        first, _, last = ragged.to_list()
        first.mul_(1e3)
        last.mul_(1e3)
    torch.testing.assert_close(model(tokens)[1:2], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_matrix_products_in_bfloat16(aggregator: str) -> None:
    model, tokens = model_of(aggregator=aggregator), batch(MIXED)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(tokens)
    torch.testing.assert_close(found.float(), model(tokens), atol=0.05, rtol=0.05)
    found.float().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_heads_must_divide_the_width_of_a_centre() -> None:
    with pytest.raises(InvalidSettingError, match="8 numbers wide, not a multiple of 3 heads"):
        model_of(aggregator="perceiver", heads=3)
    assert model_of(aggregator="attention-pooling", heads=3)(batch(MIXED)).shape == (5, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"aggregator": "linear", "pooling": "max-mean"},
        {"aggregator": "attention-pooling", "pooling": "attention"},
        {"aggregator": "concat", "bins": 4, "pooling": "max-mean"},
        {"aggregator": "perceiver", "bins": 4},
    ],
    ids=name_of,
)
def test_settings_that_would_do_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSettingError):
        ModelConfig(**wrong)  # type: ignore[arg-type]
