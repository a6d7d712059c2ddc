"""How the tokenizer of a model cuts letters, found by trying."""

from pathlib import Path

import pytest
from hub_models import tokenizer_of_pieces
from transformers import (
    EsmTokenizer,
)

from embedcache.encoders.hub_tokens import find_spelling
from embedcache.encoders.tokens import NT_V2_SPECIAL, nt_ids, nt_vocabulary
from embedcache.errors import InvalidInputError, InvalidSequenceError


def test_the_tokenizer_of_nucleotide_transformers_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("\n".join(nt_vocabulary(NT_V2_SPECIAL)))
    spelling = find_spelling(EsmTokenizer(str(tmp_path / "words"), eos_token=None), "dna", "nt")
    assert (spelling.rule, spelling.before, spelling.after) == ("nt-6mer", (3,), ())
    for sequence in ("ACGTTACGGTAC", "ACGTTACG", "ACGTTACNNGGTACCA"):
        assert spelling.ids(sequence)[1:].tolist() == nt_ids(sequence).tolist()


def test_pieces_of_changing_length_are_laid_to_their_letters() -> None:
    found = find_spelling(tokenizer_of_pieces(["A", "C", "G", "T", "AA"]), "dna", "pairs")
    assert (found.rule, found.pieces, found.to_json()["pieces"]) == ("letter", True, True)
    assert found.letters_of_pieces("CAAAG").tolist() == [1, 2, 1, 1]
    assert found.ids("CAAAG").tolist() == [2, 5, 1, 3]
    single = find_spelling(tokenizer_of_pieces(["A", "C", "G", "T"]), "dna", "single")
    assert single.rule == "letter" and not single.pieces and "pieces" not in single.to_json()


def test_pieces_that_nobody_can_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of_pieces(["A", "C", "G", "T", "AA"])
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda _: False))
    with pytest.raises(InvalidInputError, match=r"writes [ACGT]{24} as .*nor pieces whose letters it tells.*Class"):
        find_spelling(tokenizer, "dna", "pairs")


def test_pieces_that_leave_letters_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_spelling(tokenizer_of_pieces(["A", "C", "G", "T", "AA"]), "dna", "pairs")
    monkeypatch.setattr("embedcache.encoders.hub_tokens._piece_sizes", lambda *_: None)
    with pytest.raises(InvalidSequenceError, match="do not cover its letters"):
        found.ids("ACGT")
