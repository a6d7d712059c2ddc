"""The scikit-learn estimator: the same training as `heads train`, on arrays and on rows of a cache."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_study import FakeStudy, fill_cache, make_study
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import CacheMismatchError, InvalidInputError, InvalidSettingError, UnknownNameError
from heads.config import ModelConfig, TrainConfig
from heads.fit import fit
from heads.inference import predict_rows
from heads.regressor import HeadRegressor
from heads.run import Run
from heads.settings import FIELDS
from heads.setup import Study, open_study
from heads.splits import rows_by_split
from heads.train import DivergedError

SMALL: dict[str, Any] = {"hidden": 16, "epochs": 8, "batch_size": 16, "device": "cpu", "learning_rate": 0.01}


@parametrize_with_checks([HeadRegressor(hidden=32, epochs=60, learning_rate=0.01, dropout=0.0, device="cpu")])
def test_scikit_learn_takes_it(estimator: HeadRegressor, check: Callable[[HeadRegressor], None]) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=30)


def on_cache(study: FakeStudy, **changes: Any) -> HeadRegressor:
    return HeadRegressor(**{"dataset": study.dataset, "cache": study.cache, **SMALL, **changes})


def arrays(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blocks of five and three columns, two targets that need both, three rows a group."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 8))
    y = np.stack([x[:, 0] + x[:, 6], x[:, 1] - x[:, 7]], axis=1) * [1, 50] + [0, 1000]
    return x, y, np.arange(n) // 3


def test_its_parameters_are_the_settings_by_name() -> None:
    names, found = set(HeadRegressor().get_params()), HeadRegressor()
    own = {"dataset", "cache", "encoders", "blocks", "verbose"}
    for config in (ModelConfig(), TrainConfig()):
        for name, value in config.to_json().items():
            if name not in ("modalities", "aggregator", "tissue_weights"):
                assert getattr(found, name) == value, name
    settings = {*ModelConfig().to_json(), *TrainConfig().to_json(), "validation_fraction", "split_seed"}
    assert names == settings | own and settings <= set(FIELDS)


def test_it_learns_what_needs_both_blocks_and_scores_as_scikit_learn() -> None:
    x, y, groups = arrays(180)
    whole = HeadRegressor(blocks={"rna": 5, "protein": 3}, **{**SMALL, "epochs": 40})
    whole.fit(x[:120], y[:120], groups=groups[:120])
    score = whole.score(x[120:], y[120:])
    assert score > 0.8
    assert score == pytest.approx(r2_score(y[120:], whole.predict(x[120:])))
    part = clone(whole).set_params(modalities=("protein",)).fit(x[:120], y[:120], groups=groups[:120])
    assert part.score(x[120:], y[120:]) < 0.6
    assert [epoch["epoch"] for epoch in whole.history_] == list(range(1, len(whole.history_) + 1))


def test_the_same_seed_gives_the_same_numbers_and_a_pickle_too() -> None:
    x, y, groups = arrays()
    first = HeadRegressor(**SMALL, dropout=0.3).fit(x, y, groups=groups)
    again = clone(first).fit(x, y, groups=groups)
    other = clone(first).set_params(seed=1).fit(x, y, groups=groups)
    assert np.array_equal(first.predict(x), again.predict(x))
    assert not np.array_equal(first.predict(x), other.predict(x))
    assert np.array_equal(pickle.loads(pickle.dumps(first)).predict(x), first.predict(x))


def test_cells_that_are_not_measured_do_not_count() -> None:
    x, y, groups = arrays()
    lost = np.random.default_rng(1).random(y.shape) < 0.3
    blanked = np.where(lost, np.nan, y)
    found = HeadRegressor(**SMALL).fit(x, blanked, groups=groups)
    assert np.isfinite(found.predict(x)).all()
    by_column = [r2_score(y[~lost[:, k], k], found.predict(x)[~lost[:, k], k]) for k in range(2)]
    assert found.score(x, blanked) == pytest.approx(np.mean(by_column))


def test_validation_rows_are_whole_groups_and_the_scaler_never_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Study] = []
    monkeypatch.setattr(
        "heads.regressor.fit", lambda runs, study, *a, **k: (seen.append(study), fit(runs, study, *a, **k))
    )
    x, y, groups = arrays()
    found = HeadRegressor(**SMALL, validation_fraction=0.3).fit(x, y, groups=groups)
    (study,) = seen
    train, validation = study.rows["train"], study.rows["validation"]
    assert not set(groups[train]) & set(groups[validation]) and len(train) + len(validation) == len(x)
    assert 0.2 < len(validation) / len(x) <= 0.3
    assert np.allclose(found.scaler_.mean, y[train].mean(axis=0)) and not np.allclose(
        found.scaler_.mean, y.mean(axis=0)
    )


def test_a_block_of_nan_is_a_modality_that_a_row_lacks() -> None:
    x, y, groups = arrays()
    found = HeadRegressor(blocks={"rna": 5, "protein": 3}, **SMALL).fit(x, y, groups=groups)
    lacking = x.copy()
    lacking[4, 5:] = np.nan
    assert np.isfinite(found.predict(lacking)).all()
    assert np.array_equal(found.predict(lacking[5:]), found.predict(x[5:]))
    lacking[4, 5] = 0
    with pytest.raises(ValueError, match="row 4 has 2 of the 3 numbers of protein missing"):
        found.predict(lacking)


def test_search_pipelines_and_folds_by_group_work() -> None:
    x, y, groups = arrays()
    head = HeadRegressor(blocks={"rna": 5, "protein": 3}, **SMALL)
    grid = {"modalities": [("rna",), ("rna", "protein")], "hidden": [8], "epochs": [3]}
    search = GridSearchCV(head, grid, cv=GroupKFold(3)).fit(x, y, groups=groups)
    assert search.best_params_["modalities"] == ("rna", "protein")
    pipeline = make_pipeline(StandardScaler(), head)
    assert cross_val_predict(pipeline, x, y, groups=groups, cv=GroupKFold(3)).shape == y.shape
    scores = cross_val_score(head, x, y, groups=groups, cv=GroupKFold(3), params={"groups": groups})
    assert scores.shape == (3,) and np.isfinite(scores).all()


def test_on_rows_of_a_dataset_it_is_the_run_of_heads_train(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same rows on both sides weights are the same bit for bit, from tokens and from means."""
    dataset = read_dataset(study.dataset)
    given = rows_by_split(dataset)
    rows = np.sort(np.concatenate([given["train"], given["validation"]]))
    held = set(dataset.samples["gene_id"].iloc[given["validation"]])
    monkeypatch.setattr("heads.arrays.draw_validation", lambda names, *_: np.array([name in held for name in names]))
    for changes in ({"aggregator": "cross-attention", "heads": 2}, {"aggregator": "concat", "dropout": 0.2}):
        found = on_cache(study, epochs=2, **changes).fit(rows)
        config = TrainConfig(**{name: value for name, value in SMALL.items() if name != "hidden"} | {"epochs": 2})
        model = ModelConfig(hidden=16, **changes)
        alone = open_study(study.dataset, study.cache, model)
        run = Run(model, config, study=alone, device=torch.device("cpu"))
        fit([run], alone, lambda _: None, quiet=True)
        weights = found.model_.state_dict()
        assert found.scaler_ == alone.scaler and weights.keys() == run.best.keys() and found.history_ == run.history
        assert all(torch.equal(weights[name], run.best[name]) for name in weights)
        run.model.load_state_dict(run.best)
        wanted = alone.scaler.undo(predict_rows(run.model, alone.data, given["test"], config))
        assert np.array_equal(found.predict(given["test"]), wanted)


