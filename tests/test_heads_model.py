"""Aggregators and the model: missing modalities, subsets, pooling, and whether every sample gets its own target."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.ragged import Ragged
from embedcache.sequences import MODALITIES, Modality
from heads.aggregators import what_it_reads
from heads.config import ModelConfig, TrainConfig
from heads.model import ExpressionModel, count_parameters
from heads.pooling import MeanPool, fitting, mean_tokens

WIDTHS: dict[Modality, int] = {"dna": 8, "rna": 16, "protein": 12}
SUBSETS = [subset for n in (1, 2, 3) for subset in combinations(MODALITIES, n)]


def model_of(**changes: object) -> ExpressionModel:
    torch.manual_seed(0)
    return ExpressionModel(ModelConfig(**{"heads": 2, "hidden": 16, **changes}), WIDTHS, 3)  # type: ignore[arg-type]


def batch(lengths: dict[Modality, list[int]]) -> dict[Modality, Ragged]:
    return {m: Ragged.from_list([torch.randn(t, WIDTHS[m]) for t in n]) for m, n in lengths.items()}


def select(tokens: dict[Modality, Ragged], rows: list[int]) -> dict[Modality, Ragged]:
    return {m: Ragged.from_list([ragged.to_list()[i] for i in rows]) for m, ragged in tokens.items()}


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
@pytest.mark.parametrize("aggregator", ["cross-attention", "concat"])
def test_any_subset_of_modalities(subset: tuple[Modality, ...], aggregator: str) -> None:
    model = model_of(modalities=subset, aggregator=aggregator)
    out = model(batch({m: [3, 0, 5] for m in subset}))
    assert out.shape == (3, 3)
    out.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize(
    "options", [{}, {"width": 4}, {"rounds": 2}, {"centres": "dna"}, {"aggregator": "concat"}], ids=str
)
@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=4))
def test_a_prediction_does_not_depend_on_its_batch(options: dict[str, object], lengths: list[tuple[int, ...]]) -> None:
    model = model_of(**options).eval()
    tokens = batch({m: [row[i] for row in lengths] for i, m in enumerate(MODALITIES)})
    with torch.no_grad():
        together = model(tokens)
        assert bool(torch.isfinite(together).all())
        for i in range(len(lengths)):
            torch.testing.assert_close(together[i : i + 1], model(select(tokens, [i])), atol=1e-5, rtol=1e-5)


def test_blocks_and_order_are_those_of_the_paper() -> None:
    blocks = model_of().aggregator.rounds[0]  # type: ignore[attr-defined]
    assert list(blocks) == [
        "dna_reads_rna", "dna_reads_protein", "rna_reads_dna", "rna_reads_protein",
        "protein_reads_dna", "protein_reads_rna",
    ]  # fmt: skip
    assert list(model_of(centres="dna").aggregator.rounds[0]) == ["dna_reads_rna", "dna_reads_protein"]  # type: ignore[attr-defined]


def test_centres_read_the_tokens_of_the_encoders() -> None:
    """The second centre must not see what the first one became."""
    model, tokens = model_of(), batch({m: [4, 3] for m in MODALITIES})
    blocks = model.aggregator.rounds[0]  # type: ignore[attr-defined]
    dna = blocks["dna_reads_protein"](blocks["dna_reads_rna"](tokens["dna"], tokens["rna"]), tokens["protein"])
    rna = blocks["rna_reads_protein"](blocks["rna_reads_dna"](tokens["rna"], tokens["dna"]), tokens["protein"])
    protein = blocks["protein_reads_rna"](blocks["protein_reads_dna"](tokens["protein"], tokens["dna"]), tokens["rna"])
    expected = model.head(torch.cat([mean_tokens(x) for x in (dna, rna, protein)], -1))
    torch.testing.assert_close(model(tokens), expected)


def test_a_missing_centre_is_a_zero_vector() -> None:
    model, tokens = model_of(), batch({"dna": [4], "rna": [3], "protein": [0]})
    with torch.no_grad():
        features = model.aggregator(tokens)
    assert not features[0, 24:].any()
    assert features[0, :24].all()


@pytest.mark.parametrize(
    "options", [{"modalities": ("rna",)}, {"aggregator": "concat"}, {"modalities": ("rna",), "width": 6}], ids=str
)
def test_a_model_of_means_gives_the_same_for_means(options: dict[str, object]) -> None:
    model = model_of(**options).eval()
    assert what_it_reads(model.config) == "means"
    tokens = batch({m: [4, 0, 2] for m in model.config.modalities})
    means = {
        m: Ragged.from_list([part.mean(0, keepdim=True) if len(part) else part for part in ragged.to_list()])
        for m, ragged in tokens.items()
    }
    torch.testing.assert_close(model(tokens), model(means))


def test_pooling_is_scaled_on_present_samples_only() -> None:
    pool, values = MeanPool(3), torch.tensor([[1.0, 5.0, 2.0], [3.0, 5.0, 8.0]])
    tokens = Ragged(values, torch.tensor([0, 1, 1, 2]))
    with fitting(pool):
        pool(tokens)
    expected = torch.tensor([[-1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    torch.testing.assert_close(pool(tokens).values, expected)
    assert pool(tokens).present.tolist() == [True, False, True]


@pytest.mark.parametrize("aggregator", ["cross-attention", "concat"])
def test_eight_samples_are_learnt_by_heart_in_shuffled_batches(aggregator: str) -> None:
    model = model_of(aggregator=aggregator, dropout=0.0)
    lengths = {"dna": [4, 6, 3, 5, 4, 2, 7, 1], "rna": [1, 9, 3, 4, 6, 8, 2, 5], "protein": [2, 0, 5, 0, 3, 4, 1, 6]}
    tokens, targets = batch(lengths), torch.randn(8, 3)  # type: ignore[arg-type]
    with torch.no_grad(), fitting(model):
        model(tokens)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        for rows in torch.randperm(8).split(4):
            optimizer.zero_grad()
            loss = (model(select(tokens, rows.tolist())) - targets[rows]).square().mean()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        assert float((model(tokens) - targets).square().max()) < 1e-2


def test_settings_check_themselves() -> None:
    assert ModelConfig(modalities=("protein", "dna")).modalities == ("dna", "protein")
    for wrong in (
        {"modalities": ()},
        {"modalities": ("rna", "rna")},
        {"modalities": ("rna",), "centres": "dna"},
        {"width": 30, "heads": 8},
        {"rounds": 0},
        {"dropout": 1.0},
    ):
        with pytest.raises(InvalidSettingError):
            ModelConfig(**wrong)  # type: ignore[arg-type]
    for wrong in ({"batch_size": 0}, {"learning_rate": float("nan")}, {"seed": -1}, {"device": "tpu"}):
        with pytest.raises(InvalidSettingError):
            TrainConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'concat'"):
        ModelConfig(aggregator="concatt")
    with pytest.raises(UnknownNameError):
        ModelConfig(modalities=("rnaa",))  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [ModelConfig(width=16), TrainConfig(seed=3)], ids=["model", "train"])
def test_settings_come_back_from_json(config: ModelConfig | TrainConfig) -> None:
    assert type(config).from_json(config.to_json()) == config


@pytest.mark.parametrize("n_protein", [5, 0])
def test_the_model_is_the_equation_written_out(n_protein: int) -> None:
    """SCIENCE: h' of each centre, mean over tokens, concatenation, one linear output a tissue; in numpy."""
    model, tokens = model_of(), batch({"dna": [4], "rna": [7], "protein": [n_protein]})
    model = model.double()
    h = {m: ragged.values.double().numpy() for m, ragged in tokens.items()}
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def read(block: str, centre: np.ndarray, other: np.ndarray) -> np.ndarray:
        if not len(other) or not len(centre):
            return centre
        q, k, v = linear(f"{block}.query", centre), linear(f"{block}.key", other), linear(f"{block}.value", other)
        parts, d = [], q.shape[1] // model.config.heads
        for i in range(0, q.shape[1], d):
            scores = np.exp(q[:, i : i + d] @ k[:, i : i + d].T / np.sqrt(d))
            parts.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, i : i + d])
        return linear(f"{block}.out", np.concatenate(parts, axis=1)) + centre

    pooled = []
    for centre in MODALITIES:
        now = h[centre]
        for other in MODALITIES:
            if other != centre:
                now = read(f"aggregator.rounds.0.{centre}_reads_{other}", now, h[other])
        pooled.append(now.mean(axis=0) if len(now) else np.zeros(now.shape[1]))
    expected = linear("head", np.concatenate(pooled)[None])
    found = model({m: Ragged(ragged.values.double(), ragged.offsets) for m, ragged in tokens.items()})
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6)  # means are taken in float32


