"""Input at and over the limits of an encoder: embedded whole, in windows, cropped by tokens, or refused. Never cut."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from embedcache.commands import app
from embedcache.encoders.cards import CARDS
from embedcache.encoders.registry import load_encoder, register_encoder
from embedcache.prepare.fasta import prepare_fasta
from embedcache.sequences import Modality, sequence_key
from embedcache.store import EmbeddingStore

DRAW = np.random.default_rng(0)
WHOLE, LESS = ("".join(DRAW.choice(list("ACGT"), n)) for n in (12_282, 12_281))
TITIN = "".join(DRAW.choice(list("ACDEFGHIKLMNPQRSTVWY"), 35_000))
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A command over a dataset of the two RNAs and the protein, with small networks of the real rules."""
    shape = {"width": 16, "layers": 1, "heads": 1, "feed_forward": 16}
    for name in ("nt-v2-50m", "esm2-8m"):
        register_encoder(replace(CARDS[name], name=f"low-{name}", **shape))
    (tmp_path / "rna.fa").write_text(f">whole\n{WHOLE}\n>less\n{LESS}\n")
    (tmp_path / "protein.fa").write_text(f">titin\n{TITIN}\n>short\nMKVLAA\n")
    prepare_fasta(output=tmp_path / "dataset", rna=tmp_path / "rna.fa", protein=tmp_path / "protein.fa")

    def call(command: str, modality: Modality, *words: object, cache: str = "cache") -> Result:
        encoder = {"rna": "low-nt-v2-50m", "protein": "low-esm2-8m"}[modality]
        place = ["--dataset", tmp_path / "dataset", "--cache", tmp_path / cache, "--device", "cpu"]
        chosen = ["--modality", modality, "--encoder", encoder, "--random-init", 0]
        return CliRunner().invoke(app, list(map(str, [command, *place, *chosen, *words])))

    return call


def rows_of(cache: Path, modality: Modality, sequence: str) -> np.ndarray:
    (place,) = (cache / modality).iterdir()
    return EmbeddingStore(place)[sequence_key(sequence, modality)]


def test_one_base_less_is_more_tokens_and_is_cropped_by_tokens(run: Run, tmp_path: Path) -> None:
    told = json.loads(run("estimate", "rna", "--trial-seconds", 0, "--json").output)
    assert (told["cropped"], told["longest_tokens"], told["tokens"]) == (1, 2047, 2 * 2047)
    done = run("build", "rna", "--store-dtype", "float32")
    assert done.exit_code == 0 and "1 were cropped" in done.output
    encoder = load_encoder("low-nt-v2-50m", "rna", random_init=0)
    for sequence, kept in ((WHOLE, WHOLE), (LESS, LESS[-12_277:])):
        assert encoder.spec.cropped(sequence) == kept  # the 3' end
        rows = rows_of(tmp_path / "cache", "rna", sequence)
        assert len(rows) == 2047 == len(encoder.spec.spans(sequence))
        assert np.array_equal(rows, encoder.encode([kept])[0])
        assert encoder.spec.spans(sequence)[[0, -1]].ravel()[[0, 3]].tolist() == [
            len(sequence) - len(kept),
            len(sequence),
        ]


def test_the_rule_error_refuses_what_has_too_many_tokens_by_its_name(run: Run, tmp_path: Path) -> None:
    for command in ("build", "estimate"):
        done = run(command, "rna", "--crop", "error")
        assert done.exit_code != 0
        assert "'less': 12281 letters are 2051 tokens" in str(done.exception) and "takes 2047" in str(done.exception)
    assert not (tmp_path / "cache").exists()


def test_windows_keep_all_2051_tokens(run: Run, tmp_path: Path) -> None:
    done = run("build", "rna", "--crop", "windows")
    assert done.exit_code == 0 and "0 were cropped" in done.output
    assert [len(rows_of(tmp_path / "cache", "rna", one)) for one in (WHOLE, LESS)] == [2047, 2051]


@pytest.mark.parametrize("words", [(), ("--max-tokens", 1022, "--crop", "windows")], ids=["whole", "windows"])
def test_a_protein_of_35000_residues_is_embedded_by_rule(run: Run, tmp_path: Path, words: tuple[object, ...]) -> None:
    told = json.loads(run("estimate", "protein", "--trial-seconds", 0, "--json", *words).output)
    assert (told["longest_tokens"], told["cropped"], told["tokens"]) == (35_000, 0, 35_006)
    assert (told["computed_tokens"] > told["tokens"]) == bool(words)
    done = run("build", "protein", *words)
    assert done.exit_code == 0 and "2 of 2 distinct sequences embedded (35,006 tokens)" in done.output
    rows = rows_of(tmp_path / "cache", "protein", TITIN)
    assert rows.shape == (35_000, 16) and np.isfinite(rows).all()
    assert len(np.unique(rows[-20:], axis=0)) == 20  # the end is no padding


def test_a_protein_over_a_limit_is_refused_by_its_name_unless_a_crop_is_chosen(run: Run, tmp_path: Path) -> None:
    done = run("build", "protein", "--max-tokens", 1022)
    assert done.exit_code != 0 and "'titin': 35000 letters are 35000 tokens" in str(done.exception)
    assert not (tmp_path / "cache").exists()
    done = run("build", "protein", "--max-tokens", 1022, "--crop", "keep-5-prime")
    assert done.exit_code == 0 and "1 were cropped" in done.output
    assert len(rows_of(tmp_path / "cache", "protein", TITIN)) == 1022
