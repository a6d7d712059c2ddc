"""Windows: the plan over tokens, letters that keep their tokens, and stitched rows against plain passes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_encoders import FAMILIES, PROTEIN
from test_enformer import SMALL

from embedcache.encoders import registry
from embedcache.encoders.cards import CARDS
from embedcache.encoders.layers import Done
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import encoder_spec, load_encoder, load_layers
from embedcache.encoders.tokens import count_tokens, nt_ids, token_spans
from embedcache.encoders.windows import WindowedEncoder, plan_windows, window_letters
from embedcache.errors import EmbedCacheError, InvalidSettingError, UnknownNameError

same_every_time = settings(derandomize=True, deadline=None)
sizes = st.integers(1, 25).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@same_every_time
@given(st.integers(0, 160), sizes)
def test_windows_are_full_sized_overlap_enough_and_keep_every_token_once(n_tokens: int, sized: tuple[int, int]) -> None:
    size, overlap = sized
    windows = plan_windows(n_tokens, size, overlap)
    assert windows[0].start == windows[0].first == 0
    assert windows[-1].stop == windows[-1].last == n_tokens
    assert all(0 <= w.start <= w.first <= w.last <= w.stop for w in windows)
    assert len(windows) == 1 or {w.stop - w.start for w in windows} == {size}
    for left, right in pairwise(windows):
        assert left.start < right.start and left.stop < right.stop
        assert left.stop - right.start >= overlap
        assert left.last == right.first and left.first < left.last and right.first < right.last
    if len(windows) > 2:  # none that the others make needless
        assert windows[-3].stop - windows[-2].start == overlap and windows[-2].stop < n_tokens


@same_every_time
@given(st.integers(1, 160), sizes)
def test_each_token_is_kept_where_it_is_farthest_from_an_inner_edge(n_tokens: int, sized: tuple[int, int]) -> None:
    windows = plan_windows(n_tokens, *sized)

    def distance(window: int, token: int) -> float:
        start, stop, _, _ = windows[window]
        if not start <= token < stop:
            return -1.0
        left = token - start if start > 0 else float("inf")
        return min(left, stop - 1 - token if stop < n_tokens else float("inf"))

    for token in range(n_tokens):
        want = max(range(len(windows)), key=lambda i: (distance(i, token), -i))  # ties to the earlier one
        assert [i for i, w in enumerate(windows) if w.first <= token < w.last] == [want]


bases = st.one_of(st.text("ACGT", max_size=200), st.text("ACGTN", max_size=120), st.text("AAAAAAAN", max_size=150))


@same_every_time
@given(bases, st.sampled_from(["letter", "nt-6mer", "bins-7"]), sizes)
def test_letters_of_a_window_have_its_tokens_again(sequence: str, rule: str, sized: tuple[int, int]) -> None:
    windows = plan_windows(count_tokens(sequence, rule), *sized)
    spans = token_spans(sequence, rule)
    for window, letters in zip(windows, window_letters(sequence, rule, windows), strict=True):
        part = spans[window.start : window.stop]
        assert np.array_equal(token_spans(letters, rule), part - part[:1, :1].sum())
        if rule == "nt-6mer":
            assert np.array_equal(nt_ids(letters), nt_ids(sequence)[window.start : window.stop])
        if rule == "bins-7":
            assert sequence[window.start * 7 :].startswith(letters)


def stitched_by_hand(
    sequence: str, rule: str, size: int, overlap: int, embed: Callable[[str], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Token after token: the row of the window whose inner edges are farthest, windows laid out in plain steps."""
    spans, n_tokens = token_spans(sequence, rule), count_tokens(sequence, rule)
    starts, start = [0], 0
    while start + size < n_tokens:
        start = min(start + size - overlap, n_tokens - size)
        starts.append(start)
    parts = [(s, embed(sequence[spans[s][0] : spans[min(s + size, n_tokens) - 1][1]])) for s in starts]
    rows = []
    for token in range(n_tokens):
        best, row = -1, None
        for start, part in parts:
            if start <= token < start + len(part):
                left = token - start if start else n_tokens
                right = start + len(part) - 1 - token if start + len(part) < n_tokens else n_tokens
                if min(left, right) > best:
                    best, row = min(left, right), part[token - start]
        assert row is not None
        rows.append(row)
    return np.stack(rows)


