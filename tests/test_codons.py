"""The frame of codons, found from letters, and tokens in that frame."""

from itertools import product

import numpy as np
import pytest
from fakes import fake_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoders.codons import codon_frame
from embedcache.encoders.tokens import base_ids, count_tokens, crop_bounds, token_spans
from embedcache.errors import InvalidSettingError

same_every_time = settings(derandomize=True, deadline=None)


def frame(sequence: str) -> int:
    return codon_frame(np.frombuffer(sequence.encode(), np.uint8))


def plain_frame(sequence: str) -> int:
    """In words: per frame the longest run of triplets without a stop codon."""
    longest = []
    for start in range(3):
        best = run = 0
        for i in range(start, len(sequence) - 2, 3):
            run = 0 if sequence[i : i + 3] in ("TAA", "TAG", "TGA") else run + 1
            best = max(best, run)
        longest.append(best)
    return longest.index(max(longest))


@same_every_time
@given(st.text("ACGTN", max_size=200))
def test_the_frame_is_that_of_the_longest_stretch_without_stop(sequence: str) -> None:
    assert frame(sequence) == plain_frame(sequence)


@pytest.mark.parametrize("before", ["", "G", "GG", "TAGCTAA", "CTGACTGACTAA"])
def test_codons_of_a_coding_sequence_are_tokens(before: str) -> None:
    draw = np.random.default_rng(5)
    sense = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT" if a + b + c not in ("TAA", "TAG", "TGA")]
    codons = ["ATG", *draw.choice(sense, 80), "TAA"]
    sequence = before + "".join(codons)
    tokens = [sequence[a:b] for a, b in token_spans(sequence, "codon")]
    assert tokens[-82:] == codons
    assert len(tokens) == count_tokens(sequence, "codon") == len(base_ids(sequence, "codon", 4))
    # cropped inside the coding sequence it keeps its frame, where a start codon would be missed
    start, stop = crop_bounds(sequence, "codon", 30, "keep-3-prime")
    kept = sequence[start:stop]
    assert [kept[a:b] for a, b in token_spans(kept, "codon")][-28:] == codons[-28:]


def test_ids_are_of_codons_in_frame_and_of_single_bases() -> None:
    order = ["".join(three) for three in product("ATCG", repeat=3)]
    sequence = "TA" + "ATGGCC" * 3 + "TAG" + "AN"
    names = ["<unk>", "<pad>", "<mask>", "<cls>", *order, *"ATCGN"]
    assert [names[i] for i in base_ids(sequence, "codon", 4)] == [
        sequence[a:b] for a, b in token_spans(sequence, "codon")
    ]
    assert [names[i] for i in base_ids("ACN", "nt-3mer", 4)] == ["A", "C", "N"]


def test_a_window_has_no_frame() -> None:
    with pytest.raises(InvalidSettingError, match=r"frame of the whole RNA.*keep-3-prime"):
        fake_spec(modality="rna", tokens="codon", max_tokens=100, crop="windows")