@pytest.mark.parametrize("head", ["linear", "mlp", "low-rank"])
def test_heads_give_every_tissue_and_start_near_its_mean(head: str) -> None:
    model, tokens = model_of(head=head, aggregator="concat"), batch({m: [4, 0, 5] for m in MODALITIES})
    found = model(tokens)
    assert found.shape == (3, 3)
    assert found.abs().max().item() < 1
    found.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_low_rank_head_has_its_rank() -> None:
    model = ExpressionModel(ModelConfig(aggregator="concat", hidden=16, head="low-rank", rank=2), WIDTHS, 30)
    features = torch.randn(50, 16)
    with torch.no_grad():
        assert int(torch.linalg.matrix_rank(model.head(features) - model.head(torch.zeros(1, 16)))) == 2


def test_parameters_are_counted() -> None:
    model = model_of(modalities=("rna",))
    assert count_parameters(model) == 16 * 3 + 3
    model.head.requires_grad_(False)
    assert count_parameters(model) == 0


def test_old_runs_can_be_loaded() -> None:
    """Names of the weights of released versions."""
    blocks = [f"{a}_reads_{b}" for a in ("dna", "rna") for b in ("dna", "rna") if a != b]
    parts = [f"{layer}.{kind}" for layer in ("query", "key", "value", "out") for kind in ("weight", "bias")]
    expected = {f"aggregator.rounds.0.{block}.{part}" for block in blocks for part in parts}
    expected |= {f"aggregator.pool.{m}.{name}" for m in ("dna", "rna") for name in ("mean", "scale")}
    expected |= {"head.weight", "head.bias"}
    assert set(model_of(modalities=("dna", "rna")).state_dict()) == expected
    assert set(model_of(modalities=("rna",), aggregator="concat").state_dict()) == {
        "aggregator.pool.rna.mean", "aggregator.pool.rna.scale", "aggregator.project.rna.weight",
        "aggregator.project.rna.bias", "aggregator.mix.2.weight", "aggregator.mix.2.bias", "head.weight", "head.bias",
    }  # fmt: skip
