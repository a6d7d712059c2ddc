"""The scores of a report as a picture of its own."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fake_reports import make_dataset, make_run, make_sweep

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError
from heads.report.collect import collect
from heads.report.write import render, write_report

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("study") / "dataset")


@pytest.fixture
def sweep(dataset: Dataset, tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "sweep", dataset)


def test_a_picture_is_whole_and_names_every_arm_with_its_numbers_and_labels(sweep: Path) -> None:
    report = collect(sweep)
    root = ElementTree.fromstring(render(report, "svg"))
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert root.tag == f"{SVG}svg" and {arm.name for arm in report.arms if arm.is_scored} <= set(texts)
    assert any(text.startswith("NOTE: ") and all(label in text for label in report.labels) for text in texts)
    for arm in report.arms:
        assert arm.r2 is None or any(f"{abs(arm.r2.estimate or 0):.3f} [" in text for text in texts)


def test_nothing_lies_outside_the_picture(sweep: Path) -> None:
    root = ElementTree.fromstring(render(collect(sweep), "svg"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width and 0 < float(text.attrib["y"]) <= height - 3, text.text


def test_a_picture_loads_nothing(sweep: Path) -> None:
    text = render(collect(sweep), "svg")
    assert "<script" not in text and "url(" not in text and "href" not in text and text.count("http") == 1


def test_the_name_of_the_output_chooses_it_and_it_is_replaced(sweep: Path, tmp_path: Path) -> None:
    first = write_report(sweep, tmp_path / "scores.svg")
    assert first.output.read_bytes() == render(collect(sweep), "svg").encode()
    assert write_report(sweep, tmp_path / "scores.svg").size_bytes == first.size_bytes
    assert write_report(sweep, form="svg").output == sweep / "report.svg"


def test_a_picture_of_something_else_is_not_replaced(sweep: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.svg"
    mine.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    with pytest.raises(InvalidInputError, match=r"mine\.svg exists and is no report"):
        write_report(sweep, mine)
    assert mine.read_text().startswith("<svg xmlns='")


def test_what_was_not_scored_is_not_drawn(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset)
    with pytest.raises(InvalidInputError, match=r"Nothing of run was scored yet.*heads evaluate"):
        write_report(run, form="svg")
    assert not (run / "report.svg").exists()


def test_the_facts_of_a_sweep_name_the_encoders_of_all_its_runs(sweep: Path) -> None:
    runs = sorted(sweep.rglob("config.json"))
    assert len(runs) > 1
    config = json.loads(runs[-1].read_text())
    config["encoders"]["dna"] = {**next(iter(config["encoders"].values())), "directory": "enformer-0123456789ab"}
    runs[-1].write_text(json.dumps(config))
    facts = dict(collect(sweep).facts)
    assert "dna enformer-0123456789ab" in facts["encoders"] and facts["encoders"].count("rna ") == 1
    assert any(name.startswith(f"measured rows of {len(runs)} runs") for name in facts)
