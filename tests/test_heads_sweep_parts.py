"""Pieces of a sweep on their own: who trains together, what is tuned, one scale for all folds, and its directory."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.dataset import Dataset
from embedcache.errors import InvalidSettingError, UnknownNameError
from heads.config import SplitConfig
from heads.scaling import TissueScaler
from heads.settings import RunSettings
from heads.sweep.grid import Grid, read_grid
from heads.sweep.grid_checks import MOST_RUNS, check_name, check_size
from heads.sweep.plan import NamedRun, cohorts_of
from heads.sweep.scale import Scale
from heads.sweep.sweep import SweepJob, planned_runs
from heads.sweep.tuning import Trials, read_tuning

# --- cohorts ---


def named(**flat: Any) -> NamedRun:
    return NamedRun(name=str(flat), settings=RunSettings.from_flat(flat))


RUNS = st.lists(
    st.fixed_dictionaries(
        {"seed": st.integers(0, 3)},
        optional={
            "batch_size": st.sampled_from([8, 16]), "data_seed": st.sampled_from([0, 1]),
            "aggregator": st.sampled_from(["concat", "cross-attention"]), "bucketed": st.booleans(),
            "modalities": st.sampled_from(["rna", "dna,rna"]), "encoder.rna": st.sampled_from(["a", "b", "a+b"]),
        },
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(RUNS, st.integers(1, 9), st.integers(1, 6))
def test_cohorts_hold_each_run_once_and_draw_the_same_batches(
    runs: list[dict[str, Any]], workers: int, most: int
) -> None:
    given_runs = [named(**flat) for flat in runs]
    cohorts = cohorts_of(given_runs, workers=workers, most=most)
    digests = [run.settings.digest() for one in cohorts for run in one.runs]
    assert Counter(digests) == Counter({run.settings.digest() for run in given_runs})
    assert len(cohorts) >= min(workers, len(digests))
    for one in cohorts:
        assert 1 <= len(one.runs) <= most
        alike = {(r.settings.training.batch_size, r.settings.training.data_seed, r.settings.training.device,
                  r.settings.split, r.settings.training.bucketed) for r in one.runs}  # fmt: skip
        assert len(alike) == 1
        if one.runs[0].settings.training.bucketed:
            assert len({(r.settings.model.modalities, *r.settings.encoders.items()) for r in one.runs}) == 1
    assert len({one.name for one in cohorts}) == len(cohorts)
    again = cohorts_of(given_runs, workers=workers, most=most)
    assert [one.name for one in again] == [one.name for one in cohorts]


def test_runs_that_read_the_same_of_tokens_train_together_whatever_they_read() -> None:
    together = [named(modalities=m, seed=s, hidden=h) for m in ("rna", "dna") for s in (0, 1) for h in (8, 16)]
    assert [len(one.runs) for one in cohorts_of(together)] == [8]
    apart = [
        named(aggregator="concat", seed=0), named(aggregator="concat", pooling="max-mean"), named(batch_size=8),
        named(data_seed=1), named(resident="never"), named(device="cpu"), named(split="gene"),
        named(**{"aggregator": "concat", "pooling": "max-mean", "encoder.rna": "a+b"}), named(),
    ]  # fmt: skip
    reads = [(one.reads, len(one.runs)) for one in cohorts_of(apart)]
    # the largest value of a mix of layers is known of tokens only
    assert reads == [("means", 1), ("max-means", 1), *[("tokens", 1)] * 5, ("tokens", 2)]
    assert len(cohorts_of([named(aggregator="concat", seed=0), named(aggregator="gated-sum")])) == 1


# --- tuning ---


def test_trials_are_every_combination_and_the_first_of_the_best_is_chosen() -> None:
    tuning = read_tuning({"learning_rate": [0.1, 0.01], "hidden": [4, 8, 16]})
    assert (tuning.method, tuning.trials) == ("grid", 6)
    trials = Trials(tuning)
    asked = trials.ask()
    assert [(one["learning_rate"], one["hidden"]) for one in asked] == [
        (0.1, 4), (0.1, 8), (0.1, 16), (0.01, 4), (0.01, 8), (0.01, 16),
    ]  # fmt: skip
    trials.tell(asked, [3.0, float("inf"), 2.0, 2.0, 5.0, 4.0])
    assert trials.best() == {"learning_rate": 0.1, "hidden": 16}
    assert trials.ask() == []
    assert json.loads(json.dumps(tuning.to_json()))["choices"] == {"learning_rate": [0.1, 0.01], "hidden": [4, 8, 16]}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "tune names no setting"),
        ({"method": "grid"}, "tune names no setting"),
        ({"method": "luck", "hidden": [1]}, "Unknown tuning method 'luck'"),
        ({"hiden": [1]}, "Did you mean 'hidden'"),
        ({"hidden": []}, "tune: hidden is"),
        ({"hidden": 3}, "tune: hidden is 3"),
        *(({name: [1]}, f"{name} cannot be tuned") for name in (
            "seed", "data_seed", "device", "batch_size", "fold", "folds", "inner_fold", "split_seed", "split",
        )),
        ({"hidden": [4], "trials": 3}, "trials is for method"),
        ({"method": "optuna", "hidden": [4]}, "Say how many trials"),
        ({"method": "optuna", "hidden": [4], "trials": 0}, "trials is 0"),
        ({"method": "optuna", "hidden": [4], "trials": True}, "trials is True"),
        ({"method": "optuna", "dropout": {"low": 0.1}, "trials": 3}, "Give a list of values"),
        ({"method": "optuna", "dropout": {"low": 0.1, "high": 0.2, "step": 1}, "trials": 3}, "Give a list of values"),
        ({"method": "optuna", "dropout": {"low": 0.2, "high": 0.2}, "trials": 3}, "Give low below high"),
        ({"method": "optuna", "dropout": {"low": 0, "high": 0.2, "log": True}, "trials": 3}, "above 0 with log"),
        ({"method": "optuna", "dropout": {"low": 0.1, "high": 0.2, "log": 1}, "trials": 3}, "Give low below high"),
        ({"method": "optuna", "dropout": {"low": False, "high": 0.2}, "trials": 3}, "Give low below high"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_tuned_is_said(table: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidSettingError, UnknownNameError), match=words):
        read_tuning(table)


# --- grids ---


def grid_of(tmp_path: Path, text: str) -> Grid:
    (tmp_path / "grid.toml").write_text(text)
    return read_grid(tmp_path / "grid.toml")


def test_arms_are_every_combination_of_lists_with_every_written_arm(tmp_path: Path) -> None:
    text = "seeds = 2\nfolds = 3\n[base]\nhidden = 8\nencoder.rna = 'x'\n[grid]\nlearning_rate = [0.1, 0.2]\n"
    text += (
        "aggregator = ['concat', 'gated-sum']\n[[arms]]\nname = 'wide'\nhidden = 64\n[[arms]]\nmodalities = ['rna']\n"
    )
    grid = grid_of(tmp_path, text)
    assert [arm.name for arm in grid.arms] == [
        f"{first}, learning_rate={rate}, {aggregator}"
        for first in ("wide", "rna") for rate in (0.1, 0.2) for aggregator in ("concat", "gated-sum")
    ]  # fmt: skip
    assert [arm.flat["hidden"] for arm in grid.arms] == [64] * 4 + [8] * 4
    assert grid.arms[1].differs == {"hidden": 64, "learning_rate": 0.1, "aggregator": "gated-sum"}
    assert grid.fold_numbers == (0, 1, 2)
    made = grid.arms[4].settings(7, 2, 3)
    assert (made.training.seed, made.split, made.encoders) == (
        7,
        SplitConfig(unit="gene", folds=3, fold=2),
        {"rna": "x"},
    )
    job = SweepJob(grid=grid, dataset=Path("d"), cache="c", output=tmp_path, device="cpu")
    runs = planned_runs(job)
    assert len(runs) == 8 * 2 * 3
    assert runs[0].name == "wide, learning_rate=0.1, concat, seed 0, fold 0"
    assert {run.settings.training.device for run in runs} == {"cpu"}


def test_trials_of_a_listed_grid_are_planned_too(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, "seeds = [4, 9]\n[grid]\nhidden = [4, 8]\n[tune]\nlearning_rate = [0.1, 0.2, 0.3]\n")
    runs = planned_runs(SweepJob(grid=grid, dataset=Path("d"), cache="c", output=tmp_path))
    assert len(runs) == 2 * 2 + 2 * 3
    trials = [run.settings.training for run in runs[4:]]
    assert [(one.seed, one.learning_rate) for one in trials] == [(4, 0.1), (4, 0.2), (4, 0.3)] * 2


def test_what_tuning_chose_goes_before_the_base(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, "[base]\nlearning_rate = 0.5\nhidden = 8\n[tune]\nlearning_rate = [0.1, 0.2]\n")
    runs = planned_runs(SweepJob(grid=grid, dataset=Path("d"), cache="c", output=tmp_path))
    assert [run.settings.training.learning_rate for run in runs] == [0.1, 0.1, 0.2]
    assert {run.settings.model.hidden for run in runs} == {8}


def test_the_number_of_runs_is_counted_before_they_are_made() -> None:
    check_size([[1] * 10, [1] * 10], 10, 50, 2, 0)
    with pytest.raises(InvalidSettingError, match=f"has 102,000 runs, at most {MOST_RUNS:,}"):
        check_size([[1] * 10, [1] * 10], 10, 50, 2, 1)


@pytest.mark.parametrize("name", ["été 1", "a/b", "nt-v2, rna"])
def test_names_that_can_be_printed_are_taken(name: str) -> None:
    assert check_name("name", name) == name


# --- one scale ---


def test_folds_are_put_on_one_scale_in_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((9, 2)) * [1, 5] + [3, -2]
    targets = pd.DataFrame(values, columns=["a", "b"])
    dataset = Dataset(
        path=Path("m"), info={"tissues": ["a", "b"]}, samples=pd.DataFrame(index=range(9)), targets=targets
    )
    rows_of: dict[int | None, np.ndarray] = {0: np.array([7, 2]), 1: np.array([0, 5, 8])}
    scalers = {fold: TissueScaler.fit(np.delete(values, rows, axis=0), ["a", "b"]) for fold, rows in rows_of.items()}
    scale = Scale(dataset, rows_of, scalers, SplitConfig(unit="gene", folds=2))
    assert scale.rows.tolist() == [0, 2, 5, 7, 8]
    perfect = {fold: scalers[fold].apply(values[rows]) for fold, rows in rows_of.items()}
    np.testing.assert_allclose(scale.together(perfect), scale.targets, atol=1e-12)
    np.testing.assert_allclose(scale.targets.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scale.targets.std(axis=0), 1, atol=1e-12)
    alone = Scale(dataset, {None: rows_of[0]}, {None: scalers[0]}, SplitConfig())
    assert alone.scaler is scalers[0], "one division of the rows keeps the scale of its training rows"
