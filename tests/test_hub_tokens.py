"""How the tokenizer of a model cuts letters, found by trying."""

from pathlib import Path

import pytest
from hub_models import tokenizer_of_pieces
from transformers import (
    EsmTokenizer,
)

from embedcache.encoders.hub_tokens import find_spelling
from embedcache.encoders.tokens import NT_V2_SPECIAL, nt_ids, nt_vocabulary
from embedcache.errors import InvalidInputError


def test_the_tokenizer_of_nucleotide_transformers_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("\n".join(nt_vocabulary(NT_V2_SPECIAL)))
    spelling = find_spelling(EsmTokenizer(str(tmp_path / "words"), eos_token=None), "dna", "nt")
    assert (spelling.rule, spelling.before, spelling.after) == ("nt-6mer", (3,), ())
    for sequence in ("ACGTTACGGTAC", "ACGTTACG", "ACGTTACNNGGTACCA"):
        assert spelling.ids(sequence)[1:].tolist() == nt_ids(sequence).tolist()


def test_pieces_of_changing_length_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"writes [ACGT]{24} as .*not one token a letter.*module:Class"):
        find_spelling(tokenizer_of_pieces(["A", "C", "G", "T", "AA"]), "dna", "pairs")
    assert find_spelling(tokenizer_of_pieces(["A", "C", "G", "T"]), "dna", "single").rule == "letter"
