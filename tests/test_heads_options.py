"""Options of the model: several layers mixed, length features, modality dropout."""

import pytest
import torch

from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.ragged import Ragged
from embedcache.sequences import MODALITIES, Modality
from heads.config import ModelConfig
from heads.mixing import LayerMix
from heads.model import ExpressionModel, drop_modalities
from heads.pooling import fitting, summarise

WIDTHS: dict[Modality, int] = {"dna": 8, "rna": 16, "protein": 12}


def model_of(**changes: object) -> ExpressionModel:
    torch.manual_seed(0)
    return ExpressionModel(ModelConfig(**{"heads": 2, "hidden": 16, **changes}), WIDTHS, 3)  # type: ignore[arg-type]


def batch(lengths: dict[Modality, list[int]]) -> dict[Modality, Ragged]:
    return {m: Ragged.from_list([torch.randn(t, WIDTHS[m]) for t in n]) for m, n in lengths.items()}


def beside(*layers: dict[Modality, Ragged]) -> dict[Modality, Ragged]:
    """Layers side by side, (N, L * D)."""
    return {m: Ragged(torch.cat([one[m].values for one in layers], -1), layers[0][m].offsets) for m in layers[0]}


LAYERS: dict[Modality, int] = {"dna": 3, "rna": 1, "protein": 3}
COUNTS = {"dna": [4, 7, 0], "rna": [1, 5, 3], "protein": [0, 6, 9]}


def layered() -> tuple[dict[Modality, Ragged], list[dict[Modality, Ragged]]]:
    layers = [batch(COUNTS) for _ in range(3)]  # type: ignore[arg-type]
    tokens = beside(*layers)
    return {**tokens, "rna": layers[0]["rna"]}, layers


@pytest.mark.parametrize(
    "options",
    [{}, *({"aggregator": name} for name in ("concat", "linear")), {"aggregator": "concat", "pooling": "max-mean"}],
    ids=str,
)
def test_layers_are_mixed_by_a_softmax_and_a_scale(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = ModelConfig(heads=2, hidden=16, tokens=4, dropout=0, **options)  # type: ignore[arg-type]
    model, tokens = ExpressionModel(config, WIDTHS, 3, LAYERS), layered()
    with torch.no_grad():
        for mix in model.mix.values():
            mix.weights.copy_(torch.tensor([1.0, -2.0, 0.5]))  # type: ignore[union-attr]
            mix.scale.fill_(1.7)  # type: ignore[operator, union-attr]
    weights = torch.tensor([1.0, -2.0, 0.5]).softmax(0) * 1.7
    mixed = {
        m: Ragged(sum(w * one[m].values for w, one in zip(weights, tokens[1], strict=True)), tokens[1][0][m].offsets)
        for m in MODALITIES
    }
    mixed["rna"] = tokens[0]["rna"]
    plain = ExpressionModel(config, WIDTHS, 3)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("mix.")})
    torch.testing.assert_close(model(tokens[0]), plain(mixed), atol=1e-5, rtol=1e-5)
    if model.reads == "tokens":
        return
    summaries = {m: summarise(ragged, model.reads) for m, ragged in tokens[0].items()}
    packed = {
        m: Ragged.from_list([rows[: len(rows) * (n > 0)] for rows, n in zip(x, COUNTS[m], strict=True)])
        for m, x in summaries.items()
    }
    torch.testing.assert_close(model(packed), plain(mixed), atol=1e-5, rtol=1e-5)


def test_layers_start_as_their_mean_and_learn() -> None:
    mix, values = LayerMix(3, 4), torch.randn(5, 3, 4)
    found = mix(Ragged(values.flatten(1), torch.tensor([0, 5]))).values
    torch.testing.assert_close(found, values.mean(1))
    found.square().sum().backward()
    assert mix.weights.grad is not None
    assert bool(mix.weights.grad.any())
    with pytest.raises(InvalidInputError, match="13 columns, expected 3 layers x 4"):
        mix(Ragged(torch.zeros(2, 13), torch.tensor([0, 2])))


def test_length_features_are_standardised_and_zero_where_missing() -> None:
    model = model_of(aggregator="concat", lengths=True).eval()
    tokens, captured = batch({"dna": [4, 4, 4], "rna": [2, 9, 5], "protein": [0, 3, 30]}), []
    with torch.no_grad(), fitting(model):
        model(tokens)
    model.head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0][:, -3:]))
    without = model(tokens)
    logs = torch.tensor([[2, 9, 5], [0, 3, 30]]).float().log1p()
    rna, protein = logs[0], logs[1, 1:]
    expected = torch.zeros(3, 3)  # dna does not vary
    expected[:, 1] = (rna - rna.mean()) / rna.std(correction=0)
    expected[1:, 2] = (protein - protein.mean()) / protein.std(correction=0)
    torch.testing.assert_close(captured[0], expected, atol=1e-5, rtol=1e-5)
    means = {
        m: Ragged.from_list([part.mean(0, keepdim=True) if len(part) else part for part in ragged.to_list()])
        for m, ragged in tokens.items()
    }
    torch.testing.assert_close(model(means, {m: ragged.lengths for m, ragged in tokens.items()}), without)
    with pytest.raises(InvalidSettingError, match="Give it `lengths` as well"):
        model(means)


def test_modality_dropout_has_its_chance_and_spares_the_last() -> None:
    torch.manual_seed(0)
    n = 3000
    lengths = {"dna": [2] * n, "rna": [3, 0] * (n // 2), "protein": [0] * (n // 2) + [1] * (n // 2)}
    tokens = batch(lengths)  # type: ignore[arg-type]
    before = {m: ragged.values.clone() for m, ragged in tokens.items()}
    kept = drop_modalities(tokens, 0.4)
    had = torch.stack([tokens[m].lengths > 0 for m in MODALITIES], -1)
    has = torch.stack([kept[m].lengths > 0 for m in MODALITIES], -1)
    assert not (has & ~had).any()
    assert bool(has.any(1).all()), "nobody loses the last one"
    lost = (had & ~has).float()
    three, two = had.sum(1) == 3, had.sum(1) == 2
    assert not lost[had.sum(1) == 1].any()
    # each is lost with the chance, less the share of the case that all are lost, in which one comes back
    assert float(lost[three].mean()) == pytest.approx(0.4 - 0.4**3 / 3, abs=0.03)
    assert float(lost[two].sum() / two.sum()) == pytest.approx(2 * 0.4 - 0.4**2, abs=0.05)
    for m, ragged in tokens.items():
        assert torch.equal(ragged.values, before[m])
        assert all(
            not len(new) or torch.equal(new, old) for new, old in zip(kept[m].to_list(), ragged.to_list(), strict=True)
        )


@pytest.mark.parametrize("aggregator", ["cross-attention", "concat", "linear"])
def test_modality_dropout_acts_in_training_only_and_follows_the_generator(aggregator: str) -> None:
    model, tokens = model_of(aggregator=aggregator, modality_dropout=0.5, dropout=0.0, lengths=True), layered()[1][0]
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(tokens))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    torch.manual_seed(1)
    dropped = drop_modalities(tokens, 0.5)
    torch.testing.assert_close(found[0], model.eval()(dropped, {m: ragged.lengths for m, ragged in tokens.items()}))
    state = torch.get_rng_state()
    torch.testing.assert_close(model(tokens), model(tokens))
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn outside of training"