def draw(letters: Sequence[str], length: int) -> str:
    return "".join(random.Random(length).choices(letters, k=length))


WITH_N = [*"ACGT" * 8, "N"]


@pytest.mark.parametrize("overlap", [0, 13, 59])
@pytest.mark.parametrize("name", ["test-esm2", "test-nt-v2", "test-nt-v1"])
def test_stitched_rows_are_those_of_the_windows_alone(name: str, overlap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | FAMILIES)
    modality: Any = "protein" if "esm" in name else "rna"
    encoder = load_encoder(name, modality, random_init=1, crop="windows", max_tokens=60, overlap=overlap)
    assert isinstance(encoder, WindowedEncoder) and isinstance(encoder.encoder, PackedEncoder)
    inner, rule = encoder.encoder, encoder.spec.tokens
    encoder.tokens_per_call = 200  # several calls
    lengths = (5, 60, 61, 150, 401) if modality == "protein" else (5, 360, 365, 366, 900, 1501)
    sequences = [draw(PROTEIN if modality == "protein" else WITH_N, n) for n in lengths]
    for sequence, rows in zip(sequences, encoder.encode(sequences), strict=True):
        want = stitched_by_hand(sequence, rule, 60, overlap, lambda letters: inner.encode([letters])[0])
        assert rows.dtype == np.float32 and rows.shape == (encoder.spec.n_tokens(sequence), 96)
        assert np.array_equal(rows, want)


def test_bins_of_enformer_are_stitched_from_windows_that_begin_on_their_borders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | {"enformer": SMALL})
    encoder = load_encoder("enformer", "dna", random_init=0, crop="windows", max_tokens=8)
    plain = load_encoder("enformer", "dna", random_init=0)
    assert encoder.spec.overlap == 2
    sequences = [draw(WITH_N, n) for n in (100, 1024, 1025, 3000)]
    for sequence, rows in zip(sequences, encoder.encode(sequences), strict=True):
        want = stitched_by_hand(sequence, "bins-128", 8, 2, lambda letters: plain.encode([letters])[0])
        assert np.array_equal(rows, want)


def test_what_fits_one_window_is_embedded_as_without_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | FAMILIES)
    windows = load_encoder("test-nt-v2", "rna", random_init=1, crop="windows", max_tokens=134)
    plain = load_encoder("test-nt-v2", "rna", random_init=1)
    sequences = [draw(WITH_N, n) for n in (1, 20, 20, 300, 594)]
    assert max(windows.spec.n_tokens(sequence) for sequence in sequences) == 134
    for one, other in zip(windows.encode(sequences), plain.encode(sequences), strict=True):
        assert np.array_equal(one, other)
    assert windows.encode([]) == []


def test_layers_are_stitched_alike_and_from_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | FAMILIES)
    options: Any = {"random_init": 1, "crop": "windows", "max_tokens": 30}
    sequences = [draw(PROTEIN, n) for n in (70, 12, 31)]
    found = load_layers("test-esm2", "protein", [1, -1], **options).encode_layers(sequences, [1, -1])
    for layer in (1, -1):
        want = load_encoder("test-esm2", "protein", layer=layer, **options).encode(sequences)
        assert all(np.array_equal(one, other) for one, other in zip(found[layer], want, strict=True))


def test_a_call_keeps_its_budget_and_a_plug_in_with_encode_alone_will_do() -> None:
    inner = FakeEncoder(crop="windows", max_tokens=10, overlap=4)
    encoder = WindowedEncoder(inner)
    encoder.tokens_per_call = 25
    sequences = ["M" * 3, "MKVLAAGIST" * 7, "", "MK" * 5]
    rows = encoder.encode(sequences)
    assert [len(one) for one in rows] == [3, 70, 0, 10]
    assert max(inner.batches) <= 25 and sum(inner.batches) == 3 + 11 * 10 + 10
    assert np.array_equal(rows[1], stitched_by_hand(sequences[1], "letter", 10, 4, inner.rows))


def test_a_plug_in_that_cuts_windows_is_refused() -> None:
    class Cutting(FakeEncoder):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            return [rows[1:] for rows in super().encode(sequences)]

    with pytest.raises(EmbedCacheError, match=r"rows \(9, 12\) for a window of 10 tokens, expected \(10, 12\)"):
        WindowedEncoder(Cutting(crop="windows", max_tokens=10)).encode(["M" * 30])


