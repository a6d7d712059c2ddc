"""Choices about an encoder and the spec that follows from them; what an encoder may raise, in words."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_spec
from hypothesis import given
from hypothesis import strategies as st

from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.codons import codon_frame
from embedcache.encoders.failures import DeviceLostError, describe, raise_if_lost
from embedcache.encoders.kmers import base_codes, count_between, kmer_ids, kmer_names, kmer_starts
from embedcache.encoders.layers import check_layers
from embedcache.encoders.memory import is_out_of_memory
from embedcache.encoders.options import card_spec
from embedcache.encoders.registry import layer_specs
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import count_tokens, kept_bins, token_spans
from embedcache.errors import CacheError, EmbedCacheError, InvalidSettingError, UnknownNameError

# Settings that do not go together


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": -1}, "A limit of -1 tokens is negative. Give 0 for no limit, or more."),
        ({"crop": "windows"}, "Encoder fake has no limit of tokens, so windows have no size. Give one (--max-tokens)."),
        (
            {"crop": "windows", "max_tokens": 9, "tokens": "codon"},
            "Encoder fake reads codons in the frame of the whole",
        ),
        ({"crop": "windows", "max_tokens": 9, "tokens": "bins-4-center-2"}, "keeps the centre of a sequence (bins-4-"),
        ({"crop": "windows", "max_tokens": 9, "overlap": 9}, "cannot overlap by 9. Give an overlap of 0 to 8."),
        ({"crop": "windows", "max_tokens": 9, "overlap": -1}, "cannot overlap by -1. Give an overlap of 0 to 8."),
        ({"crop": "center", "max_tokens": 9, "overlap": 1}, "An overlap of 1 tokens needs windows, but the crop is"),
        ({"special_tokens": "kept-1-1", "pooling": "mean"}, "cannot be kept with pooling mean and crop error"),
        (
            {"special_tokens": "kept-1-0", "crop": "windows", "max_tokens": 9},
            "cannot be kept with pooling none and crop",
        ),
        ({"source_dtype": "float8"}, "Source dtype 'float8' is not known. Leave it empty, or give one of: float16,"),
        ({"pooling": "adaptive-0"}, "Pooling 'adaptive-0' is not known"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError) as error:
        fake_spec(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "windows", "max_tokens": 1},
        {"crop": "windows", "max_tokens": 9, "overlap": 8, "tokens": "nt-6mer"},
        {"crop": "windows", "max_tokens": 9, "tokens": "bins-4"},
        {"special_tokens": "kept-1-1", "crop": "center", "max_tokens": 9},
        {"source_dtype": "float16", "store_dtype": "int8"},
    ],
    ids=["one-token", "most-overlap", "bins", "special", "converted"],
)
def test_settings_that_go_together_are_taken_and_come_back(changes: dict[str, Any]) -> None:
    spec = fake_spec(**changes)
    assert EncoderSpec.from_json(spec.to_json()) == spec
    assert spec.differing(spec) == [] and spec.differing(fake_spec()) == sorted(changes)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"weights": "blake2b:1", "model_id": "a/b"}, ""),
        ({"weights": "seed:1", "model_id": "a/b"}, "random"),
        ({"weights": "blake2b:1", "model_id": "random"}, "random"),
        ({"weights": "blake2b:1", "model_id": "a/b", "adapter": "mini/1"}, "small"),
        ({"weights": "blake2b:1", "model_id": "a/b", "adapter": "tuned/mini/1"}, "small tuned"),
        ({"weights": "claimed:x", "model_id": "a/b", "adapter": "imported/h5ad"}, "imported"),
    ],
    ids=["published", "seed", "model", "small", "tuned", "imported"],
)
def test_a_spec_says_what_must_stand_beside_results(changes: dict[str, Any], flags: str) -> None:
    spec = fake_spec(**changes)
    found = {name for name in ("random", "small", "tuned", "imported") if getattr(spec, f"is_{name}")}
    assert found == set(flags.split())


@pytest.mark.parametrize(("kept", "rows"), [("dropped", (0, 0)), ("kept-1-0", (1, 0)), ("kept-0-1", (0, 1))])
def test_special_tokens_have_rows_that_cover_no_letter(kept: str, rows: tuple[int, int]) -> None:
    spec = fake_spec(special_tokens=kept, crop="keep-3-prime", max_tokens=3)
    assert spec.kept_special == rows and spec.n_rows("ABCDE") == 3 + sum(rows)
    spans = spec.spans("ABCDE").tolist()
    assert spans == [[2, 2]] * rows[0] + [[2, 3], [3, 4], [4, 5]] + [[5, 5]] * rows[1]


# Choices

CARD = EncoderCard(
    name="mine", modalities=("dna", "rna"), adapter="mine/1", loader="x:y", width=8, layers=4, tokens="letter",
    repository="a/mine", revision="c0ffee", max_tokens=100, crops={"rna": "keep-3-prime"}, special=(1, 1),
    licence="none",
)  # fmt: skip


@pytest.mark.parametrize(
    ("modality", "options", "expected"),
    [
        ("dna", {}, {"crop": "error", "max_tokens": 100, "weights": "", "model_id": "a/mine", "name": "mine"}),
        ("rna", {}, {"crop": "keep-3-prime", "overlap": 0, "special_tokens": "dropped", "layer": -1, "revision": ""}),
        ("rna", {"crop": "error"}, {"crop": "error"}),
        ("rna", {"crop": "windows"}, {"crop": "windows", "overlap": 25}),
        ("rna", {"crop": "windows", "max_tokens": 10}, {"overlap": 2, "max_tokens": 10}),
        ("rna", {"crop": "windows", "overlap": 0}, {"overlap": 0}),
        ("rna", {"crop": "windows", "overlap": 7}, {"overlap": 7}),
        ("rna", {"max_tokens": 1}, {"max_tokens": 1}),
        ("rna", {"random_init": 3}, {"name": "mine-random3", "weights": "seed:3", "model_id": "random"}),
        ("rna", {"keep_special": True}, {"special_tokens": "kept-1-1"}),
        ("rna", {"pooling": "mean", "layer": 2}, {"pooling": "mean", "layer": 2}),
        ("rna", {"dtype": "bfloat16", "store_dtype": "int8"}, {"compute_dtype": "bfloat16", "store_dtype": "int8"}),
    ],
)
def test_choices_become_the_spec(modality: Any, options: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = card_spec(CARD, modality, **options)
    assert {name: getattr(spec, name) for name in expected} == expected


def test_without_a_limit_no_rule_makes_another_store() -> None:
    free = replace(CARD, max_tokens=0)
    assert card_spec(free, "rna", crop="center") == card_spec(free, "rna") == card_spec(free, "rna", max_tokens=0)
    assert card_spec(free, "rna", max_tokens=7).crop == "keep-3-prime"
    drawn = replace(CARD, weights="seed:0")
    assert card_spec(drawn, "rna", random_init=0).name == "mine" and card_spec(drawn, "rna").weights == "seed:0"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"max_tokens": 0}, "Encoder mine cannot take 0 tokens. Give 1 to 100."),
        ({}, {"max_tokens": 101}, "Encoder mine cannot take 101 tokens. Give 1 to 100."),
        ({"max_tokens": 0}, {"max_tokens": -1}, "Encoder mine cannot take -1 tokens. Give 0 (no limit) or more."),
        ({"max_tokens": 0}, {"crop": "windows"}, "Encoder mine has no limit of tokens, so windows have no size."),
        ({}, {"overlap": 7}, "An overlap of 7 tokens needs windows, but the crop is keep-3-prime."),
        ({"special": (0, 0)}, {"keep_special": True}, "Encoder mine has no special tokens whose rows could be kept."),
        ({}, {"random_init": 0, "weights": Path("w")}, "with random weights takes no files, but w is given."),
        ({"weights": "seed:0"}, {"weights": Path("w")}, "with random weights takes no files, but w is given."),
        ({}, {"trust_remote_code": True}, "Encoder mine has no remote code. Leave out --trust-remote-code."),
        ({}, {"revision": "abc", "random_init": 1}, "Revision abc is of a/mine, which is not read where weights are"),
        ({}, {"revision": "abc", "weights": Path("w")}, "Revision abc is of a/mine"),
        ({"weights": "seed:0", "repository": ""}, {"revision": "abc"}, "Revision abc is of no repository"),
    ],
)
def test_choices_that_an_encoder_does_not_allow(changes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError) as error:
        card_spec(replace(CARD, **changes), "rna", **options)
    assert message in str(error.value)


@pytest.mark.parametrize("option", ["dtype", "store_dtype", "crop"])
def test_an_unknown_choice_lists_what_there_is(option: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown {option} 'odd'. Choose from: "):
        card_spec(CARD, "rna", **{option: "odd"})


@pytest.mark.parametrize(
    ("layer", "asked", "is_there"),
    [(-1, [-1], True), (-1, [1, 3, -1], True), (-1, [4], False), (-1, [0], False), (3, [3, 2, 1], True),
     (3, [4], False), (3, [-1], False), (1, [1], True)],
)  # fmt: skip
def test_layers_lie_before_the_last_that_was_loaded(layer: int, asked: list[int], is_there: bool) -> None:
    spec = fake_spec(layer=layer, architecture={"layers": 4})
    if is_there:
        check_layers(spec, asked)
    else:
        with pytest.raises(InvalidSettingError, match=f"Encoder fake, as it was loaded, gives no layer {asked[-1]}"):
            check_layers(spec, asked)
    with pytest.raises(InvalidSettingError, match=rf"gives no layer 2\. Ask for {layer} only"):
        check_layers(spec, [layer, 2], any_layer=False)


def test_a_layer_has_one_number_in_a_spec() -> None:
    spec = fake_spec(architecture={"layers": 6})
    found = layer_specs("esm2-8m", spec, [-6, 1, -2, 5, 6, -1])
    assert [one.layer for one in found] == [1, 5, -1]
    for wrong in (0, 7, -7):
        with pytest.raises(InvalidSettingError, match=f"has no layer {wrong}. Give 1 to 6, or -1 for the last"):
            layer_specs("esm2-8m", spec, [wrong])


# Tokens of bases


def plain_kmers(sequence: str, k: int) -> list[str]:
    found = []
    for run in sequence.replace("N", " N ").split():
        cut = len(run) // k * k if run != "N" else 0
        found += [run[i : i + k] for i in range(0, cut, k)] + list(run[cut:])
    return found


@given(st.text("ACGTN", max_size=40), st.integers(1, 6), st.data())
def test_kmers_are_those_of_cutting_by_hand(sequence: str, k: int, data: st.DataObject) -> None:
    codes = base_codes(np.frombuffer(sequence.encode(), np.uint8))
    expected = plain_kmers(sequence, k)
    starts, is_kmer = kmer_starts(codes, k)
    sizes = [k if one else 1 for one in is_kmer]
    assert [sequence[a : a + n] for a, n in zip(starts, sizes, strict=True)] == expected
    order = {name: i for i, name in enumerate([*kmer_names(k), *"ATCGN"])} if k > 1 else None
    if order is not None:
        assert kmer_ids(codes, k, special=7).tolist() == [7 + order[one] for one in expected]
    assert count_tokens(sequence, f"nt-{k}mer") == len(expected) == len(token_spans(sequence, f"nt-{k}mer"))
    cuts = np.array(sorted(data.draw(st.lists(st.integers(0, len(sequence)), min_size=2, max_size=2))))
    counted = count_between(codes, cuts[:1], cuts[1:], k)
    assert counted.tolist() == [len(plain_kmers(sequence[cuts[0] : cuts[1]], k))]


@given(st.text("ACGTN", min_size=2, max_size=60))
def test_a_frame_is_the_first_with_the_longest_open_stretch(sequence: str) -> None:
    def open_codons(frame: int) -> int:
        codons = [sequence[i : i + 3] for i in range(frame, len(sequence) - 2, 3)]
        runs = "".join("*" if codon in ("TAA", "TAG", "TGA") else "o" for codon in codons).split("*")
        return max(map(len, runs))

    longest = [open_codons(frame) for frame in range(3)]
    assert codon_frame(np.frombuffer(sequence.encode(), np.uint8)) == longest.index(max(longest))


@pytest.mark.parametrize(
    ("n_bins", "rule", "kept"),
    [
        (7, "bins-4", (0, 7)),
        (7, "bins-4-center-3", (2, 5)),
        (8, "bins-4-center-3", (3, 6)),
        (7, "bins-4-center-7", (0, 7)),
        (6, "bins-4-center-7", (0, 6)),
        (8, "bins-4-center-2", (3, 5)),
        (0, "bins-4-center-2", (0, 0)),
    ],
)
def test_bins_are_kept_around_the_middle_one(n_bins: int, rule: str, kept: tuple[int, int]) -> None:
    assert kept_bins(n_bins, rule) == kept


# Failures


def test_an_error_is_told_with_its_place_unless_it_is_ours() -> None:
    def fail(error: Exception) -> str:
        try:
            raise error
        except type(error) as caught:
            return describe(caught)

    assert fail(CacheError("two  words")) == "two words"
    assert fail(ValueError("a\n b")).startswith("ValueError: a b (fail, line ")
    assert fail(KeyError()).startswith("KeyError (fail, line ")
    assert describe(RuntimeError("never raised")) == "RuntimeError: never raised"
    assert len(describe(EmbedCacheError("x" * 900))) == 500


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("CUDA error: an illegal memory access"), False),
        (ValueError("not enough memory"), False),
    ],
    ids=["cuda", "python", "host", "pinned", "windows", "illegal", "value"],
)
def test_memory_that_ran_out_is_known_by_its_signs(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
    if is_memory:
        raise_if_lost(error)


def test_a_gpu_that_failed_is_lost_and_other_errors_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_if_lost(ValueError("CUDA error: of a value"))
    raise_if_lost(RuntimeError("shapes do not match"))
    with pytest.raises(
        DeviceLostError, match=r"cannot use it any more \(RuntimeError: CUDA error: illegal\)\. What was"
    ):
        raise_if_lost(RuntimeError("CUDA error: illegal"))
    lost = type("Lost", (Exception,), {})
    monkeypatch.setattr("embedcache.encoders.failures.torch", SimpleNamespace(AcceleratorError=lost))
    with pytest.raises(DeviceLostError):
        raise_if_lost(lost("gone"))
