"""Names of encoders that cannot be meant: empty parts, and modalities that are not read."""

from pathlib import Path

import pytest
from fake_study import FakeStudy, make_study
from typer.testing import CliRunner

from embedcache.dataset import read_dataset
from embedcache.errors import InvalidSettingError
from embedcache.place import parse_place
from heads.commands import app
from heads.open_sources import open_source
from heads.sweep.grid import read_grid
from heads.sweep.sweep import SweepJob, sweep


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=20)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x+", "in part 2 of 2"),
        ("+x", "in part 1 of 2"),
        ("x++y", "in part 2 of 3"),
        ("", "is empty. "),
        (" ", "empty"),
    ],
)
def test_an_empty_part_of_a_name_is_told(study: FakeStudy, tmp_path: Path, name: str, words: str) -> None:
    dataset, cache = read_dataset(study.dataset), parse_place(study.cache)
    with pytest.raises(InvalidSettingError, match=words) as caught:
        open_source(dataset, cache, "rna", name)
    assert f"The encoder of rna, {name!r}, is empty" in str(caught.value)
    (tmp_path / "g.toml").write_text(f'[base]\nencoder.rna = "{name}"\n')
    job = SweepJob(grid=read_grid(tmp_path / "g.toml"), dataset=study.dataset, cache=study.cache, output=tmp_path / "s")
    with pytest.raises(InvalidSettingError, match=words):
        sweep(job)
    assert not job.output.exists()


def test_the_command_tells_it_too(study: FakeStudy, tmp_path: Path) -> None:
    options = ["--dataset", str(study.dataset), "--cache", str(study.cache), "--run", str(tmp_path / "run")]
    found = CliRunner().invoke(app, ["train", *options, "--encoder", "rna=tiny-rna+"])
    assert "'tiny-rna+', is empty in part 2 of 2" in str(found.exception) and not (tmp_path / "run").exists()
