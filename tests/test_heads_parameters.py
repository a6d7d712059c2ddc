"""Wrong arguments of ``HeadRegressor``: one line that names the parameter, never an option of a command."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_study import FakeStudy, fill_cache, make_study

from embedcache.dataset import read_dataset
from embedcache.errors import EmbedCacheError
from heads.parameters import parameters_named
from heads.regressor import HeadRegressor

SMALL: dict[str, Any] = {"hidden": 8, "epochs": 1, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=20)


def told(head: HeadRegressor, *arguments: Any) -> str:
    with pytest.raises(EmbedCacheError) as caught:
        head.fit(*arguments)
    text = str(caught.value)
    assert "--" not in text and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", "x", "Give a number"),
        ("learning_rate", None, "Give a number"),
        ("dropout", True, "Give a number"),
        ("clip", "x", "Give a number or None"),
        ("validation_fraction", "a tenth", "Give a number"),
        ("hidden", 8.0, "Give a whole number"),
        ("split_seed", -1, "Give a whole number"),
        ("lengths", "yes", "Give True or False"),
        ("aggregator", ["concat"], "Give a text"),
        ("loss", None, "Give a text"),
        ("modalities", "rna", r"Give a sequence such as \('dna', 'rna'\)"),
        ("modalities", 3, "Give a sequence"),
        ("tissue_weights", {"a1": 2.0}, "Give pairs such as"),
        ("tissue_weights", (("0", "2"),), "Give pairs such as"),
        ("tissue_weights", 3, "Give pairs such as"),
        ("blocks", {}, "Give columns by modality"),
        ("blocks", {"rna": "8"}, "Give columns by modality"),
        ("blocks", {"rna": 8.0}, "Give columns by modality"),
    ],
)
def test_a_parameter_of_a_wrong_kind_is_named(name: str, value: Any, words: str) -> None:
    x = np.random.default_rng(0).standard_normal((30, 8))
    with pytest.raises(EmbedCacheError, match=f"^{name} is .*{words}"):
        HeadRegressor(**{**SMALL, name: value}).fit(x, x[:, 0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3, "aggregator": "cross-attention"}, "Choose heads that divides it, .* with width"),
        ({"encoders": {"rna": "tiny-rna+tiny-rna"}}, "encoders={'rna': 'tiny-rna.tiny-rna'} names one store twice"),
        ({"encoders": {"rna": ""}}, "encoder of rna, '', is empty"),
        ({"encoders": {"rma": "tiny-rna"}}, "Did you mean 'rna'"),
        ({"encoders": {"dna": "tiny-dna"}, "modalities": ["rna"]}, "for dna, which is not read. Add it to modalities"),
        ({"encoders": "tiny-rna"}, "Give names by modality"),
        ({"encoders": {"rna": 3}}, "Give names by modality"),
        ({"modalities": ()}, "modalities are .*at least one"),
        ({"dataset": 3}, "dataset is 3"),
    ],
)
def test_what_a_command_would_call_an_option_is_a_parameter(
    study: FakeStudy, changes: dict[str, Any], words: str
) -> None:
    head = HeadRegressor(**{**SMALL, "dataset": study.dataset, "cache": study.cache, **changes})
    with pytest.raises(EmbedCacheError, match=words):
        head.fit(range(20))
    assert told(head, range(20))


def test_targets_that_are_no_tpm_and_names_that_mean_two_stores(tmp_path: Path) -> None:
    x, study = np.random.default_rng(0).standard_normal((30, 8)), make_study(tmp_path, n_genes=20)
    assert "Use loss mse or huber" in told(HeadRegressor(**SMALL, loss="poisson"), x, x[:, 0])
    fill_cache(study.cache, read_dataset(study.dataset), revision="another")
    text = told(HeadRegressor(**SMALL, dataset=study.dataset, cache=study.cache, modalities=["rna"]), range(20))
    assert "encoders={'rna': 'tiny-rna-" in text


def test_whole_commands_stay_as_they_are() -> None:
    text = "Lower --max-tokens-per-batch, or run `embedcache build --modality rna`; with --finetune nothing."
    with pytest.raises(EmbedCacheError) as caught, parameters_named():
        raise EmbedCacheError(text)
    assert str(caught.value) == text.replace("--max-tokens-per-batch", "max_tokens_per_batch")
