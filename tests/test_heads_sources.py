"""Every source of tokens keeps one contract, over rows in any order, repeated, and without the modality."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_study import WIDTHS, fill_cache, make_dataset, records_of
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from embedcache.build import build_cache
from embedcache.dataset import Dataset
from embedcache.errors import CacheIncompleteError, CacheMismatchError, InvalidInputError, InvalidSettingError
from embedcache.ragged import Ragged
from embedcache.store import EmbeddingStore, store_path
from heads.arrays import ColumnSource, SelectedSource, select
from heads.data import CachedDataset
from heads.layered import LayeredSource
from heads.open_sources import layers_of, open_source
from heads.resident import ResidentSource, keep_resident
from heads.sources import AbsentSource, CachedSource, TokenSource
from heads.summaries import summarise

CPU = torch.device("cpu")
SUMMARIES = ["means", "bins-1", "bins-3", "max-means", "mean-bins-2"]


class Second(FakeEncoder):
    """Another layer: other numbers for the same tokens."""

    def rows(self, sequence: str) -> NDArray[np.float32]:
        return np.asarray(1 - 2 * super().rows(sequence), dtype=np.float32)


@dataclass(frozen=True)
class Case:
    source: TokenSource
    wanted: list[Tensor]
    """Tokens of each row."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("study") / "dataset", n_genes=20)


