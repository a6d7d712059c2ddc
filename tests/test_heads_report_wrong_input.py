"""Reports of damaged, strange and hostile directories: one line, or a page that shows names and obeys none."""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_reports import Page, make_arm, make_dataset, make_run, make_sweep, make_table, score_run, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache.dataset import Dataset
from embedcache.errors import EmbedCacheError, InvalidInputError
from heads.report.collect import collect
from heads.report.content import Arm, Curve, Estimate, Report
from heads.report.figures import tissue_bars
from heads.report.page import html_text
from heads.report.svg import Axis, shorten, ticks, width_of
from heads.report.words import as_html, as_latex, as_markdown
from heads.report.write import render, write_report

FORMS = ("html", "markdown", "csv", "latex")
HOSTILE = (
    '"><script>alert(1)</script>', "'><img src=x onerror=alert(1)>", "</style></svg></pre><b>", "&lt;&amp;", "a|b",
    "`x`",
    "[a](javascript:alert(1))", r"\input{secret} $\write18{ls}$ 50% a_b #1 ~^{}", "line\nend\r\x00\x1b[31m", "\ud800",
    "\u202egnp.exe", "=1+1", "-->", "*bold* _it_", "\u6771\u4eac " * 30,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def files(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A scored run and a finished sweep."""
    path = tmp_path_factory.mktemp("reports")
    run = make_run(path / "run", dataset)
    score_run(run, dataset)
    return {"run": run, "sweep": make_sweep(path / "sweep", dataset)}


def hostile_report(name: str) -> Report:
    arms = (
        Arm(name=name, kind="arm", settings={name: name}, curves=(Curve(name, (1.0,), (1.0,)),)),
        Arm(name="b", kind="baseline", settings={name: [name, {name: name}]}),
    )
    return Report(
        kind="sweep", name=name, labels=(name,), tissues=(name,), arms=arms, scored=name, unit=name, reference=name,
        difference=name, facts=((name, name),), notes=(name,), provenance={name: {name: [name]}}, expression_unit=name,
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_and_never_obeyed(name: str, tmp_path: Path) -> None:
    tissues = [f"{name} {k}" for k in range(3)]
    arms = [make_arm(name, 3, 0.3), make_arm(f"{name}2", 3, 0.4, difference=0.1)]
    write_json(tmp_path / "sweep.json", {"format": "isoheads-sweep", "version": 1, "name": name, "arms": []})
    write_json(tmp_path / "table.json", make_table(arms, tissues, name=name, reference=name, labels=[name]))
    for found in (collect(tmp_path), hostile_report(name)):
        texts = {form: render(found, form) for form in FORMS}  # type: ignore[arg-type]
        for text in texts.values():
            text.encode()
            assert all(one.isprintable() or one == "\n" for one in text)
        page = Page(texts["html"])
        assert not {"script", "img", "b"} & {tag for tag, _ in page.elements}
        assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
        rows = [row for row in texts["markdown"].splitlines() if row.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 2
        assert "<" not in re.sub(r"^<!-- isoheads report -->|<0\.001", "", texts["markdown"])
        body = texts["latex"]
        opened, closed = (body.count(one) - body.count(f"\\{one}") for one in "{}")
        assert not re.search(r"\\(input|write)", body) and opened == closed


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_escaped(text: str) -> None:
    assert not set(as_html(text)) & set("<>\"'\n\x00") and Page(f"<p>{as_html(text)}</p>").elements == [("p", {})]
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*_\[\]]", as_markdown(text)) and "\n" not in as_markdown(text)
    known = re.sub(r"\\text[a-z]+\{\}|\{\\char\d\d\}|\\[{}$&#%_]|\{\[\}|\{\]\}|-\{\}-", "", as_latex(text))
    assert not set(known) & set('\\{}$&#%_^~[]"\n')
    assert width_of(shorten(text, 60)) <= 60.01


def test_a_score_below_zero_fits_beside_its_bar() -> None:
    arm = Arm(name="mean", kind="baseline", r2_by_tissue=(Estimate(estimate=-0.014, low=-0.03, high=-0.002),))
    picture, text = tissue_bars(arm, ["Liver"], "r2", [arm]), "\u22120.014 [\u22120.030, \u22120.002]"
    found = re.search(rf'viewBox="0 0 (\d+).*x="(\d+)"[^>]*>{re.escape(text)}<', picture, re.DOTALL)
    assert found and int(found[2]) + width_of(text, 11) <= int(found[1])


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_any_axis_has_few_round_ticks_within_it(a: float, b: float) -> None:
    axis = Axis.around([a, b, None], 0, 100, least=-1e12, most=1e12)
    found = ticks(axis.low, axis.high)
    assert 1 <= len(found) <= 12
    assert all(0 <= axis(value) <= 100 for value in (a, b, *(at for at, _ in found)))


# --- damaged files ---


def test_what_is_neither_a_run_nor_a_sweep_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a\0b"):
        with pytest.raises(InvalidInputError, match=r"neither config\.json nor sweep\.json"):
            collect(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("run/config.json", '{"format": "isoheads-run", "version": 2}', "format version 2, this program reads 1"),
        ("run/config.json", '{"format": "other", "version": 1}', "its format is not 'isoheads-run'"),
        ("run/config.json", "{", "cannot be read"),
        ("run/config.json", "[" * 100_000, r"cannot be read|nested"),
        ("run/config.json", "[]", "its format is not"),
        ("run/config.json", b"\xff\xfe", "cannot be read"),
        ("run/test.json", '{"format": "isoheads-test", "version": true}', "format version True"),
        ("run/test.json", '{"format": "isoheads-test", "version": 1, "tissues": ["x"]}', "the 4 tissues of the run"),
        ("run/history.jsonl", '{"epoch": 1}\n[]\n', "line 2, is no plain JSON object"),
        ("run/history.jsonl", '{"validation_loss": "low"}\n', 'validation_loss is "low", expected a number'),
        ("run/test_predictions.parquet", b"PAR1", "cannot be read"),
        ("sweep/sweep.json", '{"format": "isoheads-sweep", "version": 1, "arms": [{"name": 3}]}',
         "name is 3, expected text"),
        ("sweep/sweep.json", '{"format": "isoheads-sweep", "version": 1, "arms": [{"name": "a", "runs": '
         '[{"directory": "../run"}]}]}', "expected a path below the sweep"),
        ("sweep/table.json", '{"format": "isoheads-sweep-table", "version": 9}', "format version 9"),
        ("sweep/table.json", "null", "its format is not"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(
    files: dict[str, Path], tmp_path: Path, name: str, text: str | bytes, words: str
) -> None:
    kind, _, file = name.partition("/")
    path = Path(shutil.copytree(files[kind], tmp_path / kind))
    (path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInputError, match=words) as error:
        write_report(path)
    assert "\n" not in str(error.value) and str(path / file) in str(error.value)
    assert not (path / "report.html").exists()


def test_predictions_of_other_transcripts_or_scores_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(files["run"], tmp_path / "run"))
    table = pd.read_parquet(run / "test_predictions.parquet")
    for change, words in (
        ({"Tissue 1": table["Tissue 1"] + 0.1}, "is not what test.json beside it scored"),
        ({"Tissue 1": float("inf")}, "expected finite numbers"),
        ({"transcript_id": "T95"}, "each once"),
        ({"transcript_id": [f"X{i}" for i in range(len(table))]}, "predicts 'X0', which is not in the dataset"),
    ):  # fmt: skip
        table.assign(**change).to_parquet(run / "test_predictions.parquet")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=words):
            collect(run)
    table.drop(columns="Tissue 1").to_parquet(run / "test_predictions.parquet")
    with pytest.raises(InvalidInputError, match="no column"):
        collect(run)


RUBBISH: tuple[Any, ...] = (
    None, True, -1, 1e308, 10**400, float("nan"), float("-inf"), "", "x", [], [[]], [None], {}, {"estimate": []},
    {"a": {}},
)  # fmt: skip


def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every entry of a JSON value, lists by their first two."""
    if path:
        yield path
    items = found.items() if isinstance(found, dict) else enumerate(found[:2]) if isinstance(found, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(found: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(found)
    part = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", ["run/config.json", "run/test.json", "sweep/sweep.json", "sweep/table.json"])
def test_rubbish_in_any_entry_is_a_page_or_one_line(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    kind, _, file = name.partition("/")
    path = Path(shutil.copytree(files[kind], tmp_path / kind))
    for predictions in path.glob("**/test_predictions.parquet"):
        predictions.unlink()  # what they hold is tried elsewhere; without them this is fast
    whole = json.loads((path / file).read_text())
    every = [(place, value) for place in places(whole) for value in RUBBISH]
    refused = shown = 0
    for place, value in every[:: max(1, len(every) // 150)]:
        (path / file).write_text(json.dumps(replaced(whole, place, value)))
        try:
            report = collect(path)
        except EmbedCacheError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        for form in FORMS:
            text = render(report, form)  # type: ignore[arg-type]
            assert form != "html" or Page(text)
        shown += 1
    assert refused > 10 and shown > 10


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.none() | st.floats(-1e300, 1e300)] * 2), min_size=1, max_size=9))
def test_any_curve_is_drawn(losses: list[tuple[float | None, float | None]]) -> None:
    train, validation = zip(*losses, strict=True)
    arm = Arm(name="a", kind="arm", curves=(Curve("seed 0", train, validation),))
    text = html_text(Report(kind="run", name="r", labels=(), tissues=(), arms=(arm,)))
    (drawing,) = re.findall(r"<svg[^>]*Learning curves of.*?</svg>", text, re.DOTALL)
    assert "nan" not in drawing.replace("finite", "") and "inf" not in drawing
    assert Page(text)
