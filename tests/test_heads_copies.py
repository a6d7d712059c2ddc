"""Copies to a GPU: the order in which reader, copy and computation take turns; and on a GPU, the numbers."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_study import fill_cache, make_dataset

from embedcache.dataset import Dataset
from embedcache.ragged import Ragged
from heads.copies import copied_ahead
from heads.data import CachedDataset
from heads.open_sources import open_sources
from heads.sources import CachedSource


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("copies") / "dataset")


class Recorded:
    """Stands for a stream and for an event of ``torch.cuda``, and writes down what is asked of it."""

    def __init__(self, said: list[str], name: str = "") -> None:
        self.said, self.name, self.count = said, name, 0

    def record_event(self) -> "Recorded":
        self.count += 1
        self.said.append(f"copy {self.count - 1}")
        return Recorded(self.said, str(self.count - 1))

    def wait_event(self, event: "Recorded") -> None:
        self.said.append(f"computing follows copy {event.name}")

    def synchronize(self) -> None:
        self.said.append(f"copy {self.name} is complete")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    current = Recorded(said)
    for name, fake in {
        "Stream": lambda _: Recorded(said),
        "current_stream": lambda _: current,
        "stream": lambda _: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: said.append("memory is kept"))
    monkeypatch.setattr(Ragged, "to", lambda part, _: part)
    return said


def reader(n: int, said: list[str]) -> Iterator[Ragged]:
    for i in range(n):
        said.append(f"read {i}")
        yield Ragged(torch.full((1, 1), float(i)), torch.tensor([0, 1]))


def test_the_next_part_is_copied_while_this_one_computes_and_read_over_only_when_that_is_done(said: list[str]) -> None:
    for i, part in enumerate(copied_ahead(reader(3, said), torch.device("cuda"))):
        assert part.values.item() == i
        said.append(f"compute {i}")
    assert said == [
        "read 0", "copy 0", "copy 0 is complete",
        "read 1", "copy 1", "computing follows copy 0", "memory is kept", "compute 0", "copy 1 is complete",
        "read 2", "copy 2", "computing follows copy 1", "memory is kept", "compute 1", "copy 2 is complete",
        "computing follows copy 2", "memory is kept", "compute 2",
    ]  # fmt: skip


@pytest.mark.parametrize("n", [0, 1])
def test_few_parts(n: int, said: list[str]) -> None:
    assert len(list(copied_ahead(reader(n, said), torch.device("cuda")))) == n


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_that_a_gpu_reads_from_is_pinned(
    device: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = open_sources(dataset, fill_cache(tmp_path, dataset), ["rna"])
    asked: list[bool] = []
    stream = CachedSource.stream

    def watched(self: CachedSource, parts: Any, *, pinned: bool = False) -> Iterator[Ragged]:
        asked.append(pinned)
        return stream(self, parts)

    monkeypatch.setattr(CachedSource, "stream", watched)
    monkeypatch.setattr("heads.data.copied_ahead", lambda parts, _: parts)
    batches = CachedDataset(dataset, sources).batches([np.arange(2)], device=device)
    if device == "cuda" and not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            next(batches)
    else:
        next(batches)
    assert asked == [device == "cuda"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_numbers_of_every_batch_while_it_computes(dataset: Dataset, tmp_path: Path) -> None:
    data = CachedDataset(dataset, open_sources(dataset, fill_cache(tmp_path, dataset), ["rna"]))
    rows = [np.array([i % len(data), (3 * i + 1) % len(data)]) for i in range(40)]
    burden, found = torch.randn(4096, 4096, device="cuda"), []
    for batch in data.batches(rows, device="cuda"):
        for _ in range(5):
            burden @ burden
        found.append(batch.tokens["rna"].values.clone())
    for here, there in zip(data.batches(rows), found, strict=True):
        assert torch.equal(here.tokens["rna"].values, there.cpu())


def test_decoded_batches_hold_also_what_lengths_do_not_count(dataset: Dataset, tmp_path: Path) -> None:
    # the inner layers that `last:K` starts from have special tokens, which its lengths leave out
    sources = open_sources(dataset, fill_cache(tmp_path, dataset, store_dtype="float16"), ["rna"])
    true_lengths = sources["rna"].lengths
    sources["rna"].lengths = np.maximum(true_lengths - 1, 0)
    parts = [np.array([0]), np.arange(len(true_lengths)), np.array([1, 2])]
    for rows, batch in zip(parts, CachedDataset(dataset, sources).batches(parts), strict=True):
        found = batch.tokens["rna"]
        assert len(found.values) == true_lengths[rows].sum()
        assert torch.equal(found.values, sources["rna"].decode(sources["rna"].packed(rows).values).float())
