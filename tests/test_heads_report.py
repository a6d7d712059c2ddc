"""The page and the tables of a report, from run and sweep directories."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_reports import Page, make_arm, make_dataset, make_run, make_sweep, make_table, score_run, write_json
from scipy import stats
from typer.testing import CliRunner

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError, InvalidSettingError
from heads.report.collect import collect
from heads.report.commands import report as report_command
from heads.report.measured import count_squares
from heads.report.write import render, write_report


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def scored_run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("runs") / "run", dataset)
    score_run(run, dataset)
    return run


@pytest.fixture(scope="module")
def finished_sweep(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("sweeps") / "sweep", dataset)


@pytest.fixture
def run(scored_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored_run, tmp_path / "run"))


@pytest.fixture
def sweep(finished_sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_sweep, tmp_path / "sweep"))


def page_of(path: Path) -> Page:
    return Page(render(collect(path)))


# --- what the page shows ---


def test_the_page_of_a_run_shows_scores_intervals_labels_and_the_one_seed(run: Path) -> None:
    page = page_of(run)
    for words in (
        "0.410 [0.380, 0.440]", "simulated; small encoder: rna mini-rna", "ONE seed", "30 transcripts, 10 genes",
        "200 resamples of genes; variation between trainings is not included", "ridge on k-mers",
        "test transcripts without protein", "log1p_tpm", "R2: this run minus the baseline", "kept epoch 4",
    ):  # fmt: skip
        assert words in page.words, words
    assert page.words.count("simulated; small encoder") > 5  # at the top, and beside every result
    lead = [text for tag, found in page.elements if (text := found.get("aria-label")) and "minus the baseline" in text]
    assert "ridge on k-mers \u22120.040" in lead[0] or "ridge on k-mers -0.040 [-0.070, -0.010]" in lead[0]


def test_the_page_of_a_sweep_lists_arms_in_order_and_baselines_apart(sweep: Path) -> None:
    page = page_of(sweep)
    table = page.words[page.words.index("Results") :]
    places = [table.index(name) for name in ("rna (reference)", "dna+rna", "Baselines", "ridge on k-mers")]
    assert places == sorted(places)
    assert "+0.050 [+0.020, +0.080]" in page.words and "p 0.012 (Holm 0.024)" in page.words
    assert "2,000 resamples of genes x seeds, crossed" in page.words and "ONE seed" not in page.words
    drawn = [found["aria-label"] or "" for tag, found in page.elements if tag == "svg"]
    for words, times in (("Predicted against measured", 3), ("Learning curves", 2), ("by tissue, 95%", 3)):
        assert sum(words in text for text in drawn) == times, words
    assert "Settings in which the arms differ" in page.words and "dna, rna" in page.words


def test_nothing_is_loaded_and_nothing_runs(sweep: Path) -> None:
    text = render(collect(sweep))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & {tag for tag, _ in page.elements}
    links = [found["href"] for _, found in page.elements if "href" in found]
    assert links and all(link and link.startswith("#") for link in links)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert "default-src 'none'" in text


def test_every_picture_has_words_and_every_anchor_a_target(sweep: Path) -> None:
    page = page_of(sweep)
    pictures = [found for tag, found in page.elements if tag == "svg"]
    assert pictures and all(found["role"] == "img" and found["aria-label"] for found in pictures)
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= {found["href"] for tag, found in page.elements if tag == "a"}


@pytest.mark.parametrize("form", ["html", "markdown", "csv", "latex"])
def test_equal_directories_give_equal_bytes_wherever_they_lie(sweep: Path, form: str, tmp_path: Path) -> None:
    first = write_report(sweep, tmp_path / "a", form=form).output.read_bytes()  # type: ignore[arg-type]
    moved = Path(shutil.move(sweep, tmp_path / "elsewhere"))
    assert write_report(moved, tmp_path / "b", form=form).output.read_bytes() == first  # type: ignore[arg-type]
    assert b"simulated" in first  # labels stand beside the results in every format


def test_the_csv_has_every_number_in_full(sweep: Path, tmp_path: Path) -> None:
    with write_report(sweep, tmp_path / "table.csv").output.open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    arms = {arm["name"]: arm for arm in json.loads((sweep / "table.json").read_text())["arms"]}
    for name, arm in arms.items():
        for part in ("estimate", "low", "high"):
            assert float(rows[name][f"r2_{part}"]) == arm["r2"][part]
        assert rows[name]["labels"] == "simulated; small encoder: rna mini-rna"
        if arm["difference"]:
            assert float(rows[name]["spearman_difference_p_holm"]) == arm["difference"]["spearman"]["p_holm"]
    assert rows["rna"]["r2_difference_estimate"] == "" and rows["rna"]["is_reference"] == "1"


def test_markdown_and_latex_have_as_many_cells_in_every_row(sweep: Path) -> None:
    found = collect(sweep)
    tables = [[]]
    for line in render(found, "markdown").splitlines():
        tables[-1].append(line) if line.startswith("|") else tables.append([])
    counts = [{len(re.findall(r"(?<!\\)\|", row)) for row in table} for table in tables if table]
    assert len(counts) == 2 and all(len(one) == 1 for one in counts)
    rows = [line for line in render(found, "latex").splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1 and len(rows) == 4


# --- missing parts ---


def test_a_run_that_was_not_scored_says_so(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset)
    page = page_of(run)
    assert "not scored yet" in page.words and "Nothing was scored yet." in page.words
    assert "kept epoch 4" in page.words  # what is known is shown
    for name in ("history.jsonl", "model.safetensors", "test_predictions.parquet"):
        (run / name).unlink()
    page = page_of(run)
    assert "No epoch is finished yet." in page.words and "Training is not finished." in page.words
    for form in ("markdown", "csv", "latex"):
        assert render(collect(run), form)  # type: ignore[arg-type]


def test_a_sweep_that_has_only_begun_says_so(dataset: Dataset, tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep", dataset, table=False)
    shutil.rmtree(sweep / "runs" / "1-1")
    page = page_of(sweep)
    assert "1 of 4 runs are not finished" in page.words and "dna+rna (not scored yet)" in page.words
    shutil.rmtree(sweep / "runs")
    assert "4 of 4 runs are not finished" in page_of(sweep).words


def test_scores_that_are_null_are_shown_as_unknown(sweep: Path) -> None:
    table = json.loads((sweep / "table.json").read_text())
    arm = make_arm("dna+rna", len(table["tissues"]), None)
    arm |= dict.fromkeys(("within_gene", "calibration", "difference", "settings", "r2_pooled", "n_seeds"))
    table["arms"][1] = arm
    write_json(sweep / "table.json", table)
    page = page_of(sweep)
    assert "not defined" in page.words
    for form in ("markdown", "csv", "latex"):
        assert "nan" not in render(collect(sweep), form).lower()  # type: ignore[arg-type]


def test_one_seed_among_many_is_named(sweep: Path) -> None:
    table = json.loads((sweep / "table.json").read_text())
    table["arms"][1]["n_seeds"] = 1
    write_json(sweep / "table.json", table)
    assert any("ONE seed only" in text and "dna+rna" in text for text in collect(sweep).warnings)


def test_no_baselines_is_said(sweep: Path) -> None:
    table = json.loads((sweep / "table.json").read_text())
    table["arms"].pop()
    write_json(sweep / "table.json", table)
    assert "No baselines" in page_of(sweep).words


# --- predicted against measured ---


def test_squares_count_every_cell_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(5000), rng.standard_normal(5000)
    density = count_squares(x, y, "test")
    assert int(density.counts.sum()) + density.n_outside == density.n_cells == 5000
    assert 0 < density.n_outside < 50
    assert count_squares(np.zeros(3), np.zeros(3), "test").counts.sum() == 3


def test_rows_are_measured_and_columns_are_predicted() -> None:
    x = np.concatenate([np.full(1000, -1.0), np.full(10, 0.7), np.full(1000, 1.0)])
    y = np.concatenate([np.full(1000, -1.0), np.full(10, -0.3), np.full(1000, 1.0)])
    density = count_squares(x, y, "test", across=4)
    assert density.counts.tolist() == [[1000, 0, 0, 0], [0, 0, 0, 10], [0, 0, 0, 0], [0, 0, 0, 1000]]


def test_predictions_are_compared_on_the_scale_of_the_run(run: Path, dataset: Dataset) -> None:
    arm = collect(run).arms[0]
    assert dataset.targets is not None and arm.density is not None and arm.calibration is not None
    test = dataset.samples["split"] == "test"
    scaler = json.loads((run / "config.json").read_text())["scaler"]
    z = ((dataset.targets[test] - scaler["mean"]) / scaler["sd"]).to_numpy()
    predicted = pd.read_parquet(run / "test_predictions.parquet")[dataset.tissues].to_numpy()
    known = ~np.isnan(z)
    assert arm.density.n_cells == known.sum()
    assert arm.calibration.slope == pytest.approx(stats.linregress(predicted[known], z[known]).slope)
    assert all(
        score.low is not None and score.high is not None and score.low < score.high for score in arm.r2_by_tissue
    )


def test_a_dataset_that_was_moved_is_a_note_or_an_option(run: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["dataset"]["path"] = str(tmp_path / "gone")
    write_json(run / "config.json", config)
    assert any("no more at" in note for note in collect(run).notes)
    assert collect(run).arms[0].density is None
    assert collect(run, dataset.path).arms[0].density is not None
    other = make_dataset(tmp_path / "other", n_rows=96)
    with pytest.raises(InvalidInputError, match="is not the dataset of"):
        collect(run, other.path)


def test_the_page_stays_small_however_many_cells_there_are(dataset: Dataset, tmp_path: Path) -> None:
    large = make_dataset(tmp_path / "large", n_rows=6000, tissues=4)
    size = [write_report(make_run(tmp_path / str(i), found), tmp_path / f"{i}.html").size_bytes
            for i, found in enumerate((dataset, large))]  # fmt: skip
    assert size[1] < size[0] + 25_000 < 100_000


# --- the command ---


def test_the_command_writes_beside_the_run_and_prints_what_it_is(run: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(report_command)
    result = CliRunner().invoke(app, [str(run)])
    assert result.exit_code == 0, result.output
    assert (run / "report.html").is_file() and "ONE seed" in result.output and "simulated" in result.output
    assert CliRunner().invoke(app, [str(run), "--format", "latex"]).exit_code == 0
    assert (run / "report.tex").read_text().startswith("% isoheads report")
    again = CliRunner().invoke(app, [str(run)])
    assert again.exit_code == 0  # an older report is replaced


def test_the_format_follows_the_name_of_the_output(run: Path, tmp_path: Path) -> None:
    for name, start in (("a.md", "<!-- isoheads"), ("a.csv", "name,kind"), ("a.tex", "% isoheads"), ("a.HTM", "<!DOC")):
        assert write_report(run, tmp_path / "new" / name).output.read_text().startswith(start)
    with pytest.raises(InvalidSettingError, match="tells no format"):
        write_report(run, tmp_path / "a.pdf")
    with pytest.raises(InvalidSettingError, match="no format 'pdf'"):
        write_report(run, tmp_path / "a.html", form="pdf")  # type: ignore[arg-type]


def test_files_of_others_are_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("<p>mine</p>")
    with pytest.raises(InvalidInputError, match="is no report"):
        write_report(run, tmp_path / "thesis.html")
    assert (tmp_path / "thesis.html").read_text() == "<p>mine</p>"
    with pytest.raises(InvalidInputError, match="is a directory"):
        write_report(run, tmp_path, form="html")


def test_a_report_needs_no_torch(sweep: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from heads.report.write import write_report; "
        f"write_report({str(sweep)!r}, {str(tmp_path / 'a.html')!r}); "
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_thirty_tissues_and_twenty_arms_with_long_names_fit(dataset: Dataset, tmp_path: Path) -> None:
    tissues = [f"Tissue with a rather long name, {k}" for k in range(30)]
    arms = [make_arm(f"perceiver-resampler with 64 latents and a name that never ends, arm {i}", 30, i / 40,
                     difference=i / 40 if i else None) for i in range(20)]  # fmt: skip
    write_json(tmp_path / "sweep.json", {"format": "isoheads-sweep", "version": 1, "name": "large", "arms": []})
    write_json(tmp_path / "table.json", make_table(arms, tissues, reference=arms[0]["name"]))
    page = page_of(tmp_path)
    assert sum(tag == "svg" for tag, _ in page.elements) == 2 * (2 + 2) + 20 + 20  # forests also for phones
    assert "\u2026" in page.words and arms[7]["name"] in page.words  # shortened in pictures, whole in the table
