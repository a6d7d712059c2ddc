"""What a sweep refuses before it trains: combinations of tuning, encoders nobody reads, models that do not fit."""

from pathlib import Path

import pytest
import torch
from fake_study import FakeStudy, make_study

from embedcache.errors import EmbedCacheError, InvalidInputError
from heads.settings import RunSettings
from heads.sweep.beforehand import check_runs
from heads.sweep.grid import read_grid
from heads.sweep.plan import NamedRun
from heads.sweep.sweep import SweepJob, train_sweep
from heads.sweep.tuning import Tuning
from heads.sweep.work import Opened

SMALL = "[base]\nepochs = 1\nheads = 2\nhidden = 8\nbatch_size = 16\n"
OPTUNA = '[tune]\nmethod = "optuna"\ntrials = 4\n'


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=20)


def refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read_grid(tmp_path / "g.toml")
    assert "\n" not in str(caught.value) and "g.toml" in str(caught.value)


# --- encoders of modalities that are not read ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[base]\nmodalities = ['dna']\nencoder.rna = 'x'", "named for rna, which no arm reads"),
        (
            "[grid]\nmodalities = ['dna', 'rna']\n'encoder.rna' = ['x', 'y']",
            "Arm 'dna, encoder.rna=x' names an encoder",
        ),
        ("[[arms]]\nmodalities = ['dna']\nencoder.rna = 'x'\n[[arms]]\nname = 'r'", "for rna, which it does not read"),
        ("[base]\nmodalities = ['dna']\n[tune]\n'encoder.rna' = ['x', 'y']", "named for rna, which no arm reads"),
    ],
)
def test_an_encoder_that_is_not_read_is_refused_as_by_train(tmp_path: Path, text: str, words: str) -> None:
    refused(tmp_path, text, words)


def test_arms_share_an_encoder_that_some_of_them_read(tmp_path: Path) -> None:
    text = "[base]\nencoder.rna = 'x'\n[grid]\nmodalities = ['dna', 'rna']\n[tune]\n'encoder.dna' = ['y', 'z']\n"
    (tmp_path / "g.toml").write_text(text)
    dna, rna = (arm.settings(0, None, None).encoders for arm in read_grid(tmp_path / "g.toml").arms)
    assert (dna, rna) == ({}, {"rna": "x"})


# --- combinations of tuning ---


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ("dropout = {low = 0.1, high = 1.2}", "with dropout = 1.2: dropout is 1.2"),
        (
            "width = {low = 16, high = 32}",
            "arm 'base' may be tried with width = 17: width 17 is not a multiple of 8 heads",
        ),
        ("heads = {low = 2, high = 6}\nwidth = [12]", "heads = 5: width 12 is not a multiple of 5 heads"),
        ("bins = {low = 1, high = 3}\nlearning_rate = {low = 0.001, high = 0.1}", "bins is 2, which aggregator"),
        ("width = {low = 8, high = 4096}\nheads = {low = 1, high = 64}", "is not a multiple of"),
    ],
)
def test_ranges_that_allow_what_cannot_be_are_refused(tmp_path: Path, ranges: str, words: str) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    refused(tmp_path, OPTUNA + ranges, words)


@pytest.mark.parametrize(("values", "words"), [("[4, 0]", "hidden is 0"), ("[4, '8']", "hidden is '8'")])
def test_a_listed_value_that_cannot_be_names_the_trial(tmp_path: Path, values: str, words: str) -> None:
    refused(tmp_path, f"[tune]\nhidden = {values}", words)


def test_lists_that_do_not_go_together_name_the_trial(tmp_path: Path) -> None:
    refused(tmp_path, "[tune]\nwidth = [16, 20]\nheads = [4, 8]", "may be tried with width = 20, heads = 8: width 20")


def test_small_searches_are_looked_at_whole_and_large_ones_in_part() -> None:
    small = Tuning(method="optuna", choices={"bins": [1, 2]}, ranges={"heads": (1, 9, False)}, trials=3)
    assert len(small.combinations()) == 18
    large = Tuning(
        method="optuna", choices={"rank": [*range(1, 40)]},
        ranges={"heads": (1, 999, True), "dropout": (0.1, 0.5, False)}, trials=3,
    )  # fmt: skip
    found = large.combinations()
    assert len(found) == 540 and found == large.combinations() and {one["rank"] for one in found} == {*range(1, 40)}
    assert {1, 999} < {one["heads"] for one in found} and {one["dropout"] for one in found} == {0.1, 0.5}


def test_what_is_tuned_is_judged_beside_the_settings_of_its_arm(tmp_path: Path) -> None:
    """Neither 12 nor two bins go with the defaults, and neither do the five heads of the base with a width of 12."""
    (tmp_path / "g.toml").write_text(
        "[base]\naggregator = 'gated-sum'\nheads = 5\n[tune]\nwidth = [12, 24]\nheads = [4, 6]\nbins = [1, 2]\n"
    )
    assert read_grid(tmp_path / "g.toml").tuning is not None


# --- models that do not fit what they read ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[grid]\nheads = [4, 3]\n", "heads=3, seed 0: Tokens are 8 numbers wide, not a multiple of 3 heads"),
        ("[tune]\nheads = [4, 2, 3]\n", "base, heads = 3, seed 0: Tokens are 8 numbers wide"),
        (OPTUNA + "heads = {low = 2, high = 4}\n", "base, heads = 3, seed 0: Tokens are 8 numbers wide"),
        (
            "[grid]\ntissue_weights = [{Liver = 2.0}, {Lver = 2.0}]\n",
            "seed 0: Unknown tissue 'Lver'. Did you mean 'Liver'",
        ),
    ],
)
def test_what_does_not_fit_the_data_names_its_run_before_anything_is_written(
    study: FakeStudy, tmp_path: Path, text: str, words: str
) -> None:
    if "optuna" in text:
        pytest.importorskip("optuna", reason="optuna is not installed")
    (tmp_path / "g.toml").write_text(SMALL + text)
    job = SweepJob(grid=read_grid(tmp_path / "g.toml"), dataset=study.dataset, cache=study.cache,
                   output=tmp_path / "sweep", device="cpu")  # fmt: skip
    with pytest.raises(EmbedCacheError, match=words) as caught:
        train_sweep(job, None)  # type: ignore[arg-type]  # the directory is not asked
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("aggregator", ["cross-attention", "perceiver", "attention-pooling"])
def test_looking_at_models_draws_nothing(study: FakeStudy, aggregator: str) -> None:
    run = NamedRun(name="a", settings=RunSettings.from_flat({"aggregator": aggregator, "heads": 2}))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_runs([run], Opened.open(study.dataset, study.cache))
    assert torch.equal(torch.get_rng_state(), before)
