"""``heads train`` has one option for each setting of a run, with the type and the default of the setting."""

from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.finetune.command import TUNING
from heads.finetune.config import FinetuneConfig
from heads.settings import SPLIT_NAMES
from heads.train_options import ModelOptions, SplitOptions, TrainingOptions, TuningOptions

OTHERWISE = {"modalities", "tissue_weights"}  # said in other words on a command line


@pytest.mark.parametrize(
    ("options", "config", "names"),
    [
        pytest.param(ModelOptions, ModelConfig, {}, id="model"),
        pytest.param(TrainingOptions, TrainConfig, {}, id="training"),
        pytest.param(SplitOptions, SplitConfig, SPLIT_NAMES, id="split"),
        pytest.param(TuningOptions, FinetuneConfig, TUNING, id="tuning"),
    ],
)
def test_each_setting_is_an_option_of_its_kind(options: type, config: type, names: dict[str, str]) -> None:
    flat = {field: name for name, field in names.items()}
    offered = {field.name: field.default for field in fields(options)}
    kinds, wanted = get_type_hints(options), get_type_hints(config)
    settings: dict[str, Any] = {field.name: field.default for field in fields(config) if field.name not in OTHERWISE}
    for name, default in settings.items():
        option = flat.get(name, name)
        assert (offered[option], kinds[option]) == (default, wanted[name]), name
    extra = set(offered) - {flat.get(name, name) for name in settings}
    assert extra <= {"tissue_weight", "finetune", "from_run", "weights", "shard"}