def test_rows_are_numbers_or_transcript_ids_in_any_order(study: FakeStudy) -> None:
    ids = read_dataset(study.dataset).samples["transcript_id"]
    found = on_cache(study, epochs=2).fit(np.arange(len(ids)))
    rows = np.array([7, 3, 3, 20])
    by_number = found.predict(rows)
    assert by_number.shape == (4, 3) and np.array_equal(by_number[1], by_number[2])
    for same in (ids.iloc[rows], ids.iloc[rows].tolist(), rows[:, None], rows.astype(np.uint16)):
        assert np.array_equal(found.predict(same), by_number)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).predict(rows), by_number)


def test_rows_cross_validate_with_targets_of_the_dataset_or_others(study: FakeStudy) -> None:
    dataset = read_dataset(study.dataset)
    rows, genes = np.arange(len(dataset.samples)), dataset.samples["gene_id"].to_numpy()
    head = on_cache(study, epochs=2, encoders={"rna": "tiny-rna"}, modalities=("rna", "protein"))
    own = cross_val_score(head, rows, groups=genes, cv=GroupKFold(3))
    assert dataset.targets is not None
    same = cross_val_score(head, rows, dataset.targets, groups=genes, cv=GroupKFold(3))
    assert np.isfinite(own).all() and np.array_equal(own, same)
    liver = cross_val_score(head, rows, dataset.targets["Liver"].fillna(0), groups=genes, cv=GroupKFold(3))
    assert not np.array_equal(own, liver)
    pipeline = make_pipeline(FunctionTransformer(), head)
    assert np.array_equal(cross_val_score(pipeline, rows, groups=genes, cv=GroupKFold(3)), own)


