"""Settings: every one of them has a flat name, a kind and a range, comes back from JSON, and names the run."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError, UnknownNameError
from heads.checks import MANY, known_fields, within
from heads.config import AGGREGATORS, ModelConfig, SplitConfig, TrainConfig
from heads.finetune.config import FinetuneConfig
from heads.plain import from_plain, to_plain
from heads.settings import FIELDS, RunSettings
from heads.text import three

OTHER: dict[str, Any] = {
    "modalities": "rna,dna", "aggregator": "perceiver", "centres": "dna", "heads": 4, "rounds": 2, "width": 32,
    "pre_norm": True, "feed_forward": 2, "tokens": 8, "depth": 1, "bins": 1, "pooling": "attention", "hidden": 64,
    "dropout": 0.25, "head": "mlp", "rank": 3, "lengths": True, "modality_dropout": 0.5, "learning_rate": 0.01,
    "batch_size": 16, "epochs": 7, "patience": 3, "weight_decay": 0.1, "schedule": "linear", "warmup": 0.1,
    "clip": 1.0, "loss": "huber", "tissue_weights": {"Liver": 2.0}, "precision": "bfloat16", "seed": 5,
    "data_seed": 6, "bucketed": True, "device": "cuda:1", "resident": "never", "max_tokens_per_batch": 1000,
    "split": "column", "folds": 4, "fold": 3, "inner_folds": 3, "inner_fold": 2, "validation_fraction": 0.2,
    "split_seed": 9, "split_column": "famille", "similarity": 0.7, "split_tool": "mmseqs", "encoder.dna": "a",
    "encoder.rna": "b+c", "encoder.protein": "d",
}  # fmt: skip
"""Another value than the default for every setting; all of them go together."""
ALONE = {name: value for name, value in OTHER.items() if name not in ("fold", "inner_folds", "inner_fold")}


# --- flat names ---


def test_every_setting_can_be_set_by_its_flat_name() -> None:
    assert set(OTHER) == set(FIELDS)
    made = RunSettings.from_flat({**OTHER, "bins": 1})
    flat = made.flat()
    for name, value in OTHER.items():
        if name.startswith("encoder."):
            continue
        shown = {"modalities": ("dna", "rna"), "tissue_weights": (("Liver", 2.0),)}.get(name, value)
        assert flat[name] == shown, name
        assert name == "bins" or flat[name] != RunSettings().flat()[name], f"{name} was set to its default"
    assert made.encoders == {"dna": "a", "rna": "b+c"}, "an encoder of what is not read has no part"


def test_settings_come_back_and_any_change_gives_another_name() -> None:
    made = RunSettings.from_flat(OTHER)
    again = RunSettings.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.digest() == made.digest()
    digests = {made.digest()}
    for name in FIELDS:
        if name in ("bins", "encoder.protein", "centres", "split", "split_column", "heads"):
            continue
        try:
            digests.add(RunSettings.from_flat({key: value for key, value in OTHER.items() if key != name}).digest())
        except EmbedCacheError:
            continue  # a fold without its folds
    assert len(digests) >= len(FIELDS) - 10


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("modalities", "tissue_weights")])
def test_a_value_of_another_kind_is_refused_by_name(name: str) -> None:
    wrong: dict[type, list[Any]] = {
        bool: [1, "true", None],
        int: [1.0, True, "1", [1]],
        float: [True, "1", [1.0], None],
        str: [1, True, ["a"]],
    }
    kind = str if name.startswith("encoder.") else type(OTHER[name])
    for value in wrong[kind]:
        with pytest.raises(InvalidSettingError, match=rf"^{name} is .*\. Give ") as caught:
            RunSettings.from_flat({name: value})
        assert ('or "none"' in str(caught.value)) == (name in ("width", "depth", "clip", "max_tokens_per_batch"))


@pytest.mark.parametrize("name", ["width", "depth", "clip", "max_tokens_per_batch"])
def test_a_limit_can_be_none(name: str) -> None:
    assert RunSettings.from_flat({name: "none"}).flat()[name] is None


def test_whole_numbers_do_for_numbers_and_not_the_other_way() -> None:
    assert RunSettings.from_flat({"weight_decay": 1}).training.weight_decay == 1.0
    assert type(RunSettings.from_flat({"weight_decay": 1}).training.weight_decay) is float
    assert RunSettings.from_flat({"modalities": " rna , dna"}).model.modalities == ("dna", "rna")
    assert RunSettings.from_flat({"modalities": ["rna"]}).model.modalities == ("rna",)
    for wrong in ([1], {"rna": 1}, 3):
        with pytest.raises(InvalidSettingError, match="modalities is"):
            RunSettings.from_flat({"modalities": wrong})
    for weights in ({"Liver": "2"}, {"Liver": True}, [["Liver", 2]]):
        with pytest.raises(InvalidSettingError, match=r"tissue_weights is .* a table"):
            RunSettings.from_flat({"tissue_weights": weights})


def test_a_name_that_is_no_setting_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'learning_rate'"):
        RunSettings.from_flat({"learning-rate": 0.1})
    with pytest.raises(UnknownNameError, match=r"Unknown setting 'encoder\.lipid'"):
        RunSettings.from_flat({"encoder.lipid": "x"})


# --- ranges ---


LIMITS: list[tuple[type, str, list[Any], list[Any]]] = [
    (TrainConfig, "learning_rate", [1e-9, 1e6], [0, -1e-3, 1.1e6, math.nan, math.inf]),
    (TrainConfig, "weight_decay", [0, 1e6], [-1e-9, 1.1e6, math.nan]),
    (TrainConfig, "warmup", [0, 0.999], [-0.1, 1, math.nan]),
    (TrainConfig, "clip", [None, 1e-9, 1e30], [0, -1.0, math.inf, math.nan]),
    (TrainConfig, "batch_size", [1, MANY], [0, -1, MANY + 1, 1.5, True]),
    (TrainConfig, "epochs", [1, MANY], [0, 1.0]),
    (TrainConfig, "patience", [1, MANY], [0, False]),
    (TrainConfig, "seed", [0, MANY], [-1, MANY + 1]),
    (TrainConfig, "data_seed", [0, MANY], [-1, MANY + 1]),
    (TrainConfig, "max_tokens_per_batch", [None, 1, MANY], [0, -5]),
    (TrainConfig, "device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"], ["", "gpu", "cuda:x", "cpu:-1"]),
    (TrainConfig, "tissue_weights", [(("a", 0),), (("a", 1), ("b", 2))], [(("a", -1),), (("a", math.inf),),
                                                                       (("a", 1), ("a", 2)), (("a", math.nan),)]),
    (ModelConfig, "heads", [1, 65_536], [0, 65_537]),
    (ModelConfig, "rounds", [1], [0]),
    (ModelConfig, "hidden", [1, 65_536], [0, 65_537]),
    (ModelConfig, "tokens", [1], [0]),
    (ModelConfig, "rank", [1], [0]),
    (ModelConfig, "bins", [1], [0]),
    (ModelConfig, "depth", [None, 1], [0, 65_537]),
    (ModelConfig, "width", [None, 8, 65_536], [0, 65_544]),
    (ModelConfig, "feed_forward", [0, 64], [-1, 65]),
    (ModelConfig, "dropout", [0, 0.99], [-0.1, 1, math.nan]),
    (ModelConfig, "modality_dropout", [0, 0.99], [-0.1, 1, math.nan]),
    (ModelConfig, "modalities", [("rna",), ("protein", "dna")], [(), ("rna", "rna")]),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "name", "good", "bad"), LIMITS, ids=lambda x: x if isinstance(x, str) else "")
def test_both_ends_of_a_range_are_taken_and_nothing_beyond(
    cls: Any, name: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        assert cls.from_json(json.loads(json.dumps(cls(**{name: value}).to_json()))) == cls(**{name: value})
    for value in bad:
        with pytest.raises(InvalidSettingError, match=name if name != "modalities" else "Modalities are"):
            cls(**{name: value})


def test_tuning_settings_have_ranges_too() -> None:
    made = FinetuneConfig(modalities=("protein", "rna"), method="last:4", ema=0.5)
    assert made.modalities == ("rna", "protein")
    assert made.last == 4
    assert FinetuneConfig(modalities=("rna",), method="lora").last is None
    assert FinetuneConfig.from_json(json.loads(json.dumps(made.to_json()))) == made
    wrong: list[tuple[str, Any]] = [
        *(("method", x) for x in ("last:0", "last:", "last:12345", "LoRA", "full ")),
        *(("lora_rank", x) for x in (0, 65_537, 2.5)), *(("learning_rate", x) for x in (0, 1.01, math.nan)),
        *(("weight_decay", x) for x in (-1, 2e6, math.nan)), *(("lora_alpha", x) for x in (-1, 2e6)),
        *(("ema", x) for x in (-0.1, 1.0, math.nan)), ("lora_dropout", 1.0),
    ]  # fmt: skip
    for name, value in wrong:
        with pytest.raises(InvalidSettingError, match=name):
            FinetuneConfig(modalities=("rna",), **{name: value})
    for modalities in ((), ("rna", "rna")):
        with pytest.raises(InvalidSettingError, match="at least one modality, each once"):
            FinetuneConfig(modalities=modalities)
    with pytest.raises(UnknownNameError, match="'protein'"):
        FinetuneConfig(modalities=("proteins",))  # type: ignore[arg-type]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_heads_share_a_width_only_where_there_is_attention(aggregator: str) -> None:
    needed = aggregator in ("cross-attention", "perceiver")
    if needed:
        with pytest.raises(InvalidSettingError, match="width 10 is not a multiple of 8 heads"):
            ModelConfig(aggregator=aggregator, width=10)
    else:
        assert ModelConfig(aggregator=aggregator, width=10).width == 10


def test_a_centre_must_be_read() -> None:
    with pytest.raises(InvalidSettingError, match="'protein' is not among the modalities dna, rna"):
        ModelConfig(modalities=("dna", "rna"), centres="protein")
    assert ModelConfig(modalities=("dna", "rna"), centres="rna").centre_modalities == ("rna",)
    assert ModelConfig(modalities=("rna", "dna")).centre_modalities == ("dna", "rna")


@pytest.mark.parametrize(
    "name", ["centres", "pooling", "head", "schedule", "loss", "precision", "resident", "unit", "tool"]
)
def test_a_choice_that_there_is_not_lists_those_there_are(name: str) -> None:
    for cls in (ModelConfig, TrainConfig, SplitConfig):
        if name in {item.name for item in fields(cls)}:
            with pytest.raises(UnknownNameError, match=r"Unknown .*'zzz'\. Choose from: "):
                cls(**{name: "zzz"})  # type: ignore[arg-type]


def test_a_given_split_says_no_more_than_that() -> None:
    assert SplitConfig(seed=5).to_json() == {"unit": "given"}
    assert SplitConfig.from_json({"unit": "given"}) == SplitConfig()
    drawn = SplitConfig(unit="gene", seed=5, folds=3, fold=2)
    assert SplitConfig.from_json(drawn.to_json()) == drawn


# --- helpers of settings ---


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-10, 10))
def test_a_whole_number_is_within_or_refused(least: int, most: int, value: int) -> None:
    if least <= value <= most:
        within(least, most, "x", value)
        within(least, most, "x", np.int64(value))  # type: ignore[arg-type]
    else:
        with pytest.raises(InvalidSettingError, match=f"x is {value}. Give a whole number from {least} to {most}"):
            within(least, most, "x", value)


def test_settings_of_another_version_are_told() -> None:
    known = TrainConfig().to_json()
    del known["bucketed"]  # an older one did not have it
    assert TrainConfig.from_json(known) == TrainConfig()
    with pytest.raises(
        InvalidInputError, match="TrainConfig of another version: settings colour, taste are missing or"
    ):
        TrainConfig.from_json({**known, "taste": 1, "colour": 2})

    @dataclass(frozen=True)
    class Needed:
        there: int
        optional: int = 3

    with pytest.raises(InvalidInputError, match="settings there are missing"):
        known_fields(Needed, {"optional": 2})
    assert known_fields(Needed, {"there": 1}) == {"there": 1}


NUMBERS = st.floats() | st.none() | st.integers() | st.text(max_size=3)


@settings(max_examples=60)
@given(st.recursive(NUMBERS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=2), x, max_size=3)))
def test_plain_values_are_json_and_numbers_stay_what_they_are(value: Any) -> None:
    found = to_plain({"x": value})
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    if isinstance(value, float):
        assert found["x"] == (value if math.isfinite(value) else None)
    if isinstance(value, list) and all(isinstance(one, int | str) for one in value):
        assert found["x"] == value


def test_undefined_scores_come_back_as_nan_at_any_depth() -> None:
    @dataclass(frozen=True)
    class Some:
        a: float
        b: tuple[tuple[float, ...], ...]

    made = Some(math.nan, ((1.0, math.inf), ()))
    found = Some(**from_plain(Some, json.loads(json.dumps(to_plain(asdict(made))))))
    assert math.isnan(found.a)
    assert found.b[0][0] == 1.0 and math.isnan(found.b[0][1]) and found.b[1] == ()
    with pytest.raises(KeyError, match="b"):
        from_plain(Some, {"a": 1})


def test_numbers_as_text() -> None:
    assert (three(0.12345), three(-2), three(None)) == ("0.123", "-2.000", "undefined")


def test_a_setting_replaced_is_checked_again() -> None:
    with pytest.raises(InvalidSettingError, match="epochs is 0"):
        replace(TrainConfig(), epochs=0)
    with pytest.raises(InvalidSettingError, match="fold is 2"):
        replace(SplitConfig(unit="gene", folds=3, fold=2), folds=2)
