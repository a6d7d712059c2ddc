"""``heads attention``: three files from a run or an encoder, labelled; one line for what cannot be."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from fake_study import fill_cache, make_dataset, records_of
from typer.testing import CliRunner

from embedcache.build import build_cache
from embedcache.dataset import read_dataset
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import load_encoder
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError
from embedcache.sequences import Modality
from embedcache.store import store_path
from heads.checkpoint import CheckpointError
from heads.commands import app
from heads.config import ModelConfig, TrainConfig
from heads.interpret.attention import analysis as module
from heads.interpret.attention.analysis import analyse_encoder, analyse_run
from heads.interpret.attention.encoders import encoder_by_name
from heads.interpret.attention.findings import AttentionFindings, attention_table
from heads.interpret.attention.regions import choose_rows
from heads.interpret.attention.rows import AttentionSettings
from heads.interpret.attention.svg import attention_page
from heads.interpret.attention.text import attention_text
from heads.interpret.attention.write import check_outputs, write_attention
from heads.train import train

ALL = AttentionSettings(split="all", transcripts=0)
NUMBERS = ["mass", "uniform", "difference", "p", "p_adjusted", "effect_size"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the small random RNA encoder and a made-up protein one."""
    path = tmp_path_factory.mktemp("study")
    modalities: tuple[Modality, ...] = ("rna", "protein")
    dataset = make_dataset(path / "dataset", modalities=modalities)
    fill_cache(path / "other", dataset)
    encoder = load_encoder("tiny-random-rna", "rna")
    build_cache(records_of(dataset, "rna"), encoder, store_path(path / "cache", encoder.spec))
    fill_cache(path / "cache", make_dataset(path / "proteins", modalities=("protein",)))
    train(
        dataset=path / "dataset",
        cache=path / "cache",
        run=path / "run",
        model=ModelConfig(modalities=modalities, width=8, heads=2),
        config=TrainConfig(epochs=1, device="cpu"),
        encoders={"rna": "tiny-random-rna"},
    )
    return path / "run"


@pytest.fixture(scope="module")
def findings(run: Path) -> AttentionFindings:
    return analyse_run(run, ALL, device="cpu")


