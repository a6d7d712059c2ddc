"""Requests to an object store, packed tokens, and the mean of a converted store, by plain rules."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder, fake_spec, random_records
from hypothesis import given
from hypothesis import strategies as st

import embedcache.convert as convert_module
from embedcache.build import build_cache
from embedcache.ragged import Ragged
from embedcache.store import EmbeddingStore, create_store
from embedcache.store.layout import INNER_ROWS, Layout, new_layout
from embedcache.store.mean import read_mean
from embedcache.store.ranges import NEAR_BYTES, REQUEST_BYTES, VAIN_SHARE, _requests

# Requests

ROW_BYTES = 1 << 14
NEAR, MOST = NEAR_BYTES // ROW_BYTES, REQUEST_BYTES // ROW_BYTES


@st.composite
def places(draw: Any) -> list[tuple[int, int, int]]:
    """Sequences of one or two shards, one behind the other, with gaps."""
    found = []
    for shard in range(draw(st.integers(1, 2))):
        at = 0
        for gap, length in draw(st.lists(st.tuples(st.integers(0, 3 * NEAR), st.integers(0, MOST)), max_size=8)):
            found.append((shard, at + gap, length))
            at += gap + length
    return found


@given(places())
def test_neighbours_share_a_request_and_none_is_too_large(wanted: list[tuple[int, int, int]]) -> None:
    requests = list(_requests(wanted, ROW_BYTES))
    assert [place for some in requests for place in some] == wanted and all(requests)
    for some in requests:
        first, (_, start, length) = some[0], some[-1]
        assert len({shard for shard, _, _ in some}) == 1
        assert len(some) == 1 or start + length - first[1] <= MOST
        asked = sum(length for _, _, length in some)
        vain = start + length - first[1] - asked
        assert vain <= (len(some) - 1) * max(NEAR, asked // VAIN_SHARE)


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [
        ([], []),
        ([(0, 0, 1), (0, 1, 1), (0, 2 + NEAR, 1)], [3]),
        ([(0, 0, 1), (0, 2 + NEAR, 1)], [1, 1]),
        ([(0, 0, 16 * VAIN_SHARE), (0, 16 * VAIN_SHARE + 16, 1)], [2]),
        ([(0, 0, 16 * VAIN_SHARE), (0, 16 * VAIN_SHARE + 17, 1)], [1, 1]),
        ([(0, 0, MOST - 1), (0, MOST - 1, 1), (0, MOST, 1)], [2, 1]),
        ([(0, 0, MOST + 5)], [1]),
        ([(0, 0, 1), (1, 1, 1)], [1, 1]),
    ],
    ids=["nothing", "near", "far", "vain-share", "over-it", "full", "one-large", "shards"],
)
def test_what_is_near_is_fetched_together(wanted: list[tuple[int, int, int]], sizes: list[int]) -> None:
    assert [len(some) for some in _requests(wanted, ROW_BYTES)] == sizes


# Layouts


@given(st.integers(1, 2000), st.sampled_from(["float32", "float16", "bfloat16", "int8"]), st.integers(0, 3000))
def test_a_layout_holds_the_longest_sequence_in_about_the_bytes_asked_for(width: int, dtype: str, longest: int) -> None:
    layout = new_layout(fake_spec(width=width, store_dtype=dtype), longest=longest, shard_bytes=1 << 20)
    row_bytes = {"float32": 4 * width, "float16": 2 * width, "bfloat16": 2 * width, "int8": width + 4}[dtype]
    assert (layout.row_bytes, layout.inner_bytes) == (row_bytes, INNER_ROWS * row_bytes)
    assert layout.shard_rows % INNER_ROWS == 0 and layout.shard_rows >= max(longest, INNER_ROWS)
    assert layout.index_bytes == 16 * layout.shard_rows // INNER_ROWS + 4
    size = layout.shard_rows * row_bytes
    assert size <= 1 << 20 or layout.shard_rows - INNER_ROWS < max(longest, INNER_ROWS)
    assert size + layout.inner_bytes > 1 << 20  # one more inner chunk would be over it
    assert layout.version == (2 if dtype == "int8" else 1)
    assert layout.stored == np.dtype("uint16" if dtype == "bfloat16" else dtype)


# Packed tokens


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 3))
def test_packed_tokens_are_those_of_the_list(lengths: list[int], width: int) -> None:
    sequences = [torch.arange(n * width, dtype=torch.float32).view(n, width) + i for i, n in enumerate(lengths)]
    packed = Ragged.from_list(sequences)
    assert packed.offsets.tolist() == np.cumsum([0, *lengths]).tolist() and packed.lengths.tolist() == lengths
    assert all(torch.equal(a, b) for a, b in zip(packed.to_list(), sequences, strict=True))
    half = packed.to("cpu", torch.float16)
    assert half.values.dtype == torch.float16 and half.offsets is packed.offsets
    assert all(part._base is packed.values for part in packed.to_list())  # views: nothing is copied


# The mean of a converted store


@pytest.mark.parametrize(("most_sequences", "most_tokens"), [(1000, 1000), (7, 1000), (1000, 3), (5, 4)])
def test_the_mean_is_of_sequences_and_tokens_evenly_spaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_sequences: int, most_tokens: int
) -> None:
    monkeypatch.setattr(convert_module, "MEAN_SEQUENCES", most_sequences)
    monkeypatch.setattr(convert_module, "MEAN_TOKENS", most_tokens)
    build_cache(random_records(30, longest=20), FakeEncoder(store_dtype="float32"), tmp_path / "a")
    store, root = EmbeddingStore(tmp_path / "a"), tmp_path / "b"
    layout: Layout = create_store(root, fake_spec(store_dtype="int8"))
    found = convert_module._mean(store, root, layout)
    arrays = [np.asarray(store[key]) for key in store]
    step = -(-len(arrays) // most_sequences)
    chosen = [rows[:: -(-len(rows) // most_tokens)] for rows in arrays[::step]]
    assert len(chosen) <= most_sequences and max(map(len, chosen)) <= most_tokens
    assert found is not None
    np.testing.assert_allclose(found, np.concatenate(chosen).mean(0, dtype=np.float64), rtol=1e-6, atol=1e-7)
    assert read_mean(store.files.__class__(root), layout).tobytes() == found.tobytes()
    assert convert_module._mean(store, root, new_layout(fake_spec(store_dtype="float16"))) is None
