import io
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from embedcache.errors import CacheDamagedError, CacheError
from embedcache.store.numbers import (
    RoundingError,
    channel_mean,
    decode_rows,
    encode_rows,
    mean_from_bytes,
    mean_to_bytes,
    stored_width,
)

Rows = NDArray[np.float32]
DTYPES = ["float32", "float16", "bfloat16", "int8"]
TINY = float(np.finfo(np.float32).tiny)


def read(stored: NDArray[Any], dtype: str, mean: Rows | None = None) -> Rows:
    values = torch.from_numpy(stored)
    if dtype == "bfloat16":
        values = values.view(torch.bfloat16)
    decoded: Rows = decode_rows(values, dtype, None if mean is None else torch.from_numpy(mean)).float().numpy()
    return decoded


def normal(n: int, width: int = 13, seed: int = 0) -> Rows:
    drawn: Rows = np.random.default_rng(seed).standard_normal((n, width), np.float32)
    return drawn


def arrays(largest: float) -> st.SearchStrategy[Rows]:
    shapes = st.tuples(st.integers(0, 5), st.integers(1, 9))
    return hnp.arrays(np.float32, shapes, elements=st.floats(-largest, largest, width=32))


@given(rows=arrays(float(np.float32(1e38))), data=st.data())
@settings(derandomize=True, deadline=None)
def test_int8_is_at_most_half_a_scale_off(rows: Rows, data: st.DataObject) -> None:
    elements = st.floats(-float(np.float32(1e37)), float(np.float32(1e37)), width=32)
    mean = data.draw(hnp.arrays(np.float32, rows.shape[1], elements=elements))
    stored = encode_rows(rows, "int8", mean)
    assert stored.dtype == np.int8 and stored.shape == (len(rows), stored_width(rows.shape[1], "int8"))
    back = read(stored, "int8", mean)
    exact, mean64 = rows.astype(np.float64), mean.astype(np.float64)
    scale = np.abs(exact - mean64).max(axis=1, initial=0, keepdims=True) / 127
    single = 1e-6 * (np.abs(exact) + np.abs(mean64) + 127 * scale)  # float32 has 24 bits: three roundings
    assert (np.abs(back - exact) <= scale / 2 + single + 127 * TINY).all()


@pytest.mark.parametrize("value", [0.0, TINY / 8, 1e-37, -1e-40, 3e38, -3e38], ids=str)
def test_extreme_rows_are_kept_without_nan(value: float) -> None:
    rows = np.full((2, 4), value, np.float32)
    back = read(encode_rows(rows, "int8"), "int8")
    assert np.isfinite(back).all()
    if abs(value) / 127 < TINY:
        assert (back == 0).all()  # a scale that small would round too coarsely to be of use
    else:
        assert np.abs(back - rows).max() <= abs(value) / 254 * 1.001


def test_the_scale_is_a_float32_in_the_last_bytes() -> None:
    rows = normal(5)
    stored = encode_rows(rows, "int8")
    scale = np.frombuffer(stored[:, -4:].tobytes(), "<f4")
    np.testing.assert_array_equal(scale, np.abs(rows).max(1) / np.float32(127))
    assert (np.abs(stored[:, :-4]).max(1) == 127).all()


