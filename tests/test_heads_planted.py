"""What was planted in a simulated study stands beside what the arms of a sweep reach."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from fake_reports import make_dataset, make_sweep

from heads.report.collect import collect
from heads.report.content import Report
from heads.report.figures import scores_forest
from heads.report.write import render
from heads.sweep.table import format_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "sweep", make_dataset(tmp_path / "dataset"))


def plant(sweep: Path, *shares: float | None) -> dict[str, object]:
    """Give the first arms these shares; without any the table stays as an older version wrote it."""
    table = {"diverged": {}, **json.loads((sweep / "table.json").read_text())}
    for arm, share in zip(table["arms"], shares, strict=False):
        arm["planted_r2"] = share
    (sweep / "table.json").write_text(json.dumps(table))
    return table


def bars(report: Report, metric: str) -> list[float]:
    """Where the marks of planted shares stand on the axis."""
    return [float(x) for x in re.findall(r'class="planted" d="M([\d.]+) ', scores_forest(report, metric))]


def test_the_table_has_a_column_of_planted_shares_only_where_some_are_known(sweep: Path) -> None:
    assert "planted" not in format_sweep(plant(sweep))
    lines = format_sweep(plant(sweep, 0.25, None)).splitlines()
    (header,) = [line for line in lines if "validation R2" in line and "parameters" in line]
    first, second = lines[lines.index(header) + 1 :][:2]
    at = header.index("planted R2") + len("planted R2")
    assert first[:at].endswith(" 0.250") and second[at - 10 : at].strip() == ""
    assert any(line.startswith("planted R2: what the simulated study") for line in lines)


@pytest.mark.parametrize("form", ["html", "markdown", "csv", "latex"])
def test_every_form_of_a_report_names_the_planted_share(sweep: Path, form: str) -> None:
    plant(sweep)
    assert "lanted R2" not in render(collect(sweep), form)
    plant(sweep, 0.25, 0.7)
    text = render(collect(sweep), form)
    assert ("planted_r2" if form == "csv" else "lanted R2" if form != "latex" else "lanted $R^2$") in text
    assert "0.25" in text


def test_the_csv_gives_planted_shares_in_full(sweep: Path) -> None:
    plant(sweep, 0.123456789, None)
    first, second, *_ = csv.DictReader(io.StringIO(render(collect(sweep), "csv")))
    assert first["planted_r2"] == "0.123456789" and second["planted_r2"] == ""


def test_bars_stand_where_the_shares_are_and_only_beside_r2(sweep: Path) -> None:
    plant(sweep)
    assert bars(collect(sweep), "r2") == []
    plant(sweep, 0.2, 0.8)
    report = collect(sweep)
    low, high = bars(report, "r2")
    assert low < high and bars(report, "spearman") == []
    ticks = re.findall(r'<text x="([\d.]+)"[^>]*class="tick"[^>]*>([^<]+)</text>', scores_forest(report, "r2"))
    (x0, v0), (x1, v1) = ((float(x), float(v.replace("\u2212", "-"))) for x, v in (ticks[0], ticks[-1]))
    for x, share in ((low, 0.2), (high, 0.8)):
        assert v0 + (x - x0) / (x1 - x0) * (v1 - v0) == pytest.approx(share, abs=0.005)
