"""Encoders of the optional package multimolecule; most tests need it, and are skipped where it is missing."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoders.cards.multimolecule import CARDS
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.errors import InvalidInputError, MissingDependencyError

NAMES = [card.name for card in CARDS]
needs_package = pytest.mark.skipif(find_spec("multimolecule") is None, reason="multimolecule is not installed")


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "multimolecule", None)
    modality = "dna" if name.startswith("hyena") else "rna"
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