@given(rows=arrays(1e4), data=st.data())
@settings(max_examples=50, derandomize=True, deadline=None)
def test_a_row_is_stored_alike_alone_and_among_others(rows: Rows, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    mean = normal(1, rows.shape[1])[0]
    together = encode_rows(rows, dtype, mean)
    alone = [encode_rows(rows[i : i + 1], dtype, mean) for i in range(len(rows))]
    assert together.tobytes() == b"".join(one.tobytes() for one in alone)
    back = read(together, dtype, mean)
    assert back.tobytes() == b"".join(read(one, dtype, mean).tobytes() for one in alone)


@given(rows=arrays(float(np.float32(3e38))))
@settings(derandomize=True, deadline=None)
def test_bfloat16_is_the_rounding_of_torch_and_of_the_bits(rows: Rows) -> None:
    stored = encode_rows(rows, "bfloat16")
    assert stored.dtype == np.uint16
    assert stored.tobytes() == torch.from_numpy(rows).bfloat16().view(torch.uint16).numpy().tobytes()
    bits = rows.view(np.uint32)
    assert (stored == (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).all()  # to nearest, ties to even


@given(rows=arrays(6e4))
@settings(derandomize=True, deadline=None)
def test_float_types_are_stored_as_they_are(rows: Rows) -> None:
    assert encode_rows(rows, "float32").tobytes() == rows.tobytes()
    assert encode_rows(rows, "float16").tobytes() == rows.astype(np.float16).tobytes()
    values = torch.from_numpy(rows)
    assert decode_rows(values, "float32") is values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_in_one_line(value: float, dtype: str) -> None:
    rows = normal(3)
    rows[1, 2] = value
    with pytest.raises(
        CacheError, match=r"^an embedding of esm is not finite before it is stored, in 1 of \d.*damaged\.$"
    ):
        encode_rows(rows, dtype, encoder="esm")


def test_what_only_float32_holds_is_sent_there() -> None:
    with pytest.raises(
        CacheError, match=r"not finite as bfloat16 \(largest value 3\.40\de\+38\)\. Use --store-dtype float32"
    ):
        encode_rows(np.full((1, 3), np.finfo(np.float32).max, np.float32), "bfloat16")


def test_what_overflows_float16_alone_is_refused_there_alone() -> None:
    rows = np.full((2, 3), 65_520, np.float32)
    with pytest.raises(CacheError, match=r"largest value 6\.552e\+04\)\. Use --store-dtype bfloat16"):
        encode_rows(rows, "float16")
    for dtype in ("float32", "bfloat16", "int8"):
        np.testing.assert_allclose(read(encode_rows(rows, dtype), dtype), rows, rtol=0.005)
    # a sum that overflows is no value that does
    assert encode_rows(np.full((2, 3), 3e38, np.float32), "bfloat16").size


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("width", [1, 13, 16])
def test_rows_decode_wherever_they_lie_in_a_buffer(n: int, width: int) -> None:
    rows = normal(n + 1, width)
    stored = torch.from_numpy(encode_rows(rows, "int8"))
    assert torch.equal(decode_rows(stored[1:], "int8"), decode_rows(stored, "int8")[1:])


def outlier_rows() -> Rows:
    """Tokens of variance 1, half of it a mean of the channel; three channels at 40 sigma, give or take 10 %."""
    rng = np.random.default_rng(0)
    tokens = (rng.standard_normal(640) + rng.standard_normal((4_000, 640))) / np.sqrt(2)
    tokens[:, [7, 100, 500]] = 40 + 4 * rng.standard_normal((4_000, 3))
    rows: Rows = tokens.astype(np.float32)
    return rows


def lost_signal(rows: Rows, mean: Rows | None) -> float:
    """Error of the ordinary channels over what differs there from token to token."""
    ordinary = np.delete(np.arange(640), [7, 100, 500])
    error = read(encode_rows(rows, "int8", mean), "int8", mean) - rows
    signal = rows - rows.mean(0)
    return float(np.linalg.norm(error[:, ordinary]) / np.linalg.norm(signal[:, ordinary]))


def test_outlier_channels_need_the_channel_mean() -> None:
    rows = outlier_rows()
    mean = channel_mean([rows[:300], rows[300:500]])  # the first sequences are enough
    assert lost_signal(rows, None) == pytest.approx(0.14, abs=0.01)
    assert lost_signal(rows, mean) == pytest.approx(0.019, abs=0.003)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rounding_error_is_that_of_all_tokens(dtype: str) -> None:
    rows, mean = normal(64, 40) + 3, np.full(40, 3, np.float32)
    stored = encode_rows(rows, dtype, mean)
    error = RoundingError(dtype, mean)
    for start in (0, 20, 40):  # parts together are the whole
        error.add(rows[start : start + 20], stored[start : start + 20])
    error.add(rows[60:], stored[60:])
    back, exact = read(stored, dtype, mean).astype(np.float64), rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(back, axis=1)
    found = error.to_json()
    assert found["tokens"] == 64
    assert found["relative_l2"] == pytest.approx(np.linalg.norm(back - exact) / np.linalg.norm(exact), rel=1e-4)
    assert found["cosine"] == pytest.approx(((exact * back).sum(1) / norms).mean(), abs=1e-6)
    expected = {"float32": 0, "float16": 2.1e-4, "bfloat16": 1.7e-3, "int8": 2.2e-3}[dtype]
    assert error.relative_l2 == pytest.approx(expected, rel=0.3)


def test_the_rounding_error_samples_a_long_sequence_evenly() -> None:
    rows = normal(1_000)
    rows[500:] *= 0  # the second half reads back exactly
    error, ones = RoundingError("float16"), rows.astype(np.float16)
    ones[500:] = 1  # zeros that became something else
    error.add(rows, ones)
    found = error.to_json()
    assert 60 <= found["tokens"] <= 64
    assert found["cosine"] == pytest.approx(0.5, abs=0.02)
    assert RoundingError("int8").to_json() == {"relative_l2": 0.0, "cosine": 1.0, "tokens": 0}


def test_rows_of_zeros_that_stay_zeros_lose_nothing() -> None:
    error, rows = RoundingError("int8"), np.zeros((3, 5), np.float32)
    error.add(rows, encode_rows(rows, "int8"))
    assert error.to_json() == {"relative_l2": 0.0, "cosine": 1.0, "tokens": 3}


def test_the_channel_mean_weighs_tokens_alike() -> None:
    parts = [normal(n, seed=n) + 5 for n in (1, 40, 0, 7)]
    mean = channel_mean(parts)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.concatenate(parts).mean(0), rtol=1e-5)
    assert (channel_mean([parts[2]]) == 0).all()
    parts[1][3, 4] = np.inf
    with pytest.raises(CacheError, match=r"^channel 4 \(0-based\) of the first 4 embeddings is not finite"):
        channel_mean(parts)


def test_the_file_of_a_mean_reads_back_and_is_an_npy_file(tmp_path: Path) -> None:
    mean = normal(1)[0]
    data = mean_to_bytes(mean)
    assert mean_from_bytes(data, 13, "mean.npy").tobytes() == mean.tobytes()
    (tmp_path / "mean.npy").write_bytes(data)
    assert np.load(tmp_path / "mean.npy").tobytes() == mean.tobytes()


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", mean_to_bytes(normal(1)[0])[:-1]], ids=["empty", "four", "cut"])
def test_a_file_of_a_mean_that_was_cut_is_told(data: bytes) -> None:
    with pytest.raises(CacheDamagedError, match=r"^mean\.npy is damaged: its checksum does not match"):
        mean_from_bytes(data, 13, "mean.npy")


def test_a_changed_byte_of_a_mean_or_another_width_is_told() -> None:
    data = mean_to_bytes(normal(1)[0])
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(CacheDamagedError):
            mean_from_bytes(bytes(changed), 13, "mean.npy")
    with pytest.raises(CacheDamagedError, match=r"it holds float32 \(13,\), expected 12"):
        mean_from_bytes(data, 12, "mean.npy")
    with pytest.raises(CacheDamagedError, match="it holds float64"):
        mean_from_bytes(mean_bytes_of(np.zeros(13)), 13, "mean.npy")


def mean_bytes_of(values: NDArray[np.float64]) -> bytes:
    """A good checksum over the wrong type."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue() + int(google_crc32c.value(file.getvalue())).to_bytes(4, "little")
