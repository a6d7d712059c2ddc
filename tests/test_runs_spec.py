"""docs/reference/runs.md against a run, a sweep and an export that are made here."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from fake_study import FakeStudy, make_study
from spec_pages import names, read_page, run_python, section, table

from heads.checkpoint import read_tensors
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import evaluate
from heads.finetune.export import export_run
from heads.predict import predict
from heads.sweep.grid import read_grid
from heads.sweep.sweep import SweepJob, sweep
from heads.train import train

PAGE = read_page("runs.md")
SPEC = run_python("runs.md")
GRID = """
reference = "concat"
[base]
epochs = 2
hidden = 8
modalities = "rna"
[grid]
aggregator = ["concat", "gated-sum"]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=24)


@pytest.fixture(scope="module")
def run(study: FakeStudy) -> Path:
    """A run that was trained and scored."""
    path = study.dataset.parent / "run"
    model, config = ModelConfig(aggregator="concat", hidden=8), TrainConfig(epochs=2, batch_size=8, device="cpu")
    train(dataset=study.dataset, cache=study.cache, run=path, model=model, config=config)
    evaluate(path, resamples=100)
    return path


@pytest.fixture(scope="module")
def swept(study: FakeStudy) -> Path:
    path = study.dataset.parent / "grid.toml"
    path.write_text(GRID)
    job = SweepJob(
        grid=read_grid(path), dataset=study.dataset, cache=study.cache, output=path.parent / "sweep", device="cpu"
    )
    sweep(job, resamples=100)
    return path.parent / "sweep"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def columns(path: Path) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in pq.read_schema(path)]


def told(heading: str, *titles: str) -> set[str]:
    return {*names(section(PAGE, heading), *titles)}


def test_a_run_has_the_files_of_the_page(run: Path) -> None:
    optional = {"start.json", "events.out.tfevents.0.isoheads"}
    assert {path.name for path in run.iterdir()} == told("Run directory", "File", "Written") - optional


def test_config_has_the_members_of_the_page(run: Path) -> None:
    config = read(run / "config.json")
    assert {*config} == told("config.json", "Member") - {"finetune"}
    rows = {row[0]: row[1] for row in table(section(PAGE, "config.json"), "Member")}
    assert rows["`format`, `version`"] == f"`{config['format']}`, {config['version']}"
    for name, found in (("encoders", config["encoders"]["rna"]), ("dataset", config["dataset"])):
        assert {*found} <= {*re.findall(r"`(\w+)`", rows[name])} | {"rows"}, name
    assert {*config["scaler"]} <= {*re.findall(r"`(\w+)`", rows["scaler"])}


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors"])
def test_tensors_and_their_checksum_are_those_of_the_page(run: Path, tmp_path: Path, name: str) -> None:
    tensors, values = SPEC.read_checked(run / name)
    expected, ours = read_tensors(run / name)
    assert values == ours and tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[one], expected[one]) for one in tensors)
    rows = {row[0]: row[1:] for row in table(section(PAGE, "Tensors and their checksum"), "File", "Values")}
    assert {*values} == {*re.findall(r"`(\w+)`", rows[name][0])} | {"version"}
    if name.startswith("checkpoint"):
        kinds = {one.split(".")[0] for one in re.findall(r"`([\w.<>]+)`", rows[name][1])}
        assert {one.split(".")[0] for one in tensors} <= kinds
    data = bytearray((run / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        SPEC.read_checked(tmp_path / name)


def test_lines_of_the_history_have_the_members_of_the_page(run: Path) -> None:
    for line in (run / "history.jsonl").read_text().splitlines():
        assert {*json.loads(line)} == told("history.jsonl", "Member")


def test_scores_have_the_members_of_the_page(run: Path) -> None:
    found, part = read(run / "test.json"), section(PAGE, "test.json")
    whole, of_model = part.split("Of each model:")
    assert {*found} == {*names(whole, "Member")}
    assert all({*model} == {*names(of_model, "Member")} for model in found["models"])


def test_predictions_have_the_columns_of_the_page(run: Path, study: FakeStudy, tmp_path: Path) -> None:
    predict(run, study.dataset, study.cache, tmp_path / "all.parquet")
    tissues = [(name, "double") for name in read(run / "config.json")["tissues"]]
    for path, mark in (
        (run / "test_predictions.parquet", "isoheads-test-predictions"),
        (tmp_path / "all.parquet", "isoheads"),
    ):
        assert columns(path) == [("transcript_id", "string"), ("gene_id", "string"), *tissues]
        about = json.loads((pq.read_schema(path).metadata or {})[mark.encode()])
        assert f"`{mark}`" in PAGE and all(f"`{name}`" in PAGE for name in about)


def test_a_sweep_has_the_files_and_members_of_the_page(swept: Path) -> None:
    listed = {name.partition("/")[0] for name in told("Sweep directory", "File", "Written")}
    assert {path.name for path in swept.iterdir()} == listed
    plan, found = read(swept / "sweep.json"), read(swept / "table.json")
    assert {*plan} == told("sweep.json", "Member")
    assert {*plan["arms"][0]} | {*plan["arms"][0]["runs"][0]} <= {*re.findall(r"`(\w+)`", section(PAGE, "sweep.json"))}
    whole, of_arm = section(PAGE, "table.json").split("Of each arm or baseline:")
    assert {*found} == {*names(whole, "Member")}
    assert all({*arm} == {*names(of_arm, "Member")} for arm in found["arms"])
    for run in plan["arms"][0]["runs"]:
        assert (
            re.fullmatch("runs/[0-9a-f]{12}", run["directory"]) and (swept / run["directory"] / "config.json").exists()
        )


def test_an_export_has_the_files_of_the_page(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    listed = told("Exports", "File", "Format")
    assert found == {name for name in listed if not name.startswith(("encoders/", "adapters/"))}
    (row,) = [row for row in table(section(PAGE, "Exports"), "File") if row[0] == "head/config.json"]
    head = read(tmp_path / "out" / "head" / "config.json")
    assert {*re.findall(r"`(\w+)`", row[1])} == {*head} - {"format", "version"} and f"`{head['format']}`" in row[1]
