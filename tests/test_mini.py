"""Small encoders of our own: how they are trained, kept and measured."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from embedcache.annotation import read_gtf
from embedcache.encoders import mini
from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.cards.mini import CARDS
from embedcache.encoders.mini.commands import app
from embedcache.encoders.mini.corpus import HELD_OUT, VALIDATION, corpus_file
from embedcache.encoders.mini.kmers import KmerRates
from embedcache.encoders.mini.measure import measure
from embedcache.encoders.mini.model_card import model_card
from embedcache.encoders.mini.network import names_of_tokens, vocabulary
from embedcache.encoders.mini.pieces import cut_tokens, packs, windows_of_genome
from embedcache.encoders.mini.publish import read_shape, read_trained, save_trained
from embedcache.encoders.mini.recipes import mini_spec, recipe_of
from embedcache.encoders.mini.training import Corpus, Recipe, evaluation_pieces, masked_perplexity, train
from embedcache.encoders.registry import load_encoder
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.genome import open_genome, reverse_complement
from embedcache.sequences import Modality
from embedcache.splits import SPLITS
from embedcache.transcripts import splice, translate

PACKAGE = Path(mini.__file__).parent

SMALL = {"width": 32, "layers": 1}
RECIPE = Recipe(epochs=8, tokens_per_step=256, longest=64, learning_rate=8e-3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Proteins of two kinds that never mix: what a hidden residue is can be told from its neighbours alone."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = np.random.default_rng(3)
    for split, count in zip(SPLITS, (40, 10, 10), strict=True):
        lines = []
        for i in range(count):
            letters = draw.choice(list("ACDE" if i % 2 else "KLMN"), size=60)
            lines.append(f">{split}{i}\n{''.join(letters)}\n")
        corpus_file(folder, "protein", split).write_text("".join(lines))
    return folder


def test_training_learns_what_neighbours_tell(corpus: Path, tmp_path: Path) -> None:
    spec = mini_spec("protein", **SMALL)
    model = train(corpus, spec, RECIPE)
    save_trained(model, spec, tmp_path)
    found = measure("protein", corpus, tmp_path, "validation")
    assert 7.5 < found["unigram"] < 8.5  # eight letters
    assert 3.9 < found["best_kmer"] < 5.5  # four, once the neighbours tell which kind it is
    assert found["perplexity"] < 5


def test_the_same_recipe_gives_the_same_weights(corpus: Path) -> None:
    first, again = (train(corpus, mini_spec("protein", **SMALL), Recipe(epochs=1, tokens_per_step=512)) for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_saved_encoder_is_read_by_transformers_and_by_its_card(corpus: Path, tmp_path: Path) -> None:
    from transformers import EsmForMaskedLM

    spec = mini_spec("protein", **SMALL)
    model = train(corpus, spec, Recipe(epochs=0.1, longest=64))
    save_trained(model, spec, tmp_path)
    assert read_shape(tmp_path) == {"width": 32, "layers": 1, "tokens": "letter"}
    theirs = EsmForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = read_trained(tmp_path, spec).eval()
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, theirs_by_name[name]), name
    assert theirs.lm_head.decoder.weight is theirs.esm.embeddings.word_embeddings.weight


def test_a_directory_without_a_mini_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no mini encoder"):
        read_shape(tmp_path)


def test_a_width_must_hold_whole_heads() -> None:
    with pytest.raises(InvalidSettingError, match=r"width of 50.*heads of 32"):
        mini_spec("rna", width=50)


def test_hidden_tokens_are_the_same_every_time_and_perplexity_is_over_them(corpus: Path) -> None:
    spec = mini_spec("protein", **SMALL)
    held_out = Corpus(corpus, spec, "validation")
    pieces, masked = evaluation_pieces(held_out, 64, 0.15)
    again = evaluation_pieces(held_out, 64, 0.15)
    assert all(np.array_equal(a, b) for a, b in zip(masked, again[1], strict=True))
    share = sum(map(len, masked)) / sum(map(len, pieces))
    assert 0.1 < share < 0.2
    model = train(corpus, spec, Recipe(epochs=0.01, longest=64, learning_rate=1e-9))
    flat = masked_perplexity(model, held_out.vocabulary, pieces, masked)
    assert math.isclose(flat, len(names_of_tokens("letter")), rel_tol=0.1)  # knows nothing yet


def test_kmer_rates_are_those_of_counting_by_hand() -> None:
    train_on = [np.array([0, 1, 0, 1, 2])]
    rates = KmerRates(train_on, 4)
    found = rates.perplexities([np.array([0, 1])], [np.array([1])], strength=2.0)
    unigram = (2 + 2 * 0.25) / (5 + 2)
    after_zero = (2 + 2 * unigram) / (2 + 2)
    assert math.isclose(found["0+0"], 1 / unigram)
    assert math.isclose(found["1+0"], 1 / after_zero)
    # 0 to the left and the end to the right was never seen: as sure as one step shorter
    assert math.isclose(found["1+1"], found["1+0"])


def test_pieces_cover_each_sequence_once_and_packs_hold_all() -> None:
    draw = np.random.default_rng(0)
    tokens = [np.arange(n) for n in (3, 10, 25, 100)]
    pieces = list(cut_tokens(tokens, 10, draw))
    assert max(map(len, pieces)) <= 10
    assert sorted(np.concatenate(pieces).tolist()) == sorted(np.concatenate(tokens).tolist())
    packed = [one for pack in packs(pieces, 30, draw) for one in pack]
    assert sorted(map(len, packed)) == sorted(map(len, pieces))


def test_windows_of_a_genome_come_from_both_strands_and_skip_what_is_unknown() -> None:
    draw = np.random.default_rng(0)
    genome = "".join(np.random.default_rng(1).choice(list("ACGT"), size=4000)) + "N" * 300
    windows = list(windows_of_genome([genome], 50, draw))
    assert {window in genome for window in windows} == {True, False}
    assert all(window in genome or reverse_complement(window) in genome for window in windows)
    assert not any(window.count("N") > 5 for window in windows)
    fixed = list(windows_of_genome([genome], 50, None))
    assert fixed == [genome[i : i + 50] for i in range(0, 4000, 50)]


def test_the_command_writes_weights_recipe_and_card(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--corpus", str(corpus), "--output", str(tmp_path / "w"), "--epochs", "0.1", "--layers", "1"]
    with pytest.raises(SystemExit) as ended:
        app(["train", "protein", *options, "--width", "32"])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    written = (tmp_path / "w" / "README.md").read_text()
    assert f"| {found['perplexity']:.2f} | {found['best_kmer']:.2f} | {found['unigram']:.2f} |" in written
    assert all(name in written for name in (*HELD_OUT, *VALIDATION, "width 32, 1 layers, 1 heads"))
    assert json.loads((tmp_path / "w" / "training.json").read_text())["epochs"] == 0.1
    with pytest.raises(SystemExit) as ended:
        app(["evaluate", "protein", "--corpus", str(corpus), "--weights", str(tmp_path / "w")])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_published_weights_come_with_the_package_and_beat_counting(card: EncoderCard) -> None:
    folder = PACKAGE / card.name
    assert read_shape(folder) == {"width": card.width, "layers": card.layers, "tokens": card.tokens}
    numbers = re.search(r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    assert numbers is not None
    network, counted, plain = map(float, numbers.groups())
    assert 1 < network < counted < plain
    encoder = load_encoder(card.name, card.modalities[0])
    assert not encoder.spec.is_random and encoder.spec.is_small and encoder.spec.weights.startswith("blake2b:")
    sequence = "MKTAYIAKQR" if card.tokens == "letter" else "ATGGCCAAATTTTAA"
    rows = encoder.encode([sequence])[0]
    assert rows.shape == (encoder.spec.n_tokens(sequence), card.width) and np.isfinite(rows).all()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_published_weights_were_made_by_the_recipe(card: EncoderCard) -> None:
    said = json.loads((PACKAGE / card.name / "training.json").read_text())
    assert said == asdict(recipe_of(card.modalities[0]))


@pytest.mark.parametrize(
    ("modality", "tokens", "said"),
    [
        ("dna", "nt-3mer", "3 bases, from the left end of the window (`nt-3mer`)"),
        ("dna", "nt-4mer", "4 bases, from the left end of the window (`nt-4mer`)"),
        ("rna", "nt-6mer", "6 bases, from the left end of the sequence (`nt-6mer`)"),
        ("protein", "letter", "one residue (`letter`)"),
    ],
)
def test_a_model_card_says_what_a_token_is(modality: Modality, tokens: str, said: str) -> None:
    numbers = {"parameters": 1, "tokens_asked": 1, "perplexity": 1.0, "best_kmer": 2.0, "unigram": 3.0}
    assert f"- **A token** is {said}." in model_card(mini_spec(modality, tokens=tokens), Recipe(), numbers)


def test_published_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in PACKAGE.glob("mini-*/*")) < 20e6


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_hidden_tokens_of_held_out_yeast_are_told_as_the_model_card_says(card: EncoderCard) -> None:
    modality = card.modalities[0]
    spec = mini_spec(modality)
    words = vocabulary(spec.tokens)
    pieces = [words.ids(one)[:512] for one in yeast_xi(modality)]
    draw = np.random.default_rng(0)
    masked = [np.flatnonzero(draw.random(len(one)) < 0.15) for one in pieces]
    found = masked_perplexity(read_trained(PACKAGE / card.name, spec), words, pieces, masked)
    said = float((PACKAGE / card.name / "README.md").read_text().split("\n| ")[-1].split()[0])
    assert found == pytest.approx(said, rel=0.1)  # a sample of 6,000 tokens or so, of yeast alone


def yeast_xi(modality: str) -> list[str]:
    """Sequences of a chromosome that was held out."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "yeast"
    if not folder.is_dir():
        pytest.skip("the shared data are not here")
    with open_genome(folder / "genome.fa.gz") as genome:
        if modality == "dna":
            return [genome.fetch("XI", start, start + 1536) for start in range(20_000, 600_000, 15_000)]
        transcripts = [one for one in read_gtf(folder / "annotation.gtf.gz").transcripts.values() if one.contig == "XI"]
        rnas = [splice(genome, one) for one in transcripts[::15]]
    return rnas if modality == "rna" else [translate(one[:-3], 1) for one in rnas]


def test_the_cards_are_those_of_the_recipes() -> None:
    for card in CARDS:
        spec = mini_spec(card.modalities[0])
        assert (spec.width, spec.tokens, spec.adapter) == (card.width, card.tokens, card.adapter)
        assert dict(spec.architecture) == {
            "layers": card.layers, "heads": card.heads, "feed_forward": card.feed_forward, **card.settings
        }  # fmt: skip
