"""`embedcache build` and `estimate` with every protein family in a small size, over real proteins."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedcache.commands import app
from embedcache.encoders.cards import CARDS
from embedcache.encoders.registry import load_encoder, register_encoder
from embedcache.prepare.fasta import prepare_fasta
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore

FAMILIES = ["esm2-15b", "esmc-6b", "prott5-xl", "prott5-xl-half", "prostt5", "ankh-large"]


@pytest.fixture(scope="module")
def dataset(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with gzip.open(shared_data("yeast") / "expected_protein.fa.gz", "rt") as file:
        proteins = file.read().split(">")[1:]
    short = sorted(proteins, key=len)[100:900:100]
    folder = tmp_path_factory.mktemp("yeast")
    (folder / "p.fa").write_text(">" + ">".join([*short, "rare\nMKUZOBJXV\n"]))
    prepare_fasta(output=folder / "dataset", protein=folder / "p.fa")
    return folder / "dataset"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_build_of_real_proteins_holds_what_was_estimated(family: str, dataset: Path, tmp_path: Path) -> None:
    card = replace(CARDS[family], name=f"shrunken-{family}", width=64, layers=2, heads=4, feed_forward=96)
    register_encoder(card)

    def run(command: str, *words: object) -> str:
        place = ["--dataset", dataset, "--cache", tmp_path / "cache", "--device", "cpu", "--modality", "protein"]
        chosen = ["--encoder", card.name, "--random-init", 0, "--store-dtype", "float32"]
        done = CliRunner().invoke(app, [command, *map(str, [*place, *chosen, *words])])
        assert done.exit_code == 0, done.output
        return done.output

    told = json.loads(run("estimate", "--json", "--trial-seconds", 0))
    assert "distinct sequences embedded" in run("build", "--layer", 1, "--layer", -1)
    stores = {store.spec.layer: store for store in map(EmbeddingStore, (tmp_path / "cache" / "protein").iterdir())}
    assert set(stores) == {1, -1} and all(store.spec.is_random for store in stores.values())
    assert sum(map(len, stores[-1].values())) == told["tokens"]
    encoder = load_encoder(card.name, "protein", random_init=0)
    assert stores[-1].spec.name == f"{card.name}-random0"
    rows = stores[-1][sequence_key("MKUZOBJXV", "protein")]
    assert np.array_equal(rows, encoder.encode(["MKUZOBJXV"])[0])
    assert rows.shape == (9, 64) and np.ptp(rows, axis=0).min() > 0
    assert not np.allclose(rows, stores[1][sequence_key("MKUZOBJXV", "protein")], atol=0.1)
