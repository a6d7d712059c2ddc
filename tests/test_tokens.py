"""Token rules, ids and crops against plain Python and against the tokenizers of transformers."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoders.tokens import (
    ESM_CLS,
    ESM_EOS,
    ESM_MASK,
    ESM_PAD,
    ESM_VOCABULARY,
    NT_CLS,
    NT_V1_SPECIAL,
    NT_V2_SPECIAL,
    Crop,
    count_tokens,
    crop_bounds,
    esm_ids,
    nt_ids,
    nt_vocabulary,
    token_spans,
)
from embedcache.errors import InvalidSequenceError, UnknownNameError

same_every_time = settings(derandomize=True, deadline=None)
RULES = ["letter", "nt-6mer", "nt-3mer", "codon", "bins-1", "bins-7"]
bases = st.one_of(st.text("ACGT", max_size=80), st.text("ACGTN", max_size=80), st.text("AN", max_size=40))


def cropped(sequence: str, rule: str, max_tokens: int, crop: Crop) -> str:
    start, stop = crop_bounds(sequence, rule, max_tokens, crop)
    return sequence[start:stop]


def plain_six_mers(sequence: str) -> list[str]:
    """The rule in its words: per run 6-mers from the left, the rest and each N as single letters."""
    tokens: list[str] = []
    while sequence:
        width = 6 if len(sequence) >= 6 and "N" not in sequence[:6] else 1
        tokens.append(sequence[:width])
        sequence = sequence[width:]
        if width == 1 and tokens[-1] != "N":  # the rest of a run has begun: single bases up to its end
            rest = sequence.split("N")[0]
            tokens.extend(rest)
            sequence = sequence[len(rest) :]
    return tokens


@same_every_time
@given(bases)
def test_six_mers_are_those_of_the_plain_rule(sequence: str) -> None:
    want = plain_six_mers(sequence)
    vocabulary = nt_vocabulary()
    assert [vocabulary[i] for i in nt_ids(sequence)] == want
    assert [sequence[a:b] for a, b in token_spans(sequence, "nt-6mer")] == want


@same_every_time
@given(bases, st.sampled_from(RULES))
def test_count_and_spans_agree_and_spans_cover_every_letter_once(sequence: str, rule: str) -> None:
    spans = token_spans(sequence, rule)
    assert spans.shape == (count_tokens(sequence, rule), 2)
    assert spans.dtype == np.int64
    assert "".join(sequence[a:b] for a, b in spans) == sequence
    assert all(left[1] == right[0] for left, right in pairwise(spans))


crops = st.sampled_from(["keep-3-prime", "keep-5-prime", "center"])


@same_every_time
@given(bases, st.sampled_from(RULES), st.integers(1, 15), crops)
def test_a_crop_is_the_longest_part_that_fits(sequence: str, rule: str, max_tokens: int, crop: Crop) -> None:
    size = len(sequence)

    def part(length: int) -> str:
        start = {"keep-3-prime": size - length, "keep-5-prime": 0, "center": size // 2 - length // 2}[crop]
        return sequence[start : start + length]

    want = next(part(n) for n in range(size, -1, -1) if count_tokens(part(n), rule) <= max_tokens)
    assert cropped(sequence, rule, max_tokens, crop) == want


def test_a_window_of_2048_six_mers_loses_one_and_stays_centred() -> None:
    window = "".join(random.Random(0).choices("ACGT", k=12_288))
    kept = cropped(window, "nt-6mer", 2047, "center")
    assert kept == window[3:-3]
    assert count_tokens(kept, "nt-6mer") == 2047


def test_one_base_less_may_be_more_tokens() -> None:
    assert count_tokens("A" * 12_282, "nt-6mer") == 2047
    assert count_tokens("A" * 12_281, "nt-6mer") == 2051
    assert len(cropped("A" * 12_281, "nt-6mer", 2047, "keep-3-prime")) == 12_277


def test_a_sequence_that_is_too_long_is_an_error_unless_a_crop_is_named() -> None:
    with pytest.raises(InvalidSequenceError, match=r"13 letters are 3 tokens, more than the 2 allowed"):
        cropped("A" * 13, "nt-6mer", 2, "error")


@pytest.mark.parametrize("rule", ["letters", "bins-0", "bins-", "6mer"])
def test_an_unknown_rule_lists_the_known_ones(rule: str) -> None:
    with pytest.raises(UnknownNameError, match="token rule"):
        count_tokens("ACGT", rule)


def test_ids_equal_the_tokenizers_of_transformers(tmp_path: Path) -> None:
    tokenizer_class = pytest.importorskip("transformers").EsmTokenizer

    def tokenizer(vocabulary: Sequence[str], **options: Any) -> Any:
        file = tmp_path / "vocab.txt"
        file.write_text("\n".join(vocabulary))
        return tokenizer_class(str(file), **options)

    esm = tokenizer(ESM_VOCABULARY)
    nt_v2 = tokenizer(nt_vocabulary(NT_V2_SPECIAL), eos_token=None)
    nt_v1 = tokenizer(nt_vocabulary(NT_V1_SPECIAL), eos_token=None)
    draw = random.Random(0)
    for _ in range(60):
        protein = "".join(draw.choices("LAGVSERTIDPKQNFYMHWCXBUZO", k=draw.randint(1, 200)))
        assert [ESM_CLS, *esm_ids(protein), ESM_EOS] == esm(protein)["input_ids"]
        dna = "".join(draw.choices(draw.choice(["ACGT", "ACGTACGTACGTN", "ACGTNNNNN"]), k=draw.randint(1, 200)))
        assert [NT_CLS, *nt_ids(dna)] == nt_v2(dna)["input_ids"]
        assert [NT_CLS, *nt_ids(dna, special=len(NT_V1_SPECIAL))] == nt_v1(dna)["input_ids"]


def test_vocabularies_have_the_published_sizes_and_every_letter_is_one_token() -> None:
    assert len(nt_vocabulary()) == 4107
    assert len(nt_vocabulary(NT_V1_SPECIAL)) == 4105
    assert (ESM_VOCABULARY[ESM_PAD], ESM_VOCABULARY[ESM_MASK], len(ESM_VOCABULARY)) == ("<pad>", "<mask>", 33)
    assert esm_ids("KJJV").tolist() == [15, 3, 3, 7]