def test_settings_of_windows_and_pooling_are_checked_and_part_of_the_spec() -> None:
    def spec(name: str = "nt-v2-50m", **options: Any) -> Any:
        modality: Any = "protein" if "esm" in name else "rna"
        return encoder_spec(name, modality, random_init=0, **options)

    found = spec(crop="windows", pooling="adaptive-64")
    assert (found.crop, found.max_tokens, found.overlap, found.pooling) == ("windows", 2047, 511, "adaptive-64")
    assert spec(crop="windows", max_tokens=100, overlap=0).overlap == 0
    assert len({spec(crop="windows", overlap=n).digest for n in (None, 0, 1, 2046)}) == 4
    assert spec() == spec(pooling="none", overlap=None)
    assert spec(overlap=0) == spec()
    with pytest.raises(InvalidSettingError, match=r"Encoder esm2-8m-random0 has no limit of tokens.*--max-tokens"):
        spec("esm2-8m", crop="windows")
    with pytest.raises(InvalidSettingError, match=r"Windows of 2047 tokens cannot overlap by 2047\. Give .* 0 to 2046"):
        spec(crop="windows", overlap=2047)
    with pytest.raises(InvalidSettingError, match="An overlap of 5 tokens needs windows, but the crop is keep-3-prime"):
        spec(overlap=5)
    for pooling in ("adaptive-0", "max"):
        with pytest.raises(InvalidSettingError, match=f"Pooling '{pooling}' is not known"):
            spec(pooling=pooling)
    with pytest.raises(UnknownNameError, match=r"Unknown crop 'window'\. Did you mean 'windows'"):
        spec(crop="window")


def test_windows_of_one_token_and_of_every_offset_work() -> None:
    assert [w.start for w in plan_windows(4, 1, 0)] == [0, 1, 2, 3]
    assert [w.start for w in plan_windows(5, 3, 2)] == [0, 1, 2]
    assert plan_windows(0, 3, 1) == [(0, 0, 0, 0)]
    assert replace(FakeEncoder().spec, max_tokens=1, crop="windows").overlap == 0


@pytest.mark.parametrize("begins", [False, True], ids=["at once", "beside"])
def test_windows_that_do_not_fit_the_memory_are_halved_and_none_is_lost(begins: bool) -> None:
    class Limited(FakeEncoder):
        def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
            if sum(map(len, sequences)) > 25:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(sequences)

    class Beginning(Limited):
        def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Any:
            return {layer: self.encode(sequences) for layer in layers}

        def start(self, sequences: Sequence[str]) -> Any:
            raise AssertionError("windows ask for layers")

        def start_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Any:
            return Done(self.encode_layers(sequences, layers))

    inner = (Beginning if begins else Limited)(crop="windows", max_tokens=10, overlap=4)
    encoder = WindowedEncoder(inner)
    encoder.tokens_per_call = 80
    sequences = ["MKVLAAGIST" * 9, "MKV", "LAGVSERT" * 7]
    for sequence, rows in zip(sequences, encoder.encode(sequences), strict=True):
        want = stitched_by_hand(sequence, "letter", 10, 4, inner.rows) if len(sequence) > 10 else inner.rows(sequence)
        assert np.array_equal(rows, want)
    assert 10 <= encoder.tokens_per_call <= 25 and max(inner.batches) == 20


def test_the_next_windows_begin_before_the_last_ones_are_stitched() -> None:
    events: list[str] = []

    class Beside(FakeEncoder):
        def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Any:
            raise AssertionError("what can begin is begun")

        def start(self, sequences: Sequence[str]) -> Any:
            raise AssertionError("windows ask for layers")

        def start_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Any:
            events.append("begin")
            encoder = self

            class Coming:
                def result(self) -> dict[int, list[NDArray[np.float32]]]:
                    events.append("end")
                    return {layer: [encoder.rows(one) for one in sequences] for layer in layers}

            return Coming()

    encoder = WindowedEncoder(Beside(crop="windows", max_tokens=10, overlap=0))
    encoder.tokens_per_call = 10
    coming = encoder.start(["MKVLAAGIST" * 3])
    assert events == ["begin"]
    (rows,) = coming.result()
    assert events == ["begin", "begin", "end", "begin", "end", "end"] and len(rows) == 30
