"""The self-test of an encoder: good ones pass, each kind of broken one is refused in one line, nothing is written."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fakes import FakeEncoder, random_records
from numpy.typing import NDArray
from test_encoders import FAMILIES
from test_enformer import SMALL

from embedcache.build import build_cache
from embedcache.encoders import registry, selftest
from embedcache.encoders.cards import CARDS
from embedcache.encoders.failures import DeviceLostError
from embedcache.encoders.registry import load_encoder, load_layers, register_encoder
from embedcache.encoders.selftest import check_encoder, make_cases
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import EmbedCacheError, InvalidSequenceError
from embedcache.job import BuildJob, run_job
from embedcache.prepare.fasta import prepare_fasta

Rows = NDArray[np.float32]
DRAW = np.random.default_rng(0)
SAME_ROW = "all 12 tokens of an ordinary sequence have the same row"


class Calls:
    """Hands sequences on, and counts calls and tokens."""

    def __init__(self, encoder: Encoder) -> None:
        self.spec, self.encoder = encoder.spec, encoder
        self.tokens: list[int] = []

    def encode(self, sequences: Sequence[str]) -> list[Rows]:
        self.tokens.append(sum(map(self.spec.n_tokens, sequences)))
        return self.encoder.encode(sequences)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["test-esm2", "test-nt-v2", "test-nt-v1", "enformer"])
def test_our_families_pass_in_every_precision(name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | FAMILIES | {"enformer": SMALL})
    modality: Any = {"test-esm2": "protein", "enformer": "dna"}.get(name, "rna")
    calls = Calls(load_encoder(name, modality, random_init=1, dtype=dtype))
    check_encoder(calls)
    assert len(calls.tokens) <= 5 and sum(calls.tokens) <= 400


def test_layers_and_windows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | FAMILIES)
    options: Any = {"random_init": 1, "crop": "windows", "max_tokens": 9}
    encoder = load_layers("test-esm2", "protein", [1, -1], **options)
    assert isinstance(encoder, WindowedEncoder)
    check_encoder(encoder, [1, -1])
    assert max(encoder.spec.n_tokens(case.sequence) for case in make_cases(encoder.spec)) == 19  # three windows


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "single"},
        *({"max_tokens": n} for n in (1, 2, 3, 5, 11)),
        {"max_tokens": 3, "crop": "windows"},
        {"tokens": "nt-6mer", "modality": "rna"},
        {"tokens": "nt-6mer", "modality": "rna", "max_tokens": 7, "crop": "center"},
        {"tokens": "bins-128", "modality": "dna"},
        {"tokens": "bins-128-center-2", "modality": "dna"},
        {"tokens": "codon", "modality": "rna"},
        {"tokens": "nt-3mer", "modality": "dna", "max_tokens": 5, "crop": "windows"},
        {"tokens": "bins-128", "modality": "dna", "max_tokens": 2, "crop": "windows"},
    ],
)
def test_the_cases_fit_the_spec_and_a_plug_in_of_encode_alone_passes(changes: dict[str, Any]) -> None:
    class ByToken(FakeEncoder):
        def rows(self, sequence: str) -> Rows:
            letters = super().rows(sequence)
            return letters[self.spec.spans(sequence)[:, 0]] if len(sequence) else letters

    encoder: Encoder = ByToken(**changes)
    cases = make_cases(encoder.spec)
    assert cases[0].sequence and len({case.sequence for case in cases}) == len(cases)
    for case in cases:
        assert encoder.spec.cropped(case.sequence) == case.sequence and set(case.sequence) <= set(
            "ABCDEFGHIKLMNOPQRSTUVWXYZJ"
        )
    check_encoder(WindowedEncoder(encoder) if encoder.spec.crop == "windows" else encoder)


# --- broken ones ---


class Broken(FakeEncoder):
    """Rows that ``spoil`` changes: it gets all of a call."""

    def __init__(self, spoil: Callable[[list[Rows]], list[Any]], **changes: object) -> None:
        super().__init__(**changes)
        self.spoil = spoil

    def encode(self, sequences: Sequence[str]) -> list[Rows]:
        return self.spoil(super().encode(sequences))


def leaking(rows: list[Rows]) -> list[Rows]:
    """The first row of the sequence before is added to all of the next."""
    return [one + 0.5 * rows[i - 1][:1] if i else one for i, one in enumerate(rows)]


def padded(rows: list[Rows]) -> list[Rows]:
    """Short sequences are drawn towards the mean of the longest, as by padding that is attended to."""
    longest = max(rows, key=len)
    return [one + (1 - len(one) / len(longest)) * longest.mean(axis=0) for one in rows]


def swapped(rows: list[Rows]) -> list[Rows]:
    return [rows[1], rows[0], *rows[2:]] if len(rows) > 1 else rows


def dropout(rows: list[Rows]) -> list[Rows]:
    return [one * (DRAW.random(one.shape) > 1e-3) for one in rows]


def with_cls(rows: list[Rows]) -> list[Rows]:
    return [np.vstack([np.ones_like(one[:1]), one]) for one in rows]


def with_cls_and_the_last_row_cut(rows: list[Rows]) -> list[Rows]:
    return [one[:-1] for one in with_cls(rows)]


def without_the_first(rows: list[Rows]) -> list[Rows]:
    return [np.vstack([one[1:], np.ones_like(one[:1])]) for one in rows]


def nan_in_one(rows: list[Rows]) -> list[Rows]:
    rows[-1][-1, 3] = np.nan
    return rows


BROKEN: dict[str, tuple[Callable[[list[Rows]], list[Any]], str]] = {
    "leak": (leaking, r"off by .* of the spread of rows where other sequences are in the call, over 0\.001"),
    "padding": (padded, "where other sequences are in the call"),
    "order": (swapped, r"became rows|where other sequences|have the same rows|row .* it that does"),
    "cls": (with_cls, r"an ordinary sequence of 12 tokens became rows \(13, 12\), expected \(12, 12\)"),
    "shifted": (with_cls_and_the_last_row_cut, "where a token changes, it is the row behind it that does"),
    "shifted back": (without_the_first, "where a token changes, it is the row before it that does"),
    "shifted by two": (lambda rows: [np.vstack([one[:1] * 0, one[:1] * 0, one[:-2]]) if len(one) > 2 else one
                                     for one in rows], "where a token changes, it is 2 rows behind it that does"),
    "reversed": (lambda rows: [one[::-1] for one in rows], r"rows come in reverse order\. Nothing was written"),
    "row missing": (lambda rows: [one[:-1] for one in rows], r"became rows \(11, 12\), expected \(12, 12\)"),
    "nan": (nan_in_one, r"not finite in 1 of \d+ rows\. Nothing was written\. Check the weights"),
    "infinity": (lambda rows: [one / np.float32(0) for one in rows], "not finite"),
    "constant": (lambda rows: [np.ones_like(one) for one in rows], SAME_ROW),
    "zeros": (lambda rows: [np.zeros_like(one) for one in rows], SAME_ROW),
    "pooled": (lambda rows: [np.broadcast_to(one.mean(0), one.shape) for one in rows], SAME_ROW),
    "deaf": (lambda rows: [np.outer(np.arange(1, len(one) + 1), np.ones(12)).astype("f4") for one in rows],
             "with token 4 changed have the same rows"),
    "width": (lambda rows: [one[:, 1:] for one in rows], r"became rows \(12, 11\), expected \(12, 12\)"),
    "count": (lambda rows: rows[1:], "6 arrays for 7 sequences"),
    "dropout": (dropout, "other numbers the second time"),
    "noise": (lambda rows: [one + DRAW.standard_normal(one.shape).astype("f4") for one in rows],
              "an ordinary sequence gives other numbers the second time"),
    "float64": (lambda rows: [one.astype("f8") for one in rows], "became an array of float64"),
    "lists": (lambda rows: [one.tolist() for one in rows], "became a list. .*Give a numpy array of float32"),
    "flat": (lambda rows: [one.ravel() for one in rows], r"became rows \(144,\)"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_encoder_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path, how: str) -> None:
    spoil, message = BROKEN[how]
    with pytest.raises(EmbedCacheError, match=f"Encoder fake fails its self-test: .*({message})") as caught:
        build_cache(random_records(5), Broken(spoil), tmp_path / "cache" / "s")
    assert "\n" not in str(caught.value) and "Nothing was written. " in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_the_command_is_tested_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.fa").write_text(">a\nMKVLAA\n")
    prepare_fasta(output=tmp_path / "dataset", protein=tmp_path / "p.fa")
    broken = replace(CARDS["tiny-random-protein"], name="broken", adapter="broken/1", width=12)
    monkeypatch.setitem(CARDS, "broken", broken)
    job = BuildJob(dataset=tmp_path / "dataset", cache=str(tmp_path / "cache"), modality="protein", encoder="broken")
    for spoil, is_good in ((with_cls, False), (lambda rows: rows, True)):
        register_encoder(broken, lambda spec, weights, device, spoil=spoil: Broken(spoil, **fields_of(spec)))  # type: ignore[misc]
        if is_good:
            assert run_job(job).computed == 1
        else:
            with pytest.raises(EmbedCacheError, match="broken fails its self-test"):
                run_job(job)
            assert not (tmp_path / "cache").exists()


def fields_of(spec: EncoderSpec) -> dict[str, object]:
    return {item.name: getattr(spec, item.name) for item in fields(spec)}


def test_one_at_a_time_must_be_the_same_bits(tmp_path: Path) -> None:
    def nearly(rows: list[Rows]) -> list[Rows]:
        return [one * np.float32(1 + 2e-7 * (len(rows) > 1)) for one in rows]

    check_encoder(Broken(nearly))
    with pytest.raises(EmbedCacheError, match="where other sequences are in the call, over 0"):
        check_encoder(Broken(nearly, attention="single"))


def test_dropout_alone_is_found_by_the_second_pass() -> None:
    with pytest.raises(EmbedCacheError, match=r"gives other numbers the second time. .*Switch off dropout"):
        check_encoder(Broken(lambda rows: [one + np.float32(1e-5 * np.random.default_rng().random()) for one in rows]))


def test_a_plug_in_that_breaks_windows_or_one_layer_is_refused() -> None:
    with pytest.raises(EmbedCacheError, match=r"fails its self-test: .*for a window of"):
        check_encoder(WindowedEncoder(Broken(lambda rows: [one[1:] for one in rows], max_tokens=9, crop="windows")))

    class Layered(FakeEncoder):
        def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[Rows]]:
            first = [np.ones((len(one), 12), np.float32) for one in sequences]
            return {layer: first if layer == 1 else self.encode(sequences) for layer in layers}

    check_encoder(Layered())
    with pytest.raises(EmbedCacheError, match=SAME_ROW):
        check_encoder(Layered(), [1, -1])


@pytest.mark.parametrize("error", [ValueError("no J here"), MemoryError("too large"), KeyError("J")])
def test_what_an_encoder_raises_is_told_in_one_line_with_the_place(error: Exception) -> None:
    def fail(rows: list[Rows]) -> list[Rows]:
        raise error

    with pytest.raises(EmbedCacheError, match=rf"self-test: {type(error).__name__}: .* \(fail, line \d+\)") as caught:
        check_encoder(Broken(fail))
    assert caught.value.__cause__ is error


def test_a_lost_gpu_is_no_fault_of_the_encoder() -> None:
    def fail(rows: list[Rows]) -> list[Rows]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLostError):
        check_encoder(Broken(fail))


def test_sequences_that_an_encoder_refuses_by_rule_are_left_out() -> None:
    class Strict(FakeEncoder):
        refused: ClassVar[list[str]] = []

        def encode(self, sequences: Sequence[str]) -> list[Rows]:
            for sequence in sequences:
                if not self.takes(sequence):
                    self.refused.append(sequence)
                    raise InvalidSequenceError("not for me")
            return super().encode(sequences)

        def takes(self, sequence: str) -> bool:
            return len(sequence) > 4

    check_encoder(Strict())
    assert Strict.refused

    class Fixed(Strict):
        def takes(self, sequence: str) -> bool:
            return len(sequence) == self.spec.max_tokens

    check_encoder(Fixed(max_tokens=77))
    with pytest.raises(EmbedCacheError, match=r"it refuses every sequence of the test.*max_tokens"):
        check_encoder(Fixed())


def test_tolerances_lie_between_rounding_and_a_leak() -> None:
    """Half precision: rounding of every number stays within; a tenth of a neighbour in all rows does not."""
    for dtype, unit in (("float16", 2.0**-11), ("bfloat16", 2.0**-8), ("float32", 2.0**-24)):
        draw = np.random.default_rng(0)

        def rounding(rows: list[Rows], unit: float = unit, draw: Any = draw) -> list[Rows]:
            if len(rows) == 1:
                return rows
            return [(one * (1 + 8 * unit * draw.uniform(-1, 1, one.shape))).astype("f4") for one in rows]

        check_encoder(Broken(rounding, compute_dtype=dtype))
        with pytest.raises(EmbedCacheError, match="where other sequences are in the call"):
            check_encoder(Broken(leaking, compute_dtype=dtype))
    assert set(selftest.TOLERANCE) == {"float32", "float16", "bfloat16"}


def test_a_spec_of_one_token_is_tested_too() -> None:
    cases = make_cases(replace(FakeEncoder().spec, max_tokens=1))
    assert len(cases) >= 2 and {len(case.sequence) for case in cases} == {1}
