"""An exported run, read by transformers, peft and torch without this package where they can."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_families import load_small
from transformers import AutoModel, EsmModel, T5EncoderModel
from tuned_study import TunedStudy, make_tuned_study

from embedcache.encoders.registry import load_encoder
from embedcache.encoders.tokens import esm_ids
from embedcache.errors import InvalidInputError, InvalidSettingError
from heads.config import ModelConfig
from heads.evaluate import evaluate
from heads.finetune.cached import Merged
from heads.finetune.export import _write_encoder, export_run
from heads.model import ExpressionModel
from heads.trained import load_trained

torch.set_num_threads(1)
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("tuned"))


def rows_of(model: Any) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([[0], esm_ids(SEQUENCE), [2]]))[None]
    with torch.no_grad():
        found = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    return found.last_hidden_state[0, 1:-1].numpy()


def live_rows(run: Path) -> np.ndarray:
    tuned: Any = load_trained(run, "cpu").encoder("protein")
    with torch.inference_mode():
        return tuned.embed([SEQUENCE]).values.numpy()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers in an old way
@pytest.mark.parametrize("method", ["full", "lora", "last:1"])
def test_transformers_peft_and_a_build_read_the_trained_encoder(study: TunedStudy, tmp_path: Path, method: str) -> None:
    study.tune(tmp_path / "run", study.start(method, ("protein",), learning_rate=3e-3), epochs=1)
    found = export_run(tmp_path / "run", tmp_path / "out")
    assert found.encoders == ("protein",) and found.adapters == (("protein",) if method == "lora" else ())
    expected = live_rows(tmp_path / "run")
    folder = tmp_path / "out" / "encoders" / "protein"
    read = EsmModel.from_pretrained(folder, add_pooling_layer=False)
    np.testing.assert_allclose(rows_of(read), expected, atol=2e-5)
    built = load_encoder("mini-protein", "protein", weights=folder)
    np.testing.assert_allclose(built.encode([SEQUENCE])[0], expected, atol=2e-5)
    if method == "lora":
        base: Any = load_encoder("mini-protein", "protein")
        base.model.set_attn_implementation("sdpa")
        adapted = PeftModel.from_pretrained(base.model, tmp_path / "out" / "adapters" / "protein")
        np.testing.assert_allclose(rows_of(adapted), expected, atol=2e-5)
        assert np.abs(rows_of(read) - load_encoder("mini-protein", "protein").encode([SEQUENCE])[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["prott5-xl", "ankh-base", "esmc-300m"])
def test_transformers_reads_encoders_of_other_families(tmp_path: Path, name: str) -> None:
    encoder = load_small(name)
    _write_encoder(Merged(spec=encoder.spec, core=encoder, model=encoder.model), tmp_path / "out")
    kind: Any = AutoModel if name == "esmc-300m" else T5EncoderModel
    read = kind.from_pretrained(tmp_path / "out").eval()
    before, after = ([] if one is None else [one] for one in (encoder.vocabulary.before, encoder.vocabulary.after))
    ids = [*before, *encoder.vocabulary.ids(SEQUENCE).tolist(), *after]
    with torch.no_grad():
        rows = read(input_ids=torch.tensor([ids])).last_hidden_state[0, len(before) : len(ids) - len(after)]
    expected = encoder.encode([SEQUENCE])[0]
    assert np.abs(rows.numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_head_is_read_as_the_card_says(study: TunedStudy, tmp_path: Path) -> None:
    evaluate(study.frozen, device="cpu", resamples=100)
    export_run(study.frozen, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "head" / "config.json").read_text())
    head = ExpressionModel(
        ModelConfig.from_json(config["model"]), config["widths"], len(config["tissues"]), config["layers"]
    )
    head.load_state_dict(load_file(tmp_path / "out" / "head" / "model.safetensors"))
    trained = load_trained(study.frozen, "cpu").model
    assert all(torch.equal(one, trained.state_dict()[name]) for name, one in head.state_dict().items())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "simulated; small encoder: rna mini-rna" in card and "Test, pooled embeddings: R2" in card


def test_nothing_is_replaced_and_nothing_half_written(
    study: TunedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InvalidInputError, match=r"mine exists. Give a directory that does not"):
        export_run(study.frozen, tmp_path / "mine")

    def full(trained: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("heads.finetune.export.model_card", full)
    with pytest.raises(InvalidInputError, match="cannot be written: No space left on device"):
        export_run(study.frozen, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_encoder_without_its_last_blocks_is_not_exported(tmp_path: Path) -> None:
    inner = make_tuned_study(tmp_path, layer=2)
    inner.tune(tmp_path / "run", inner.start("last:1", ("protein",)), epochs=1)
    with pytest.raises(InvalidSettingError, match="was trained behind layer 2, and others would put a normalisation"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
