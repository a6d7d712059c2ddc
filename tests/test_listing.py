"""Cards: each one complete, the list at 100 columns, one in full, and where the weights are, without the network."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from embedcache.choices import Crop
from embedcache.commands import app
from embedcache.encoders import cards
from embedcache.encoders.cards import CARDS
from embedcache.encoders.fetching import weights_place
from embedcache.encoders.listing import describe_card, format_card, format_cards, list_cards
from embedcache.encoders.tokens import token_spans

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, whatever this machine has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repository: str, *names: str, commit: str = COMMIT) -> Path:
    """A snapshot as the hub client lays it out; empty files."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize("name", CARDS)
def test_every_card_says_all_that_a_user_must_know(name: str) -> None:
    card = CARDS[name]
    assert card.modalities and card.width > 0 and card.layers > 0 and card.adapter.count("/") == 1
    assert card.heads > 0 or "hyena" in card.name  # which has no attention
    assert set(card.modalities) <= set(card.crops) and set(card.crops.values()) <= set(get_args(Crop))
    assert card.max_tokens >= 0 and (card.weights or card.trained_tokens > 0)
    assert not card.max_tokens or card.trained_tokens <= card.max_tokens
    assert card.licence and (card.commercial is not None) and ("NC" in card.licence) == (card.commercial is False)
    assert card.weights.startswith("seed:") or card.bundled or re.fullmatch(r"[\w.-]+/[\w.-]+", card.repository)
    assert re.fullmatch("([0-9a-f]{40})?", card.revision)
    assert re.search(r"(doi:10\.\d{4,}/\S+|https://\S+|^this package.*)$", card.citation)
    found = describe_card(card)
    assert found["letters_a_token"] == token_spans("A" * 4096, card.tokens)[0, 1]
    assert json.loads(json.dumps(found)) == found
    text = format_card(found)
    assert all(word in text for word in ("reads ", "network ", "limit ", "licence ", "weights ", "cite ", card.tokens))
    assert max(len(line) for line in text.splitlines() if not line.startswith("  fetch")) <= 100


def test_only_commits_that_are_known_for_sure_are_pinned() -> None:
    own = [card for family in cards._FAMILIES for card in family.CARDS]  # other tests register cards of theirs
    pinned = {card.name: card.revision for card in own if card.revision}
    assert pinned == {"nt-v2-50m": "81b29e5786726d891dbf929404ef20adca5b36f1"}
    assert "every store records it" in format_card(describe_card(CARDS["esm2-8m"]))


def test_the_list_fits_100_columns_and_names_every_encoder(cache: Path) -> None:
    put(cache, "facebook/esm2_t6_8M_UR50D", "model.safetensors")
    lines = format_cards(list_cards()).splitlines()
    assert max(map(len, lines)) <= 100
    first = [line.split()[0] for line in lines if line]
    for name in CARDS:
        assert re.sub(r"replicate-\d", "replicate-[0-3]", name) in first
    (row,) = [line for line in lines if line.startswith("esm2-8m ")]
    assert row.split() == ["esm2-8m", "320", "6", "letter", "none", "MIT", "yes", "here"]
    (row,) = [line for line in lines if line.startswith("borzoi-replicate-[0-3] ")]
    assert row.split()[1:] == ["1536", "8", "bins-32", "16,384", "CC-BY-4.0", "yes", "missing"]


def test_replicates_of_other_states_have_rows_of_their_own(cache: Path) -> None:
    put(cache, "johahi/borzoi-replicate-2", "model.safetensors")
    lines = [line for line in format_cards(list_cards("dna")).splitlines() if line.startswith("borzoi-replicate-")]
    names = [line.split()[0] for line in lines]
    assert names[:4] == [f"borzoi-replicate-{number}" for number in range(4)] and "borzoi-replicate-2-final" in names
    assert "borzoi-replicate-[0-3]" not in names and "borzoi-replicate-[0-3]-mouse" in names


def test_the_commands_print_what_the_functions_say() -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["encoders", *words])
        assert done.exit_code == 0, done.output
        return done.output.rstrip("\n")

    assert run("--modality", "protein") == format_cards(list_cards("protein"))
    assert json.loads(run("--json")) == list_cards()
    assert run("nt-v2-50m") == format_card(describe_card(CARDS["nt-v2-50m"]))
    found = json.loads(run("nt-v2-50m", "--json"))
    assert found["weights"] == {"state": "missing", "directory": "", "revision": ""}
    assert found["fetch"] == (
        "hf download InstaDeepAI/nucleotide-transformer-v2-50m-multi-species "
        "--revision 81b29e5786726d891dbf929404ef20adca5b36f1"
    )
    done = CliRunner().invoke(app, ["encoders", "nt-v2-50"])
    assert done.exit_code != 0 and "Did you mean 'nt-v2-50" in str(done.exception)


def test_neither_the_list_nor_a_card_imports_torch() -> None:
    code = (
        "import sys\n"
        "from embedcache.encoders.listing import *\n"
        "from embedcache.encoders.registry import card\n"
        "format_cards(list_cards()); format_card(describe_card(card('esm2-8m')))\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_are_here_only_if_all_their_files_are(cache: Path, tmp_path: Path) -> None:
    card = CARDS["esm2-8m"]
    assert weights_place(card) == ("missing", "", "")
    folder = put(cache, card.repository, "config.json")
    assert weights_place(card) == ("incomplete", str(folder), COMMIT)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    (folder / "one.safetensors").write_text("")
    assert weights_place(card).state == "incomplete"
    (folder / "two.safetensors").write_text("")
    assert weights_place(card) == ("here", str(folder), COMMIT)
    for damaged in ("", "[]", '{"weight_map": 3}'):
        index.write_text(damaged)
        assert weights_place(card).state == "incomplete"
    index.unlink()
    (folder / "pytorch_model.bin").write_text("")
    assert weights_place(card).state == "here"
    assert weights_place(replace(card, revision=COMMIT)).state == "here"
    assert weights_place(replace(card, revision="f" * 40)).state == "missing"  # another commit is other weights
    assert weights_place(replace(card, repository="")).state == "missing"
    assert weights_place(replace(card, repository=str(folder))).state == "here"
    assert weights_place(CARDS["tiny-random-rna"]).state == "random"
    assert weights_place(replace(card, weights="own")).state == "own"
    assert weights_place(replace(card, bundled="embedcache.encoders")).state == "missing"


def test_a_broken_cache_is_no_error(cache: Path) -> None:
    card = CARDS["esm2-8m"]
    root = put(cache, card.repository).parents[1]
    (root / "refs" / "main").write_bytes(b"\xff\xfe")
    assert weights_place(card).state == "missing"
    (root / "refs" / "main").unlink()
    assert weights_place(card).state == "missing"