@pytest.fixture(scope="module")
def caches(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores by number format; that of float16 has a second layer."""
    found = {}
    for dtype in ("float16", "int8"):
        found[dtype] = tmp_path_factory.mktemp(dtype)
        fill_cache(found[dtype], dataset, store_dtype=dtype)
    second = Second(name="tiny-protein", modality="protein", width=WIDTHS["protein"], layer=3)
    build_cache(records_of(dataset, "protein"), second, store_path(found["float16"], second.spec))
    return found


def stores_of(dataset: Dataset, cache: Path) -> list[str]:
    """Directories of the protein stores: the last layer first."""
    places = [path.name for path in (cache / "protein").iterdir()]
    return sorted(places, key=lambda name: EmbeddingStore(cache / "protein" / name).spec.layer)


def tokens_in(store: EmbeddingStore, keys: list[bytes | None]) -> list[Tensor]:
    none = torch.zeros(0, store.width)
    return [none if key is None else torch.from_numpy(np.array(store[key], dtype=np.float32)) for key in keys]


def make_case(kind: str, dataset: Dataset, caches: dict[str, Path]) -> Case:
    keys = dataset.keys("protein")
    cache = caches["int8" if "int8" in kind else "float16"]
    names = stores_of(dataset, cache)
    one = open_source(dataset, cache, "protein", names[0])
    wanted = tokens_in(EmbeddingStore(cache / "protein" / names[0]), keys)
    if "layered" in kind:
        one = open_source(dataset, cache, "protein", "+".join(names))
        others = tokens_in(EmbeddingStore(cache / "protein" / names[1]), keys)
        wanted = [torch.cat(pair, -1) for pair in zip(wanted, others, strict=True)]
    if "selected" in kind:
        rows = np.random.default_rng(0).integers(len(keys), size=2 * len(keys))
        return Case(select(one, rows), [wanted[row] for row in rows])
    return Case(ResidentSource(one, CPU) if "resident" in kind else one, wanted)


def column_case() -> Case:
    values = np.random.default_rng(0).standard_normal((25, 6)).astype(np.float32)
    values[::4] = np.nan
    wanted = [torch.from_numpy(row[None])[: int(not np.isnan(row).any())] for row in values]
    return Case(ColumnSource(values, "rna"), wanted)


KINDS = [
    "cached", "cached int8", "layered", "selected", "selected layered", "resident", "resident int8",
    "resident layered", "columns", "absent",
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, dataset: Dataset, caches: dict[str, Path]) -> Case:
    if request.param == "columns":
        return column_case()
    if request.param == "absent":
        return Case(AbsentSource(5, 30), [torch.zeros(0, 5)] * 30)
    return make_case(request.param, dataset, caches)


def decoded(source: TokenSource, tokens: Ragged) -> list[Tensor]:
    return Ragged(source.decode(tokens.values).float().clone(), tokens.offsets).to_list()


def inner(source: TokenSource) -> TokenSource:
    """What a source in memory was read from."""
    return source.source if isinstance(source, ResidentSource) else source


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


# --- the contract ---


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_tokens_of_any_rows(case: Case, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(case.wanted) - 1), max_size=12)), dtype=np.int64)
    if not len(rows) and not isinstance(case.source, ColumnSource | AbsentSource):
        return
    found = case.source.packed(rows)
    assert same(decoded(case.source, found), [case.wanted[row] for row in rows])
    assert found.offsets.dtype == torch.int64


def test_a_stream_gives_what_single_calls_give_in_order(case: Case) -> None:
    rows = np.random.default_rng(1).permutation(len(case.wanted))
    parts = [rows[:3], rows[3:4], rows[4:], rows[:5]]
    found = [decoded(case.source, tokens) for tokens in case.source.stream(parts)]
    assert len(found) == 4
    for part, tokens in zip(parts, found, strict=True):
        assert same(tokens, [case.wanted[row] for row in part])


def test_lengths_and_width_are_those_of_the_tokens(case: Case) -> None:
    assert case.source.lengths.tolist() == [len(one) for one in case.wanted]
    n_layers = 2 if isinstance(inner(case.source), LayeredSource) else 1
    assert {one.shape[1] for one in case.wanted} == {n_layers * case.source.width}, "the width is that of a layer"
    assert not case.source.tokens_only


@pytest.mark.parametrize("reads", SUMMARIES)
def test_summaries_are_those_of_the_tokens(case: Case, reads: str) -> None:
    found = case.source.summaries(reads)
    if reads in ("max-means", "mean-bins-2") and isinstance(inner(case.source), LayeredSource):
        wanted = by_layer(case, reads)
    else:
        wanted = summarise(Ragged.from_list(case.wanted), reads)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not found[case.source.lengths == 0].any()
    assert torch.equal(case.source.summaries(reads), found)


def by_layer(case: Case, reads: str) -> Tensor:
    """First vectors of all layers, then second ones: what a mix of layers reads."""
    width = case.source.width
    layers = [Ragged.from_list([one[:, i : i + width] for one in case.wanted])
              for i in range(0, case.wanted[0].shape[1], width)]  # fmt: skip
    halves = [summarise(layer, reads).chunk(2, -1) for layer in layers]
    return torch.cat([*(first for first, _ in halves), *(second for _, second in halves)], -1)


# --- stores ---


def test_a_source_that_is_sent_to_another_process_reads_the_same(dataset: Dataset, caches: dict[str, Path]) -> None:
    one = make_case("cached", dataset, caches)
    again: CachedSource = pickle.loads(pickle.dumps(one.source))
    rows = np.arange(len(one.wanted))
    assert same(decoded(again, again.packed(rows)), one.wanted)


def test_summaries_of_a_store_are_taken_once_for_all_selections(
    dataset: Dataset, caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(dataset, caches["float16"], "rna", None)
    passes, prefetch = [], source.store.prefetch  # type: ignore[union-attr]
    monkeypatch.setattr(source.store, "prefetch", lambda parts: passes.append(len(parts)) or prefetch(parts))  # type: ignore[union-attr, func-returns-value]
    whole = source.summaries("means")
    for rows in (np.array([4, 4, 0]), np.array([7])):
        assert torch.equal(SelectedSource(source, rows).summaries("means"), whole[torch.from_numpy(rows)])  # type: ignore[arg-type]
    assert len(passes) == 1


def test_a_large_store_is_summarised_in_pieces_with_the_same_numbers(
    dataset: Dataset, caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make_case("cached", dataset, caches).source.summaries("bins-3")
    monkeypatch.setattr("heads.sources._POOL_TOKENS", 17)
    source, read = open_source(dataset, caches["float16"], "protein", stores_of(dataset, caches["float16"])[0]), []
    prefetch = source.store.prefetch  # type: ignore[union-attr]
    monkeypatch.setattr(source.store, "prefetch", lambda parts: read.extend(parts) or prefetch(parts))  # type: ignore[func-returns-value, union-attr]
    assert torch.equal(source.summaries("bins-3"), wanted)
    assert len(read) > 3
    tokens = [int(source.store.lengths[part[part >= 0]].sum()) for part in read]  # type: ignore[union-attr]
    assert max(tokens) <= 17 + int(source.lengths.max()), "no more than that and a sequence is in memory at a time"


def test_layers_that_do_not_fit_are_refused(dataset: Dataset, caches: dict[str, Path], tmp_path: Path) -> None:
    first = open_source(dataset, caches["float16"], "protein", stores_of(dataset, caches["float16"])[0])
    other = open_source(dataset, caches["float16"], "rna", None)
    for wrong in (other, SelectedSource(first, np.zeros(len(first.lengths), np.int64))):  # type: ignore[arg-type]
        with pytest.raises(CacheMismatchError, match=r"has not the width and the tokens of .*same settings"):
            LayeredSource([first, wrong])  # type: ignore[list-item]
    twice = f"{stores_of(dataset, caches['float16'])[0]}+{stores_of(dataset, caches['float16'])[0]}"
    with pytest.raises(InvalidSettingError, match="names one store twice"):
        open_source(dataset, caches["float16"], "protein", twice)


def test_layers_of_a_source(dataset: Dataset, caches: dict[str, Path]) -> None:
    one, two = (make_case(kind, dataset, caches).source for kind in ("cached", "layered"))
    assert layers_of(one) == [one]  # type: ignore[arg-type]
    assert [layer.store.spec.layer for layer in layers_of(two)] == [-1, 3]  # type: ignore[arg-type]


def test_how_many_sequences_are_lost_is_said_by_distinct_ones(dataset: Dataset, caches: dict[str, Path]) -> None:
    store = EmbeddingStore(caches["int8"] / "protein" / stores_of(dataset, caches["int8"])[0])
    known = next(key for key in dataset.keys("protein") if key)
    strange = [known, b"a" * 16, b"a" * 16, b"b" * 16, None]
    with pytest.raises(CacheIncompleteError, match=r"lacks 2 of 3 protein sequences of this dataset\. Build them\."):
        CachedSource(store, strange, "Build them.")


# --- in the memory of a device ---


def test_equal_sequences_are_held_once(dataset: Dataset, caches: dict[str, Path]) -> None:
    source = open_source(dataset, caches["float16"], "dna", None)  # isoforms of a gene share it
    held = ResidentSource(source, CPU)._values
    assert held is not None
    distinct = len({key for key in dataset.keys("dna") if key})
    assert distinct < len(dataset.samples)
    assert len(held) == distinct * 40
    assert held.dtype == torch.float16


def test_a_source_without_any_token_stays_where_it_is() -> None:
    held = ResidentSource(AbsentSource(3, 4), CPU)
    assert held.packed(np.array([0, 3])).values.shape == (0, 3)
    assert held.packed(np.array([0, 3])).lengths.tolist() == [0, 0]


@pytest.mark.parametrize(("resident", "is_kept"), [("never", False), ("auto", False), ("always", True)])
def test_what_is_kept_in_memory_on_a_cpu(
    dataset: Dataset, caches: dict[str, Path], resident: str, is_kept: bool
) -> None:
    class Live(AbsentSource):
        tokens_only = True

    sources: dict[str, TokenSource] = {"rna": open_source(dataset, caches["float16"], "rna", None), "dna": Live(2, 3)}
    found = keep_resident(sources, CPU, resident)  # type: ignore[arg-type]
    assert isinstance(found["rna"], ResidentSource) == is_kept
    assert found["dna"] is sources["dna"], "live tokens are not in a store"
    again = keep_resident(found, CPU, resident)  # type: ignore[arg-type]
    assert again["rna"] is found["rna"], "not copied twice"


def test_batches_of_resident_stores_are_those_of_the_cache(dataset: Dataset, caches: dict[str, Path]) -> None:
    plain = CachedDataset(dataset, {"protein": make_case("cached int8", dataset, caches).source})
    kept = CachedDataset(dataset, {"protein": make_case("resident int8", dataset, caches).source})
    parts = np.array_split(np.random.default_rng(2).permutation(len(plain)), 4)
    for reads in ("tokens", "means"):
        for one, other in zip(plain.batches(parts, reads=reads), kept.batches(parts, reads=reads), strict=True):
            assert all(map(torch.equal, one.tokens["protein"], other.tokens["protein"]))
            assert torch.equal(one.lengths["protein"], other.lengths["protein"])


# --- columns ---


@pytest.mark.parametrize(
    ("holes", "words"),
    [([(2, 1)], "row 2 has 1 of the 3 numbers of rna missing"), ([(1, 0), (1, 2), (3, 0)], "row 1 has 2 of the 3")],
)
def test_a_row_that_is_missing_in_part_is_refused(holes: list[tuple[int, int]], words: str) -> None:
    values = np.ones((4, 3), dtype=np.float32)
    for hole in holes:
        values[hole] = np.nan
    with pytest.raises(InvalidInputError, match=words) as caught:
        ColumnSource(values, "rna")
    assert "Fill them in, or make all of them NaN" in str(caught.value)
