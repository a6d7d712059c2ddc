"""Tuning by Optuna: the same trials again after a kill, an equal budget for each arm, choices by validation loss."""

from pathlib import Path

import pytest
from fake_study import make_study

from heads.sweep.grid import read_grid
from heads.sweep.sweep import SweepJob, sweep
from heads.sweep.tuning import Trials, read_tuning

pytest.importorskip("optuna", reason="optuna is not installed")

TUNE = {
    "method": "optuna",
    "trials": 11,
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "hidden": {"low": 4, "high": 16},
    "pooling": ["mean", "max-mean"],
}


def run_search(rounds: int) -> list[list[dict[str, object]]]:
    trials = Trials(read_tuning(TUNE))
    asked = []
    for _ in range(rounds):
        found = trials.ask()
        asked.append(found)
        trials.tell(found, [abs(float(one["learning_rate"]) - 0.01) for one in found])
    return asked


@pytest.mark.filterwarnings("ignore")
def test_trials_are_the_same_again_and_keep_their_budget() -> None:
    first, again = run_search(3), run_search(3)
    assert first == again and [len(one) for one in first] == [8, 3, 0]
    for trial in first[0]:
        assert 1e-4 <= float(trial["learning_rate"]) <= 1e-1 and 4 <= int(str(trial["hidden"])) <= 16  # type: ignore[arg-type]
        assert trial["pooling"] in ("mean", "max-mean")


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_tuned_by_optuna(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", n_genes=24)
    (tmp_path / "g.toml").write_text(
        'seeds = 2\n[base]\naggregator = "concat"\nepochs = 1\nhidden = 4\n[grid]\nmodalities = ["rna", "dna,rna"]\n'
        '[tune]\nmethod = "optuna"\ntrials = 3\nlearning_rate = {low = 1e-4, high = 1e-2, log = true}\n'
    )
    job = SweepJob(grid=read_grid(tmp_path / "g.toml"), dataset=study.dataset, cache=study.cache,
                   output=tmp_path / "sweep", device="cpu")  # fmt: skip
    first = sweep(job, resamples=100)
    assert len(list(job.output.glob("runs/*"))) == 2 * (3 + 1)  # the best trial is the run of the first seed
    (job.output / "table.json").unlink()
    assert sweep(job, resamples=100).table == first.table
