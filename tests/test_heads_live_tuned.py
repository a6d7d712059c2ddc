"""A run that has trained encoders is explained with those."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from live_study import letters
from tuned_study import TunedStudy, make_tuned_study

from embedcache.dataset import read_dataset
from embedcache.encoders.of_spec import encoder_of_spec
from heads.finetune.encoder import TunedEncoder
from heads.interpret.explain.gradients import score_tokens
from heads.interpret.explain.live_model import open_live
from heads.interpret.explain.mutagenesis import mutagenesis
from heads.interpret.explain.subject import open_subject
from heads.predict import predict


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("tuned"))


@pytest.mark.parametrize("method", ["full", "last:2", "lora"])
def test_predictions_are_those_of_the_trained_encoder(tmp_path: Path, study: TunedStudy, method: str) -> None:
    if method == "lora":
        pytest.importorskip("peft")
    study.tune(tmp_path / "run", study.start(method))
    predict(tmp_path / "run", study.dataset, study.cache, tmp_path / "p.parquet", device="cpu")
    cached = pd.read_parquet(tmp_path / "p.parquet").iloc[:, 2:].to_numpy()
    live, inputs = open_live(tmp_path / "run", "cpu"), letters(read_dataset(study.dataset))
    found = live.predict(inputs)
    np.testing.assert_allclose(found, cached, rtol=0, atol=1e-6)
    assert isinstance(live.tokens["rna"].encoders[0], TunedEncoder)
    assert not isinstance(live.tokens["protein"].encoders[0], TunedEncoder)
    frozen = encoder_of_spec(live.tokens["rna"].spec).encode([inputs[0]["rna"]])[0]
    assert np.abs(live.tokens["rna"].rows([inputs[0]["rna"]])[0] - frozen).max() > 1e-6
    np.testing.assert_allclose(live.embed("rna", [inputs[0]["rna"]]).values.detach().numpy(),
                               live.tokens["rna"].rows([inputs[0]["rna"]])[0], atol=1e-4)  # fmt: skip


def test_it_is_explained_like_a_frozen_one(tmp_path: Path, study: TunedStudy) -> None:
    study.tune(tmp_path / "run", study.start("full"))
    transcript = str(read_dataset(study.dataset).samples["transcript_id"].iloc[0])
    found = mutagenesis(tmp_path / "run", transcript, "rna", tmp_path / "out", region="2:5", device="cpu")
    assert len(found.mutants) == 9
    assert any(label.startswith("fine-tuned (full): rna") for label in found.labels)
    scores = score_tokens(open_subject(tmp_path / "run", transcript, device="cpu"), [0])
    assert np.isfinite(scores.total).all()
