"""docs/reference/dataset.md against datasets that `embedcache prepare` makes."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_study import make_dataset
from spec_pages import block, names, read_page, run_python, section, table
from typer.testing import CliRunner

from embedcache.commands import app
from embedcache.dataset import Dataset, info_digest, read_dataset
from embedcache.splits import SplitRule

PAGE = read_page("dataset.md")
SPEC = run_python("dataset.md")
COMMAND = re.findall(r"^embedcache (prepare simulate .*\n.*)$", PAGE, re.MULTILINE)[0].replace("\\\n", " ")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The example of the page, made by its command."""
    path = tmp_path_factory.mktemp("example") / "study"
    done = CliRunner().invoke(app, [str(path) if word == "study" else word for word in COMMAND.split()])
    assert done.exit_code == 0, done.output
    return read_dataset(path)


@pytest.mark.parametrize("name", ["samples.parquet", "sequences.parquet"])
def test_columns_are_those_of_the_page(study: Dataset, name: str) -> None:
    schema = pq.read_schema(study.path / name)
    found = [[field.name, str(field.type), "yes" if field.nullable else "no"] for field in schema]
    assert [row[:3] for row in table(section(PAGE, name), "Column", "Type", "Null")] == found


def test_targets_have_the_columns_of_the_page(study: Dataset) -> None:
    schema = pq.read_schema(study.path / "targets.parquet")
    first, others = (row[:3] for row in table(section(PAGE, "targets.parquet"), "Column", "Type", "Null"))
    found = [[field.name, str(field.type), "yes" if field.nullable else "no"] for field in schema]
    assert found == [first, *([name, *others[1:]] for name in study.tissues)]


def test_row_groups_hold_one_modality(study: Dataset) -> None:
    file = pq.ParquetFile(study.path / "sequences.parquet").metadata
    kinds = [file.row_group(i).column(0).statistics for i in range(file.num_row_groups)]
    assert [kind.min for kind in kinds] == [kind.max for kind in kinds] == ["dna", "rna", "protein"]


def test_the_description_has_the_members_of_the_page(study: Dataset) -> None:
    found = names(section(PAGE, "dataset.json"), "Member", "Type")
    kinds = {row[0]: row[1] for row in table(section(PAGE, "dataset.json"), "Member", "Type")}
    assert found == list(study.info)
    python = {"string": str, "integer": int, "list": list, "object": dict, "string or null": str}
    assert all(type(study.info[name]) is python[kind] for name, kind in kinds.items())


def test_digests_are_those_of_the_page(study: Dataset) -> None:
    info = json.loads((study.path / "dataset.json").read_text())
    assert SPEC.dataset_digest(info) == study.digest
    assert SPEC.info_digest(info) == info["sha256"] == info_digest(info)


def test_the_truth_has_the_members_of_the_page(study: Dataset) -> None:
    assert names(section(PAGE, "Truth of a simulated study"), "Member") == list(study.info["truth"])


@pytest.mark.parametrize(
    "rule",
    [SplitRule(), SplitRule(kind="chromosomes", test_chromosomes=("chr1",)), SplitRule(kind="column")],
    ids=lambda rule: rule.kind,
)
def test_split_rules_are_those_of_the_page(rule: SplitRule) -> None:
    rows = {row[0]: re.findall("`([^`]+)`|^([a-z]+)$", row[1]) for row in table(section(PAGE, "Splits"), "`kind`")}
    assert ["kind", *("".join(name) for name in rows[rule.kind])] == list(rule.options())


def _shape(value: Any) -> Any:
    """What is told of a value whose numbers and digests may differ between machines and versions."""
    if isinstance(value, dict):
        return {name: _shape(one) for name, one in value.items()}
    return [_shape(one) for one in value] if isinstance(value, list) else type(value).__name__


def test_the_example_is_what_the_command_makes(study: Dataset) -> None:
    shown = json.loads(block(PAGE, "study/dataset.json"))
    assert _shape(shown) == _shape(study.info)
    stable = ("format", "version", "source", "options", "encoders", "labels", "counts", "left_out", "tissues")
    assert {name: shown[name] for name in stable} == {name: study.info[name] for name in stable}
    listed = re.findall(r"^    (\S+?)/? ", PAGE.split("```text")[1].split("```")[0], re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in study.path.iterdir())


def test_invariants_hold(study: Dataset) -> None:
    study.verify()
    lengths = {key: len(letters) for key, letters in study.sequences("protein")}
    coding = study.samples[study.samples["cds_start"].notna()]
    assert len(coding) and (coding["cds_end"] - coding["cds_start"] == 3 * coding["protein_key"].map(lengths)).all()
    assert (study.samples.groupby("gene_id")["split"].nunique() == 1).all()


def test_a_dataset_without_targets_has_no_table_of_them(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", n_genes=10, targets=False)
    assert not (dataset.path / "targets.parquet").exists() and dataset.info["tissues"] == []
