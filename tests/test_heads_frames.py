"""Run directories and tables of sweeps as frames."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import FakeStudy, make_study

from embedcache.errors import EmbedCacheError, InvalidInputError
from heads.evaluate import evaluate
from heads.frames import read_runs, read_table
from heads.sweep.grid import read_grid
from heads.sweep.sweep import SweepJob, sweep

GRID = """
seeds = [0, 3]
reference = "dna,rna"
[base]
aggregator = "concat"
epochs = 2
hidden = 4
tissue_weights = {Liver = 2.0}
[grid]
modalities = [["rna"], ["dna", "rna"]]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    study: FakeStudy = make_study(folder, n_genes=24)
    (folder / "grid.toml").write_text(GRID)
    grid = read_grid(folder / "grid.toml")
    job = SweepJob(grid=grid, dataset=study.dataset, cache=study.cache, output=folder / "out", device="cpu")
    sweep(job, resamples=100)
    return folder / "out"


def test_a_row_a_run_with_its_settings_and_best_scores(done: Path) -> None:
    frame = read_runs(done)
    assert frame["arm"].tolist() == ["rna", "rna", "dna,rna", "dna,rna"] and frame["seed"].tolist() == [0, 3, 0, 3]
    assert frame["modalities"].equals(frame["arm"].rename("modalities"))
    assert (frame["tissue_weights"] == "Liver=2").all() and (frame["split"] == "given").all()
    assert frame["finished"].all() and (frame["labels"].str.startswith("simulated")).all()
    assert frame["encoder.rna"].str.fullmatch("tiny-rna-[0-9a-f]{12}").all()
    assert frame["encoder.dna"].isna().tolist() == [True, True, False, False]
    for _, row in frame.iterrows():
        history = pd.read_json(done / row["run"] / "history.jsonl", lines=True)
        best = history.loc[history["validation_loss"].idxmin()]
        assert row["epochs_done"] == 2 and row["best_epoch"] == best["epoch"]
        assert row["validation_loss"] == pytest.approx(best["validation_loss"])  # pandas rounds the last digit
        assert row["validation_r2"] == pytest.approx(best["r2"])
        predictions = pd.read_parquet(done / row["run"] / "test_predictions.parquet")
        assert predictions.columns.tolist() == ["transcript_id", "gene_id", "Brain", "Liver", "Testis"]


def test_runs_of_any_folder_and_test_scores_of_those_that_were_evaluated(done: Path, tmp_path: Path) -> None:
    names = read_runs(done)["run"].tolist()
    alone = read_runs(done / names[0])
    assert alone["run"].tolist() == ["."] and "test_r2" not in alone
    scored = evaluate(done / names[0], resamples=100)
    frame = read_runs(done).set_index("run")
    assert frame.loc[names[0], "test_r2"] == scored.models[0].overall.r2
    assert frame.loc[names[1:], "test_r2"].isna().all()
    shutil.copytree(done / "runs", tmp_path / "deep")
    (tmp_path / "config.json").write_text('{"of": "another tool"}')
    folder = read_runs(tmp_path)
    assert sorted(folder["run"]) == sorted(f"deep/{Path(name).name}" for name in names) and "arm" not in folder


def test_the_table_of_a_sweep_has_a_row_an_arm(done: Path) -> None:
    table = json.loads((done / "table.json").read_text())
    frame = read_table(done).set_index("name")
    assert frame.index.tolist() == [arm["name"] for arm in table["arms"]]
    assert (frame["kind"] == "baseline").sum() >= 3 and frame.loc["rna", "settings.modalities"] == "rna"
    rna = next(arm for arm in table["arms"] if arm["name"] == "rna")
    assert frame.loc["rna", "r2_estimate"] == rna["r2"]["estimate"] and frame.loc["rna", "r2_low"] == rna["r2"]["low"]
    assert frame.loc["rna", "difference_r2_p_holm"] == rna["difference"]["r2"]["p_holm"]
    assert np.isnan(frame.loc["dna,rna", "difference_r2_p_holm"])
    assert frame.loc["rna", "validation_loss"] == rna["validation"]["loss"]
    assert read_table(done / "table.json").equals(read_table(done))


def test_what_is_missing_or_damaged_is_one_line(done: Path, tmp_path: Path) -> None:
    for call in (read_runs, read_table):
        with pytest.raises(InvalidInputError, match="There is no"):
            call(tmp_path / "nothing")
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="is no table of a sweep"):
        read_table(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes((done / read_runs(done)["run"][0] / "config.json").read_bytes())
    assert read_runs(run)[["finished", "epochs_done"]].to_numpy().tolist() == [[False, 0]]
    for name, text in (("history.jsonl", '{"epoch": 1}\n'), ("test.json", '{"models": []}'), ("test.json", "[")):
        (run / name).write_text(text)
        with pytest.raises(EmbedCacheError, match=name):
            read_runs(run)
        (run / name).unlink()
