"""The ready grids: what they compare, that their comments are true where a machine can tell, and that they run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import WIDTHS, fill_cache, make_dataset, records_of
from fakes import FakeEncoder

from embedcache.build import build_cache
from embedcache.dataset import Dataset
from embedcache.encoders.options import card_spec
from embedcache.encoders.registry import card
from embedcache.sequences import MODALITIES
from embedcache.store import store_path
from heads.settings import RunSettings
from heads.sweep.grid import Arm, Grid, read_grid
from heads.sweep.sweep import SweepJob, planned_runs, sweep

GRIDS = Path(__file__).parents[1] / "grids"
ARMS = {
    "table2-modalities": ["dna", "rna", "protein", "dna,rna", "dna,protein", "rna,protein", "dna,rna,protein"],
    "table3-dna-encoders": ["enformer", "borzoi", "nt", "without dna"],
    "table4-aggregators": [
        *("cross-attention", "c-abstractor", "perceiver", "linear", "concat", "attention-pooling", "gated-sum"),
    ],
    "table5-pretrained-or-random": ["pretrained", "random dna", "random rna", "random protein", "all random"],
    "layers": ["layer 10", "layer 20", "last layer", "mix"],
    "seeds": ["data_seed=0", "data_seed=1", "data_seed=2"],
    "demo": ["dna", "rna", "protein", "dna,rna", "dna,protein", "rna,protein", "dna,rna,protein"],
}
SMALL = {"epochs": 1, "hidden": 4, "tokens": 2, "heads": 2, "width": 8, "batch_size": 32, "device": "cpu"}


def grid_named(name: str) -> Grid:
    return read_grid(GRIDS / f"{name}.toml")


def settings_of(arm: Arm) -> RunSettings:
    return arm.settings(0, None, None)


def encoders_of(grid: Grid) -> set[tuple[str, str]]:
    named = {pair for arm in grid.arms for pair in settings_of(arm).encoders.items()}
    return {(modality, one) for modality, joined in named for one in joined.split("+")}


def test_the_ready_grids_have_these_arms() -> None:
    assert {path.stem: [arm.name for arm in read_grid(path).arms] for path in GRIDS.glob("*.toml")} == ARMS


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_from_its_reference_in_what_is_compared(name: str) -> None:
    grid = grid_named(name)
    (reference,) = [settings_of(arm) for arm in grid.arms if arm.name == grid.reference]
    compared = {
        "table2-modalities": {"modalities"},
        "table3-dna-encoders": {"encoders", "modalities"},
        "table4-aggregators": {"aggregator"},
        "seeds": {"data_seed"},
        "demo": {"modalities"},
    }.get(name, {"encoders"})
    for arm in grid.arms:
        one = settings_of(arm)
        pairs = [(one.model, reference.model), (one.training, reference.training)]
        flat = [({**a.to_json()}, {**b.to_json()}) for a, b in pairs]
        different = {key for a, b in flat for key in a if a[key] != b[key]}
        wanted = {m: encoder for m, encoder in reference.encoders.items() if m in one.model.modalities}
        different |= {"encoders"} if one.encoders != wanted else set()
        assert different <= compared and bool(different) == (arm.name != grid.reference), arm.name
    digests = [settings_of(arm).digest() for arm in grid.arms]
    assert len(set(digests)) == len(digests)


def test_each_encoder_is_drawn_alone_and_all_at_once() -> None:
    arms = {arm.name: settings_of(arm).encoders for arm in grid_named("table5-pretrained-or-random").arms}
    pretrained = arms["pretrained"]
    drawn = {m: card_spec(card(name), m, random_init=0).name for m, name in pretrained.items()}
    assert {m: arms[f"random {m}"] for m in MODALITIES} == {m: {**pretrained, m: drawn[m]} for m in MODALITIES}
    assert arms["all random"] == drawn


@pytest.mark.parametrize("name", ARMS)
def test_comments_say_how_to_build_what_is_read_and_how_many_runs_there_are(name: str) -> None:
    grid, text = grid_named(name), (GRIDS / f"{name}.toml").read_text()
    commands = re.findall(r"embedcache build --modality (\w+) --encoder (\S+)( --random-init 0)?", text)
    built = {(m, one + ("-random0" if drawn else "")) for m, one, drawn in commands}
    needed = {(m, re.sub("-(LAYER10|LAYER20|LAST)$", "", one)) for m, one in encoders_of(grid)}
    assert needed <= built
    for modality, one in {(m, one.removesuffix("-random0")) for m, one in needed}:
        assert modality in card(one).modalities
    if said := re.search(r"= (\d+) runs", text):
        tried = len(grid.tuning.choices["learning_rate"]) - 1 if grid.tuning else 0
        assert int(said[1]) == len(grid.arms) * (len(grid.seeds) + tried) * len(grid.fold_numbers)
    words = text.split("\n\n")[0].lower()
    assert name == "demo" or ("ours" in words and ("frozen" in words or "means" in words))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("study") / "dataset", n_genes=24)


@pytest.mark.parametrize("name", ARMS)
def test_it_runs_on_a_tiny_study_with_stores_of_these_names(name: str, dataset: Dataset, tmp_path: Path) -> None:
    grid = grid_named(name)
    cache = tmp_path / "cache"
    if not encoders_of(grid):
        fill_cache(cache, dataset)
    for modality, encoder in encoders_of(grid):
        fake = FakeEncoder(name=encoder, modality=modality, width=WIDTHS[modality])  # type: ignore[index]
        build_cache(records_of(dataset, modality), fake, store_path(cache, fake.spec))  # type: ignore[arg-type]
    arms = tuple(replace(arm, flat={**arm.flat, **SMALL}) for arm in grid.arms)
    job = SweepJob(
        grid=replace(grid, arms=arms, seeds=grid.seeds[:1]),
        dataset=dataset.path,
        cache=cache,
        output=tmp_path / "sweep",
        device="cpu",
    )
    assert len({run.settings.digest() for run in planned_runs(job)}) >= len(arms)
    table = sweep(job, resamples=100).table
    assert [arm["name"] for arm in table["arms"] if arm["kind"] == "arm"] == ARMS[name]
    assert table["reference"] == grid.reference and not table["diverged"]