def invoke(*arguments: object) -> str:
    """What the command prints; its errors are raised."""
    result = CliRunner().invoke(app, ["attention", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_gives_a_table_a_page_and_where_they_came_from(run: Path, tmp_path: Path) -> None:
    said = invoke("--run", run, "--output", tmp_path / "new" / "attention", "--transcripts", 0, "--device", "cpu")
    table = pd.read_parquet(tmp_path / "new" / "attention.parquet")
    keys = ["modality", "reads", "weights", "against", "layer", "head", "region"]
    assert table.columns.tolist() == [*keys, *NUMBERS, "genes", "transcripts"]
    counts = table.groupby(["modality", "reads"]).size().to_dict()
    assert counts == {("rna", "rna"): 2 * 2 * 4, ("rna", "protein"): 2 * 3, ("protein", "rna"): 2 * 3}
    assert not table[keys].duplicated().any() and set(table["layer"]) == {1, 2} and set(table["head"]) == {1, 2}
    sums = table.groupby(["modality", "reads", "layer", "head"])[["mass", "uniform"]].sum()
    assert np.allclose(sums, 1, atol=1e-5)  # every transcript here has every region
    story = json.loads((tmp_path / "new" / "attention.json").read_text())
    assert story["format"] == "isoheads-attention" and story["version"] == 1
    assert story["dataset"]["digest"] == read_dataset(run.parent / "dataset").digest
    assert story["encoders"]["rna"]["weights"] == "seed:0"
    page = (tmp_path / "new" / "attention.html").read_text()
    for text in (said, page, json.dumps(story)):
        assert "simulated" in text and "random encoder: rna tiny-random-rna" in text
        assert "left out:" in text and "without a CDS" in text and "frozen" in text


def test_the_same_again_gives_the_same_bytes_and_other_files_stay(run: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        invoke("--run", run, "--output", tmp_path / "attention.html", "--split", "train", "--device", "cpu")
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    once = files()
    assert set(once) == {"attention.parquet", "attention.html", "attention.json"}
    assert files() == once
    for name in once:
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(InvalidInputError, match=rf"{name} exists and is no analysis of attention"):
            check_outputs(tmp_path / "attention")
        (tmp_path / name).write_bytes(once[name])
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InvalidInputError, match="is a directory"):
        check_outputs(tmp_path / "folder")
    (tmp_path / "there").mkdir()
    assert check_outputs(tmp_path / "there")[".html"] == tmp_path / "there" / "attention.html"


def test_an_encoder_needs_no_run(run: Path, tmp_path: Path) -> None:
    dataset = run.parent / "dataset"
    options = ("--encoder", "tiny-random-rna", "--dataset", dataset, "--split", "all", "--transcripts", "0")
    said = invoke(*options, "--output", tmp_path / "alone", "--device", "cpu")
    assert "tiny-random-rna [simulated; random encoder: rna tiny-random-rna]" in said
    alone = pd.read_parquet(tmp_path / "alone.parquet")
    invoke("--run", run, "--split", "all", "--transcripts", "0", "--output", tmp_path / "run", "--device", "cpu")
    of_run = pd.read_parquet(tmp_path / "run.parquet").query("modality == reads").reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_run)


def test_before_and_after_fine_tuning(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tuned(*_: object, **__: object) -> tuple[PackedEncoder, PackedEncoder]:
        before = encoder_by_name("tiny-random-rna", "rna", "cpu")
        after = copy.deepcopy(before)
        with torch.no_grad():
            after.model.encoder.layer[1].attention.self.query.weight.mul_(30)
        return before, after

    monkeypatch.setattr(module, "encoders_of_run", tuned)
    found = analyse_run(run, ALL, cross=False, device="cpu")
    told = [(one.weights, one.against) for one in found.analyses]
    assert told == [("frozen", "uniform"), ("tuned", "uniform"), ("tuned", "frozen")]
    frozen, after, change = (one.tests for one in found.analyses)
    assert np.allclose(change.difference, after.mass - frozen.mass, atol=1e-12)
    assert (change.difference[0] == 0).all() and np.abs(change.difference[1]).max() > 1e-3
    assert np.isnan(change.p[0]).all() and not np.isnan(change.p[1]).any()
    assert "is frozen" not in attention_text(found) and "before fine-tuning" in attention_page(found)
    assert len(attention_table(found)) == 3 * 2 * 2 * 4


def test_the_page_is_whole_and_loads_nothing(findings: AttentionFindings) -> None:
    page = attention_page(findings)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 4 + 3 + 3
    for picture in pictures:
        ElementTree.fromstring(picture)
    cells = [re.findall(r'<rect class="(?:h\d|unknown)"[^>]*><title>', one) for one in pictures]
    assert [len(found) for found in cells] == [4] * 4 + [2] * 6
    assert "<script" not in page and "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert page == attention_page(findings)
    assert page.count('<p class="beside">simulated; ') == len(findings.analyses)  # beside every result


def test_names_of_users_are_shown_and_not_obeyed(findings: AttentionFindings, tmp_path: Path) -> None:
    fields = {name: getattr(findings, name) for name in AttentionFindings.__dataclass_fields__}
    hostile = '"><script>alert(1)</script>\n\ud800'
    told = AttentionFindings(**{**fields, "subject": hostile, "labels": (hostile,), "story": {"run": hostile}})
    result = write_attention(told, tmp_path / "a")
    assert "<script" not in result.outputs[1].read_text()


def test_the_draw_does_not_depend_on_the_order_and_grows(run: Path) -> None:
    dataset = read_dataset(run.parent / "dataset")
    rows = np.arange(len(dataset.samples))
    few, more = choose_rows(dataset, rows, 5), choose_rows(dataset, rows, 9)
    assert set(few) < set(more) and len(few) == 5 and np.array_equal(few, np.sort(few))
    assert set(choose_rows(dataset, rows[::-1], 5)) == set(few)
    assert choose_rows(dataset, rows, 0) is rows


def test_counted_weights_are_shares_too(run: Path) -> None:
    found = analyse_run(run, AttentionSettings(split="all", transcripts=0, threshold=0.01), device="cpu")
    assert "share of the attention weights above 0.01" in attention_page(found)
    assert np.allclose(found.analyses[0].tests.mass.sum(-1), 1)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"modality": "dna"}, InvalidSettingError, "reads rna, protein, not dna. Choose --modality rna"),
        ({"modality": "protein"}, EmbedCacheError, "Unknown encoder 'tiny-protein'"),
        ({"modality": None, "cross": False}, InvalidSettingError, "no encoder is asked for"),
        ({"cache": "nowhere"}, EmbedCacheError, "nowhere"),
        ({"dataset": "proteins"}, InvalidInputError, "is not the dataset of"),
        ({"dataset": "missing"}, InvalidInputError, "There is no dataset at"),
    ],
)
def test_wrong_input_is_one_line(run: Path, options: dict[str, object], error: type[Exception], text: str) -> None:
    if "dataset" in options:
        options = {"dataset": run.parent / str(options["dataset"])}
    with pytest.raises(error, match=re.escape(text)) as caught:
        analyse_run(run, ALL, device="cpu", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        analyse_run(tmp_path, ALL)


def test_a_dataset_without_coding_transcripts(run: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", modalities=("dna",))
    with pytest.raises(InvalidInputError, match=r"leaves no transcript to look at. rna: 0 of .* without rna"):
        analyse_encoder("tiny-random-rna", "rna", dataset.path, ALL, device="cpu")


@pytest.mark.parametrize("changes", [{"threshold": 0.0}, {"threshold": 1.0}, {"transcripts": -1}])
def test_settings_out_of_range(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidSettingError, match="expected"):
        AttentionSettings(**changes)  # type: ignore[arg-type]


def test_an_encoder_without_a_dataset_is_wrong_usage(tmp_path: Path) -> None:
    code = "import sys; from cli import heads; sys.argv[0] = 'heads'; heads()"
    command = [sys.executable, "-c", code, "attention", "--encoder", "mini-rna"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and "needs --dataset" in result.stderr


def test_a_cds_beyond_its_rna_is_told(run: Path) -> None:
    from heads.interpret.attention.regions import find_cases

    dataset = read_dataset(run.parent / "dataset")
    row = int(np.flatnonzero(dataset.samples["cds_start"].notna())[0])
    dataset.samples.loc[row, "cds_end"] = 10_000
    with pytest.raises(InvalidInputError, match=r"the CDS of T.* is 2 to 10000, its RNA has"):
        find_cases(dataset, "rna", [row])
