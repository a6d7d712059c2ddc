"""Grid files: what is wrong with one is one line, and settings come back as they were."""

import json
from pathlib import Path

import pytest

from embedcache.errors import InvalidInputError
from heads.settings import RunSettings
from heads.sweep.grid import read_grid


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds = []", "seeds is"),
        ("seeds = [1, 1]", "different whole numbers"),
        ("folds = 1", "from 2 to 1000"),
        ("epochs = 3", r"go under \[base\]"),
        ("[base]\nepoch = 3", "Did you mean 'epochs'"),
        ("[base]\nepochs = '3'", "Give a whole number"),
        ("[base]\nseed = 3", "seeds = "),
        ("[grid]\nepochs = 3", "Give a list of values"),
        ("[grid]\nepochs = [0]", "epochs is 0"),
        ("[grid]\nmodalities = ['dna', 'rma']", "Did you mean 'rna'"),
        ("reference = 'x'\n[grid]\nmodalities = ['dna']", "reference arm"),
        ("[[arms]]\nname = 'a'\n[[arms]]\nname = 'a'", "Two arms are named 'a'"),
        ("[tune]\nseed = [1, 2]", "cannot be tuned"),
        ("[tune]\nlearning_rate = {low = 1, high = 2}", "Give a list of values"),
        ("[tune]\ntrials = 3\nlearning_rate = [0.1]", "trials is for method"),
        ("this is no TOML", "is no TOML"),
        ("encoder = {rna = 'x'}", "no section of a grid"),
        ("", "the file says nothing"),
        ("[base]\ntissue_weights = 3", "Give a table"),
        ("[base]\nmodalities = 3", "Give a list"),
        ("seeds = 1_000_000_000_000", "up to 100,000"),
        ("seeds = -1", "seeds is -1"),
        (
            "[grid]\n" + "".join(f"{name} = {[*range(1, 100)]}\n" for name in ("heads", "rank", "tokens", "hidden")),
            "runs, at",
        ),
        (f"[tune]\nlearning_rate = {[0.1] * 1000}\ndropout = {[0.1] * 1000}", "1,000,001 runs"),
        ("name = '../elsewhere'", "another directory"),
        ("[[arms]]\nname = ''", "characters that can be printed"),
        ('[[arms]]\nname = "a\\u001b[31m"', "characters that can be printed"),
        ("[[arms]]\nname = ['a']", "characters that can be printed"),
        ("[[arms]]\nname = 'tissue mean'", "a baseline of every table"),
        ("[base]\ndevice = 'cpu'", "--device on the command line"),
        ("[grid]\ndropout = [0.1, 0.2]\n[tune]\ndropout = [0.3]", r"chosen by \[tune\]"),
        ("[base]\nbins = 2\naggregator = 'concat'\n[tune]\npooling = ['mean', 'attention']", "does not go with bins"),
        ("folds = 3\n[base]\nsplit = 'given'", "has no folds"),
        ("[base]\nsplit = 'gene'\n[grid]\nsplit_seed = [0, 1]", "seed of the split is 0 and 1"),
        ("folds = 2\n[grid]\nsplit = ['gene', 'chromosome']", "'gene' and 'chromosome'"),
        ("[base]\nsplit = 'gene'\n[grid]\nvalidation_fraction = [0.1, 0.3]", "one table cannot compare"),
    ],
)
def test_a_wrong_grid_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read_grid(tmp_path / "g.toml")
    assert "\n" not in str(caught.value) and "g.toml" in str(caught.value)


def test_a_grid_from_a_windows_editor(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_bytes(b"\xef\xbb\xbfseeds = [4]\r\n")
    assert read_grid(tmp_path / "g.toml").seeds == (4,)


def test_there_is_no_such_grid(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="There is no grid"):
        read_grid(tmp_path / "none.toml")


def test_settings_come_back_from_json(tmp_path: Path) -> None:
    given = {"modalities": "rna,dna", "width": "none", "clip": 1, "tissue_weights": {"Liver": 2}, "encoder.rna": "x+y",
             "split": "gene", "fold": 3, "heads": 4}  # fmt: skip
    settings = RunSettings.from_flat(given)
    again = RunSettings.from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings and again.digest() == settings.digest()
    assert settings.digest() != RunSettings.from_flat({**given, "fold": 2}).digest()