def test_rows_that_share_a_gene_are_never_cut_apart(study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Study] = []
    monkeypatch.setattr(
        "heads.regressor.fit", lambda runs, study, *a, **k: (seen.append(study), fit(runs, study, *a, **k))
    )
    dataset = read_dataset(study.dataset)
    rows = np.random.default_rng(0).permutation(len(dataset.samples))
    on_cache(study, epochs=1, validation_fraction=0.4).fit(rows)
    genes = dataset.samples["gene_id"].to_numpy()[rows]
    assert not set(genes[seen[0].rows["train"]]) & set(genes[seen[0].rows["validation"]])


def test_a_dataset_is_opened_once_and_its_means_are_taken_once(
    study: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "dataset"
    shutil.copytree(study.dataset, moved)
    calls = []
    verify = Dataset.verify
    monkeypatch.setattr(Dataset, "verify", lambda self: (calls.append(self), verify(self)))
    head = on_cache(study, dataset=moved, epochs=1)
    for _ in range(2):
        clone(head).fit(np.arange(30)).score(np.arange(30, 40))
    assert len(calls) == 1


def test_another_store_at_prediction_is_refused(study: FakeStudy, tmp_path: Path) -> None:
    found = on_cache(study, epochs=1, modalities=("rna",)).fit(np.arange(30))
    fill_cache(tmp_path / "cache", read_dataset(study.dataset), weights="seed:7")
    with pytest.raises(CacheMismatchError, match="trained on rna:tiny-rna"):
        found.set_params(cache=tmp_path / "cache").predict([0])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"blocks": {"rna": 5, "protein": 4}}, InvalidSettingError, "X has 8 columns"),
        ({"blocks": ["rna"]}, InvalidSettingError, "columns by modality"),
        ({"hidden": "8"}, InvalidSettingError, "hidden is '8'. Give a whole number"),
        ({"epochs": 2.5}, InvalidSettingError, "epochs is 2.5. Give a whole number"),
        ({"blocks": {"rna": 8, "protein": 0}}, InvalidSettingError, "columns by modality"),
        ({"blocks": {"rna": 8}, "modalities": ("dna",)}, InvalidSettingError, "modalities dna"),
        ({"blocks": {"rna": 8}, "modalities": ("tRNA",)}, UnknownNameError, "modality"),
        ({"aggregator": "concatt"}, UnknownNameError, "Did you mean"),
        ({"validation_fraction": 1.5}, InvalidSettingError, "validation_fraction is 1.5"),
        ({"cache": "cache"}, InvalidSettingError, "without dataset"),
        ({"tissue_weights": (("Liver", 2.0),)}, UnknownNameError, "tissue"),
        ({"learning_rate": 1e6, "weight_decay": 1e6, "epochs": 1}, DivergedError, "learning_rate below"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_settings_are_one_line(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    x, y, groups = arrays(30)
    with pytest.raises(error, match=words):
        HeadRegressor(**{**SMALL, **changes}).fit(x * 1e3 if error is DivergedError else x, y, groups=groups)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([10_000], "rows 10000 to 10000"),
        ([-1], "rows -1 to -1"),
        (["T0.1x"], "'T0.1x' is no transcript"),
        ([0.5], "type float64"),
        ([[1, 2]], "shape (1, 2)"),
        ([], "shape (0,)"),
    ],
)
def test_wrong_rows_are_one_line(study: FakeStudy, x: list[Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        on_cache(study).fit(x)
    assert words in str(caught.value)


def test_wrong_targets_and_groups_are_one_line(study: FakeStudy) -> None:
    x, y, groups = arrays(30)
    head = HeadRegressor(**SMALL)
    with pytest.raises(ValueError, match="30 rows and groups has 5"):
        head.fit(x, y, groups=groups[:5])
    with pytest.raises(ValueError, match="30 rows and y has 5"):
        head.fit(x, y[:5])
    with pytest.raises(ValueError, match="are in 1 groups, expected at least 2"):
        head.fit(x, y, groups=np.zeros(30))
    with pytest.raises(InvalidSettingError, match="cache is None"):
        HeadRegressor(dataset=study.dataset).fit([0, 1])
    with pytest.raises(InvalidSettingError, match="blocks are both given"):
        on_cache(study, blocks={"rna": 16}).fit([0, 1])


def test_names_of_columns_weigh_targets_and_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    x, y, groups = arrays()
    frame = pd.DataFrame(y, columns=["Brain", "Liver"])
    plain = HeadRegressor(**SMALL).fit(x, frame, groups=groups)
    weighted = HeadRegressor(**SMALL, tissue_weights=(("Liver", 5.0),)).fit(x, frame, groups=groups)
    assert plain.scaler_.tissues == ("Brain", "Liver")
    assert not np.array_equal(plain.predict(x), weighted.predict(x))
    assert capsys.readouterr() == ("", "")
    HeadRegressor(**SMALL, verbose=True).fit(x, frame, groups=groups)
    assert "best epoch" in capsys.readouterr().err
