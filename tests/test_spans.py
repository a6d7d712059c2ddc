"""Which letters of the sequence each stored row covers: crops, windows, N runs, remainders, bins, pooled rows."""

import random

import numpy as np
import pytest
from fakes import FakeEncoder, fake_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoders.pooling import pool_rows
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import nt_ids, nt_vocabulary, token_spans
from embedcache.errors import InvalidSequenceError

same_every_time = settings(derandomize=True, deadline=None)
bases = st.one_of(st.text("ACGT", max_size=90), st.text("ACGTN", max_size=90), st.text("AN", max_size=50))
rules = st.sampled_from(["letter", "nt-6mer", "nt-3mer", "codon", "bins-1", "bins-7"])
crops = st.sampled_from(["keep-3-prime", "keep-5-prime", "center", "windows"])


def spec(rule: str, max_tokens: int = 0, crop: str = "error", pooling: str = "none") -> EncoderSpec:
    if rule == "codon" and crop == "windows":  # the one pair that is refused
        crop = "keep-5-prime"
    return fake_spec(modality="dna", tokens=rule, max_tokens=max_tokens, crop=crop, pooling=pooling)


@same_every_time
@given(bases, rules, st.integers(1, 20), crops)
def test_spans_cover_what_the_crop_keeps_once_and_in_order(sequence: str, rule: str, most: int, crop: str) -> None:
    found = spec(rule, most, crop)
    spans = found.spans(sequence)
    assert spans.dtype == np.int64 and spans.shape == (found.n_rows(sequence), 2) == (found.n_tokens(sequence), 2)
    assert np.array_equal(spans[1:, 0], spans[:-1, 1])
    assert (spans[:, 0] < spans[:, 1]).all()
    kept = found.cropped(sequence)
    assert "".join(sequence[a:b] for a, b in spans) == kept
    if kept:  # the place in the original, not only the same letters
        start = {"keep-5-prime": 0, "keep-3-prime": len(sequence) - len(kept), "windows": 0}.get(crop, spans[0, 0])
        assert (spans[0, 0], spans[-1, 1]) == (start, start + len(kept))
    if kept and crop == "center" and kept != sequence:
        assert spans[0, 0] == len(sequence) // 2 - len(kept) // 2


@same_every_time
@given(bases, rules, st.integers(1, 20), crops, st.sampled_from(["mean", "adaptive-1", "adaptive-4", "adaptive-13"]))
def test_a_pooled_row_covers_the_letters_of_its_tokens(
    sequence: str, rule: str, most: int, crop: str, pooling: str
) -> None:
    tokens, found = spec(rule, most, crop).spans(sequence), spec(rule, most, crop, pooling)
    spans = found.spans(sequence)
    assert spans.shape == (found.n_rows(sequence), 2)
    # rows that mark their token show which tokens a pooled row is the mean of
    pooled = pool_rows(np.eye(len(tokens), dtype=np.float32), pooling)
    for row, (start, stop) in zip(pooled, spans, strict=True):
        used = np.flatnonzero(row)
        assert (start, stop) == (tokens[used[0], 0], tokens[used[-1], 1])
    if len(spans):
        assert (spans[0, 0], spans[-1, 1]) == (tokens[0, 0], tokens[-1, 1])
        assert (spans[1:, 0] <= spans[:-1, 1]).all()  # without a gap


@pytest.mark.parametrize(
    ("sequence", "changes", "want"),
    [
        ("ACGTACNNAC", {}, [(0, 6), (6, 7), (7, 8), (8, 9), (9, 10)]),
        ("NACGTACG", {}, [(0, 1), (1, 7), (7, 8)]),
        ("ACGTACGTACGTAC", {"max_tokens": 2, "crop": "keep-3-prime"}, [(2, 8), (8, 14)]),
        ("ACGTACGTACGTAC", {"max_tokens": 2, "crop": "keep-5-prime"}, [(0, 6), (6, 12)]),
        ("ACGTACGTACGTAC", {"max_tokens": 2, "crop": "center"}, [(1, 7), (7, 13)]),
        ("ACGTACGTACGTAC", {"max_tokens": 2, "crop": "windows"}, [(0, 6), (6, 12), (12, 13), (13, 14)]),
        ("ACGTACGTACGTAC", {"pooling": "mean"}, [(0, 14)]),
        ("ACGTACGTACGTACG", {"pooling": "adaptive-2"}, [(0, 13), (12, 15)]),  # 5 tokens: 0-2, 2-4
        ("ACGTACGTAC", {"tokens": "bins-4"}, [(0, 4), (4, 8), (8, 10)]),
        ("ACGTACGTAC", {"tokens": "bins-4", "max_tokens": 2, "crop": "center"}, [(1, 5), (5, 9)]),
        ("MKVL", {"tokens": "letter", "max_tokens": 2, "crop": "center"}, [(1, 2), (2, 3)]),
        ("", {}, []),
        ("", {"pooling": "mean"}, []),
    ],
)
def test_examples(sequence: str, changes: dict[str, object], want: list[tuple[int, int]]) -> None:
    found = fake_spec(**{"tokens": "nt-6mer", **changes})
    assert list(map(tuple, found.spans(sequence).tolist())) == want


def test_spans_name_the_letters_of_the_tokens_that_the_model_reads() -> None:
    draw = random.Random(0)
    sequence = "".join(draw.choices([*"ACGT" * 20, "N"], k=20_000))
    found = spec("nt-6mer", 2047, "keep-3-prime")
    vocabulary = nt_vocabulary()
    read = [vocabulary[i] for i in nt_ids(found.cropped(sequence))]
    assert [sequence[a:b] for a, b in found.spans(sequence)] == read
    assert not np.array_equal(found.spans(sequence), token_spans(sequence, "nt-6mer")[-len(read) :])  # its own frame


def test_a_row_of_a_crop_is_the_row_of_its_letters() -> None:
    encoder = FakeEncoder(max_tokens=5, crop="center")
    sequence = "MKVLAAGISTW"
    (rows,) = encoder.encode([encoder.spec.cropped(sequence)])
    spans = encoder.spec.spans(sequence)
    assert len(rows) == len(spans)
    assert "".join(sequence[a:b] for a, b in spans) == "LAAGI"


def test_a_sequence_over_the_limit_has_no_spans_under_the_rule_error() -> None:
    with pytest.raises(InvalidSequenceError, match="7 letters are 7 tokens, fake takes 5"):
        fake_spec(max_tokens=5).spans("MKVLAAG")
