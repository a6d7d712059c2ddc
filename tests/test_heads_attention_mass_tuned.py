"""Attention by region before and after fine-tuning, of runs that ``heads train --finetune`` made."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tuned_study import TunedStudy, make_tuned_study

from heads.interpret.attention.analysis import analyse_run
from heads.interpret.attention.cross_regions import block_mass, cross_scores, rows_with_regions
from heads.interpret.attention.encoders import encoder_by_name, encoders_of_run
from heads.interpret.attention.regions import find_cases, region_shares
from heads.interpret.attention.rows import AttentionSettings
from heads.interpret.attention.scores import score_transcripts
from heads.trained import load_trained

ALL = AttentionSettings(split="all", transcripts=0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("tuned"))


def tune(study: TunedStudy, path: Path, method: str = "full") -> Path:
    study.tune(path, study.start(method, learning_rate=3e-3))
    return path


@pytest.mark.parametrize("method", ["full", "lora", "last:1"])
def test_after_is_the_encoder_that_was_trained_and_before_the_one_it_came_from(
    study: TunedStudy, tmp_path: Path, method: str
) -> None:
    trained = load_trained(tune(study, tmp_path / "run", method), "cpu")
    before, after = encoders_of_run(trained, "rna", "cpu")
    assert after is not None
    cases = find_cases(trained.study().dataset, "rna", rows_with_regions(trained.study()).tolist())
    found = score_transcripts(before, cases)
    assert np.array_equal(found.mass, score_transcripts(encoder_by_name("mini-rna", "rna", "cpu"), cases).mass, True)
    changed = np.nanmax(np.abs(score_transcripts(after, cases).mass - found.mass), axis=(0, 2, 3))  # of each layer
    unchanged = 3 if method == "last:1" else 0
    assert (changed[:unchanged] == 0).all() and (changed[unchanged:] > 0).all()
    rows = trained.encoder("rna").embed([case.sequence for case in cases]).values
    ours = after.encode_packed([case.sequence for case in cases]).values
    assert torch.equal(rows, ours.float())  # what the run reads, still after attention was looked at


def test_a_fine_tuned_run_gives_three_comparisons(study: TunedStudy, tmp_path: Path) -> None:
    run = tune(study, tmp_path / "run")
    found = analyse_run(run, ALL, device="cpu")
    told = [(one.attention, one.weights, one.against) for one in found.analyses]
    assert told[:3] == [("rna", "frozen", "uniform"), ("rna", "tuned", "uniform"), ("rna", "tuned", "frozen")]
    assert [one for one, *_ in told[3:]] == ["rna reads protein", "protein reads rna"]
    assert any("fine-tuned" in label for label in found.labels)
    frozen = analyse_run(study.frozen, ALL, device="cpu")
    assert np.array_equal(frozen.analyses[0].tests.mass, found.analyses[0].tests.mass)
    assert any("is frozen" in note for note in frozen.notes) and not any("is frozen" in note for note in found.notes)
    other = analyse_run(run, ALL, modality="protein", cross=False, device="cpu")
    assert len(other.analyses) == 1 and any("protein encoder of this run is frozen" in note for note in other.notes)


def test_cross_attention_reads_what_the_trained_encoder_makes(study: TunedStudy, tmp_path: Path) -> None:
    trained = load_trained(tune(study, tmp_path / "run"), "cpu")
    opened = trained.study()
    rows = rows_with_regions(opened)[:5]
    found = cross_scores(trained, opened, rows)["rna", "protein"].mass[:, 0]  # (5, heads, thirds)
    aggregator = trained.model.aggregator
    block = aggregator.rounds[0]["rna_reads_protein"]  # type: ignore[index, union-attr]
    spans = [np.array([[i, i + 1] for i in range(len(case.sequence))]) for case in
             find_cases(opened.dataset, "protein", rows.tolist())]  # fmt: skip
    shares = [torch.from_numpy(region_shares(one, np.linspace(0, len(one), 4).tolist())) for one in spans]
    masses = {}
    for name, data in (("live", trained.data(opened)), ("stored", opened.data)):
        (batch,) = data.batches([rows])
        with torch.no_grad():
            x, context = (
                batch.tokens[m]._replace(values=aggregator.project[m](batch.tokens[m].values))  # type: ignore[index, union-attr]
                for m in ("rna", "protein")
            )
            masses[name] = block_mass(block, x, context, shares)[..., :3]  # type: ignore[arg-type]
    assert np.allclose(found, masses["live"], atol=1e-7)
    assert np.abs(found - masses["stored"]).max() > 1e-5
