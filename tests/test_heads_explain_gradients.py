"""Gradient x embedding: against differences by hand, exact for a linear model, and shared by letters."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live_study import make_live, make_simulated
from typer.testing import CliRunner

from embedcache.dataset import read_dataset
from embedcache.errors import EmbedCacheError
from embedcache.ragged import Ragged
from heads.commands import app
from heads.interpret.explain.gradients import gradients, score_tokens, to_letters
from heads.interpret.explain.subject import open_subject


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_simulated(tmp_path_factory.mktemp("simulated"))


def test_scores_add_up_where_the_model_is_linear(tmp_path: Path) -> None:
    dataset, run = make_live(tmp_path, aggregator="linear", tokens=4)
    subject = open_subject(run, dataset.samples["transcript_id"].iloc[0], device="cpu")
    found = score_tokens(subject, [0, 2])
    np.testing.assert_allclose(found.total, found.prediction - found.of_zeros, atol=1e-4)
    assert np.abs(found.total).max() > 1e-3
    np.testing.assert_allclose(found.prediction, subject.live.predict([subject.sequences])[0][[0, 2]], atol=1e-4)


@pytest.mark.parametrize("aggregator", ["cross-attention", "concat"])
def test_a_score_is_the_slope_along_the_embedding(tmp_path: Path, aggregator: str) -> None:
    dataset, run = make_live(tmp_path, aggregator=aggregator, heads=2)
    row = int(np.flatnonzero(dataset.samples["protein_key"].isna())[0])
    subject = open_subject(run, dataset.samples["transcript_id"].iloc[row], device="cpu")
    found = score_tokens(subject, [0, 1, 2])
    assert set(found.tokens) == {"dna", "rna"}
    live, step = subject.live, 1e-2
    live.trained.model.double()
    with torch.no_grad():
        tokens = {m: live.embed(m, [subject.sequences.get(m)]).to("cpu", torch.float64) for m in live.modalities}
        for modality, token in (("dna", 1), ("rna", 0)):
            ends = []
            for factor in (1 + step, 1 - step):
                values = tokens[modality].values.clone()
                values[token] *= factor
                changed = {**tokens, modality: Ragged(values, tokens[modality].offsets)}
                ends.append(live.trained.model(changed)[0] * torch.tensor(live.trained.scaler.sd))
            slope = ((ends[0] - ends[1]) / (2 * step)).double().numpy()
            np.testing.assert_allclose(found.tokens[modality][token], slope, rtol=2e-2, atol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=8))
def test_letters_get_all_of_their_tokens(spans: list[tuple[int, int]]) -> None:
    bounds = np.array([(start, start + size) for start, size in spans])
    scores = np.arange(1.0, len(spans) * 2 + 1).reshape(-1, 2)
    letters = to_letters(scores, bounds, 30)
    np.testing.assert_allclose(letters.sum(axis=0), scores.sum(axis=0))
    covered = np.zeros(30, dtype=bool)
    for start, end in bounds:
        covered[start:end] = True
    assert (letters[~covered] == 0).all()


def test_the_command_writes_tokens_with_their_letters(tmp_path: Path, run: Path) -> None:
    dataset = read_dataset(run.parent / "dataset")
    transcript = str(dataset.samples["transcript_id"].iloc[0])
    arguments = ["explain", "gradients", "--run", str(run), "--transcript", transcript, "--output", str(tmp_path)]
    said = CliRunner().invoke(app, [*arguments, "--device", "cpu"], catch_exceptions=False).output
    assert "[simulated; small encoder" in said
    assert "equal where the model is linear in its tokens" in said
    table = pq.read_table(tmp_path / f"gradients-{transcript}.parquet").to_pandas()
    subject = open_subject(run, transcript, device="cpu")
    assert set(table["tissue"]) == set(dataset.tissues)
    one = table[table["tissue"] == dataset.tissues[0]]
    for modality, part in one.groupby("modality"):
        sequence: Any = subject.sequences[modality]
        assert "".join(part["letters"]) == sequence
        assert part["end"].iloc[-1] == len(sequence)
    page = (tmp_path / f"gradients-{transcript}.html").read_text()
    assert page.count("small encoder: rna mini-rna") >= 4
    assert page.count("<svg") == len(one["modality"].unique())


def test_a_modality_that_is_not_there_is_refused(tmp_path: Path, run: Path) -> None:
    dataset = read_dataset(run.parent / "dataset")
    row = int(np.flatnonzero(dataset.samples["protein_key"].isna())[0])
    transcript = dataset.samples["transcript_id"].iloc[row]
    with pytest.raises(EmbedCacheError, match="has no protein"):
        gradients(run, transcript, tmp_path, modality="protein", device="cpu")
    assert not list(tmp_path.iterdir())
    gradients(run, transcript, tmp_path, device="cpu", tissues=[dataset.tissues[0]])
    assert len(list(tmp_path.iterdir())) == 2
