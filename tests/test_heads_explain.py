"""Mutagenesis: every mutant is what a prediction of its letters says, and files tell where they came from."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from Bio.Seq import Seq
from live_study import letters, make_simulated
from typer.testing import CliRunner

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError
from heads.commands import app
from heads.interpret.explain.live_model import open_live
from heads.interpret.explain.mutagenesis import ALPHABETS, MOST_POSITIONS, default_region, make_mutants, mutagenesis
from heads.interpret.explain.output import ENTRY
from heads.interpret.explain.subject import open_subject, parse_region
from heads.interpret.explain.svg import heat_map


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_simulated(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def coding(run: Path) -> tuple[Dataset, int, str]:
    dataset = read_dataset(run.parent / "dataset")
    row = int(np.flatnonzero(dataset.samples["cds_start"].notna())[0])
    return dataset, row, str(dataset.samples["transcript_id"].iloc[row])


@pytest.mark.parametrize("modality", ["dna", "rna", "protein"])
def test_each_mutant_is_predicted_from_its_letters(
    tmp_path: Path, run: Path, coding: tuple[Dataset, int, str], modality: Any
) -> None:
    dataset, row, transcript = coding
    found = mutagenesis(run, transcript, modality, tmp_path, region="7:11", device="cpu")
    sample = letters(dataset)[row]
    sequence, inputs = sample[modality], [sample]
    for position in range(7, 11):
        for alt in ALPHABETS[modality].replace(sequence[position], ""):
            inputs.append({**sample, modality: sequence[:position] + alt + sequence[position + 1 :]})
    expected = open_live(run, "cpu").predict(inputs)
    assert len(found.mutants) == 4 * (19 if modality == "protein" else 3)
    np.testing.assert_allclose(found.difference, expected[1:] - expected[0], atol=1e-5)
    assert np.abs(found.difference).max() > 1e-4
    table = pq.read_table(found.outputs.parquet).to_pandas()
    assert len(table) == len(found.mutants) * len(dataset.tissues)
    np.testing.assert_array_equal(table["difference"], found.difference.ravel())
    assert (table["ref"] == [sequence[p] for p in table["position"]]).all()


def test_carried_changes_are_translated_codon_by_codon(run: Path, coding: tuple[Dataset, int, str]) -> None:
    _, _, transcript = coding
    subject = open_subject(run, transcript, device="cpu")
    (start, end), rna = subject.cds, subject.sequence("rna")
    mutants = make_mutants(subject, "rna", (start - 3, start + 30), carry=True)
    assert len(mutants) == 99
    for one in mutants:
        changed = rna[: one.position] + one.alt + rna[one.position + 1 :]
        assert one.sample["rna"] == changed
        assert one.sample["dna"] == subject.sequences["dna"]
        if one.position < start:
            assert one.sample["protein"] == subject.sequences["protein"]
            assert one.consequence == "5' UTR"
        elif one.position < start + 3:
            assert one.sample["protein"] is None
            assert one.consequence == "start lost M1?"
        else:
            assert one.sample["protein"] == str(Seq(changed[start : end + 3]).translate(to_stop=True))
    plain = make_mutants(subject, "rna", (start, start + 3))
    assert all(one.sample["protein"] == subject.sequences["protein"] and not one.consequence for one in plain)


def test_files_tell_where_they_came_from_and_come_out_the_same(
    tmp_path: Path, run: Path, coding: tuple[Dataset, int, str]
) -> None:
    dataset, _, transcript = coding
    arguments = ["explain", "mutagenesis", "--run", str(run), "--transcript", transcript, "--region", "3:6"]
    arguments += ["--output", str(tmp_path), "--device", "cpu", "--tissue", dataset.tissues[1]]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "9 mutants" in first.output
    assert "[simulated; small encoder: dna mini-dna" in first.output
    table, page = (tmp_path / f"mutagenesis-{transcript}-rna.{form}" for form in ("parquet", "html"))
    story = json.loads(pq.read_schema(table).metadata[ENTRY])
    assert story["labels"][0] == "simulated"
    assert (story["kind"], story["version"], story["region"]) == ("mutagenesis", 1, [3, 6])
    assert story["dataset"]["digest"] == dataset.digest
    text = page.read_text()
    assert text.count("small encoder: rna mini-rna") >= 3
    assert "<script" not in text
    before = table.read_bytes(), page.read_bytes()
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert before == (table.read_bytes(), page.read_bytes())


def test_a_stretch_that_nobody_chose_is_said(
    tmp_path: Path,
    run: Path,
    coding: tuple[Dataset, int, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = open_subject(run, coding[2], device="cpu")
    start, end = default_region(subject, "dna")
    assert (end - start, start + 100) == (200, len(subject.sequence("dna")) // 2)
    assert default_region(subject, "protein") == (0, 50)
    monkeypatch.setitem(MOST_POSITIONS, "protein", 3)
    mutagenesis(run, coding[2], "protein", tmp_path, device="cpu", tissues=[subject.live.tissues[0]])
    said = capsys.readouterr().err
    assert f"No --region: 3 of {len(subject.sequence('protein'))} positions, 0:3 from the start on." in said
    assert "57 mutants of" in said


def test_an_answer_is_replaced_by_its_own_question_only(
    tmp_path: Path, run: Path, coding: tuple[Dataset, int, str]
) -> None:
    name = f"mutagenesis-{coding[2]}-rna"
    ask = partial(mutagenesis, run, coding[2], "rna", tmp_path, device="cpu")
    first = ask(region="0:1").outputs.parquet
    second, third = (ask(region=region, tissues=tissues).outputs.parquet
                     for region, tissues in (("0:2", ()), ("0:1", list(coding[0].tissues[:1]))))  # fmt: skip
    assert [path.name for path in (first, second, third)] == [f"{name}{end}.parquet" for end in ("", "-2", "-3")]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert ask(region="0:2").outputs.parquet == second
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_file_of_others_is_kept(tmp_path: Path, run: Path, coding: tuple[Dataset, int, str]) -> None:
    path = tmp_path / f"mutagenesis-{coding[2]}-rna.html"
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match="exists and is no explanation"):
        mutagenesis(run, coding[2], "rna", tmp_path, region="0:2")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(InvalidInputError, match=r"is a file\. Give the name of a directory"):
        mutagenesis(run, coding[2], "rna", path, region="0:2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "5"}, "--region '5' is not START:END"),
        ({"region": "9:3"}, "with START below END"),
        ({"region": "0:99999"}, "ends behind the rna of"),
        ({"transcript": "none"}, "has no transcript 'none'. IDs look like"),
        ({"tissues": ["Lung"]}, "Unknown tissue 'Lung'"),
        ({"modality": "dna", "carry": True, "region": "0:1"}, "--carry is for changes of the RNA, not of dna"),
    ],
    ids=["one-number", "backwards", "behind", "transcript", "tissue", "carry"],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, run: Path, coding: tuple[Dataset, int, str], options: dict[str, Any], message: str
) -> None:
    given = {"transcript": coding[2], "modality": "rna", **options}
    with pytest.raises(EmbedCacheError) as caught:
        mutagenesis(run, output=tmp_path / "out", device="cpu", **given)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_modality_that_is_not_there(tmp_path: Path, run: Path) -> None:
    dataset = read_dataset(run.parent / "dataset")
    row = int(np.flatnonzero(dataset.samples["protein_key"].isna())[0])
    with pytest.raises(InvalidSettingError, match=r"has no protein\. Choose another --modality"):
        mutagenesis(run, dataset.samples["transcript_id"].iloc[row], "protein", tmp_path, device="cpu")
    assert parse_region("3:7") == (3, 7)


def test_a_heat_map_has_every_cell_once() -> None:
    values = np.array([[1.0, -1.0, np.nan, 0.0] * 30, [0.5] * 120])
    drawn = heat_map("t", ["A", "C"], "ACGT" * 30, values, first=40)
    cells = sum(int(one.split("h")[1]) for part in drawn.split('class="')[1:] if part[:3] in ("hig", "low", "zer")
                for one in part.split('d="')[1].split('"')[0].split("M")[1:] if " 28" not in one)  # fmt: skip
    assert cells == 240
    assert drawn.count('class="gap"') == 2
    assert ">140<" in drawn  # the second line begins behind 100 positions
    assert ">1,240<" in heat_map("t", ["A", "C"], [""] * 120, values, first=40, step=12)
    outlier = np.concatenate([np.ones((1, 99)), [[1000.0]]], axis=1)
    assert drawn_levels(heat_map("t", ["A"], "A" * 100, outlier, first=0)) == {"high5"}


def drawn_levels(drawn: str) -> set[str]:
    return set(re.findall(r'<path class="((?:low|high)\d)"', drawn))
