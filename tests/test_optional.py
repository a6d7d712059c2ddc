"""Encoders of the optional package multimolecule; most tests need it, and are skipped where it is missing."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoders.cards.multimolecule import CARDS
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.encoders.selftest import check_encoder
from embedcache.errors import InvalidInputError, MissingDependencyError

NAMES = [card.name for card in CARDS]
needs_package = pytest.mark.skipif(find_spec("multimolecule") is None, reason="multimolecule is not installed")


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "multimolecule", None)
    modality = "dna" if name.startswith(("hyena", "dnabert")) else "rna"
    if name != "dnabert-2":
        assert encoder_spec(name, modality, random_init=0).is_random  # the spec is that of the card
    for options in ({}, {"random_init": 0}):
        with pytest.raises(MissingDependencyError, match=r"multimolecule \(AGPL-3.0\).*`pip install multimolecule`"):
            load_encoder(name, modality, **options)  # type: ignore[arg-type]


@needs_package
@pytest.mark.plugins
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["rna-fm", "ernie-rna", "splicebert", "hyenadna-medium"])
def test_its_own_classes_with_drawn_weights_give_rows_of_bases(name: str) -> None:
    """As many rows as bases, the plain pass of the package, and nothing of the other sequences of a call."""
    import torch

    modality = "dna" if name.startswith("hyena") else "rna"
    encoder: Any = load_encoder(name, modality, random_init=1)
    sequences = ["ACGTTGCANACGT", "ACG", "ACGTTGCAAACGT"]
    together = encoder.encode(sequences)
    for sequence, rows in zip(sequences, together, strict=True):
        assert rows.shape == (len(sequence), encoder.spec.width) and np.array_equal(encoder.encode([sequence])[0], rows)
        ids = torch.from_numpy(encoder.files.spelling.ids(sequence))[None]
        with torch.no_grad():
            plain = encoder.model(input_ids=ids).last_hidden_state[0, 1:-1].numpy()
        assert np.abs(rows - plain).max() <= 1e-5 * np.abs(plain).max()
    assert np.abs(together[0] - together[2]).max() > 0.01
    spread = together[2].std(axis=0).mean() / together[2].std()
    assert spread > 0.05  # rows of other bases differ


@needs_package
@pytest.mark.plugins
@pytest.mark.filterwarnings("ignore")
def test_files_in_the_layout_of_the_package_load_strictly(tmp_path: Path) -> None:
    from multimolecule import RnaTokenizer, SpliceBertConfig, SpliceBertModel

    def save(path: Path, **changes: Any) -> Path:
        SpliceBertModel(SpliceBertConfig(**changes)).save_pretrained(path)
        RnaTokenizer().save_pretrained(path)
        return path

    published, other = save(tmp_path / "splicebert"), save(tmp_path / "other", num_hidden_layers=2)
    encoder = load_encoder("splicebert", "rna", weights=published)
    spec = encoder.spec
    assert (spec.name, spec.max_tokens, spec.is_random) == ("splicebert", 1024, False)
    assert spec.weights.startswith("blake2b:") and encoder.encode(["ACGT"])[0].shape == (4, 512)
    with pytest.raises(InvalidInputError, match="is not splicebert: layers is 2, expected 6"):
        encoder_spec("splicebert", "rna", weights=other)


@needs_package
@pytest.mark.plugins
@pytest.mark.filterwarnings("ignore")
def test_the_pieces_of_dnabert_2_give_their_rows_to_their_letters(tmp_path: Path) -> None:
    """Its own class at its own width, drawn weights, and byte pairs learned here: its vocabulary is not at hand."""
    import random

    import torch
    from multimolecule import DnaBert2Config, DnaBert2Model
    from tokenizers import Tokenizer, models, processors, trainers
    from transformers import PreTrainedTokenizerFast

    draw = random.Random(0)
    made: Any = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<pad>", "<unk>", "<cls>", "<eos>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special)
    made.train_from_iterator(["".join(draw.choices("ACGT", k=400)) for _ in range(50)], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<cls> $A <eos>", special_tokens=[("<cls>", 2), ("<eos>", 3)]
    )
    torch.manual_seed(0)
    DnaBert2Model(DnaBert2Config()).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", cls_token="<cls>", eos_token="<eos>"
    ).save_pretrained(tmp_path)
    encoder: Any = load_encoder("dnabert-2", "dna", weights=tmp_path)
    check_encoder(encoder)
    sequence = "".join(draw.choices("ACGT", k=90))
    (rows,) = encoder.encode([sequence])
    sizes = encoder.files.spelling.letters_of_pieces(sequence)
    assert rows.shape == (90, 768) and sizes.max() > 2
    with torch.no_grad():
        plain = encoder.model(input_ids=torch.from_numpy(encoder.files.spelling.ids(sequence))[None])
    wanted = np.repeat(plain.last_hidden_state[0, 1:-1].numpy(), sizes, axis=0)
    assert np.abs(rows - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert encoder.spec.spans(sequence).tolist() == [[i, i + 1] for i in range(90)]
