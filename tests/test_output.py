"""From tensors to arrays: what is not finite, bounds of sequences, and rows that a GPU is still computing."""

from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_spec
from torch import Tensor

from embedcache.encoders.output import PendingRows, to_device
from embedcache.encoders.registry import load_encoder
from embedcache.errors import EmbedCacheError
from embedcache.ragged import Ragged

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def ragged(values: Tensor, *lengths: int) -> Ragged:
    return Ragged(values, torch.tensor([0, *np.cumsum(lengths).tolist()]))


def test_rows_come_back_by_layer_and_sequence_as_float32() -> None:
    first, second = torch.arange(12.0).reshape(6, 2), torch.ones(6, 2, dtype=torch.bfloat16)
    found = PendingRows(fake_spec(), {1: ragged(first, 1, 0, 5), -1: ragged(second, 1, 0, 5)}).result()
    for rows in found.values():
        assert [one.shape for one in rows] == [(1, 2), (0, 2), (5, 2)]
    assert all(one.dtype == np.float32 for rows in found.values() for one in rows)
    assert np.array_equal(np.concatenate(found[1]), first.numpy())
    assert np.array_equal(np.concatenate(found[-1]), np.ones((6, 2), np.float32))


def test_large_numbers_whose_sum_overflows_are_finite_all_the_same() -> None:
    values = torch.full((4, 2), 3e38)
    (rows,) = PendingRows(fake_spec(), {-1: ragged(values, 4)}).result()[-1]
    assert np.array_equal(rows, values.numpy())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite_are_counted_by_token(bad: float, dtype: torch.dtype) -> None:
    values = torch.ones(5, 3, dtype=dtype)
    values[1, 2] = values[3, 0] = values[3, 1] = bad
    with pytest.raises(EmbedCacheError, match="Encoder fake gave values that are not finite for 2 of 5 tokens"):
        PendingRows(fake_spec(), {-1: ragged(values, 5)}).result()


def test_infinities_that_cancel_are_found() -> None:
    values = torch.tensor([[float("inf"), float("-inf")], [1.0, 1.0]])
    with pytest.raises(EmbedCacheError, match="not finite for 1 of 2 tokens"):
        PendingRows(fake_spec(), {-1: ragged(values, 1, 1)}).result()


@pytest.mark.gpu
@needs_gpu
def test_rows_of_a_gpu_are_awaited_and_leave_it_free_to_go_on() -> None:
    device = torch.device("cuda")
    factor = torch.randn(4096, 4096, device=device)
    values = to_device(np.ones((64, 4096), np.float32), device)
    for _ in range(200):  # long enough to be still running when PendingRows returns
        values = (values @ factor).clamp(-1, 1)
    coming = PendingRows(fake_spec(), {-1: ragged(values, 60, 4)})
    running = not torch.cuda.current_stream().query()
    found = np.concatenate(coming.result()[-1])
    assert running
    assert np.array_equal(found, values.cpu().numpy())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("name", "modality"), [("esm2-8m", "protein"), ("nt-v2-50m", "rna"), ("enformer", "dna")])
def test_two_batches_at_once_on_a_gpu_are_those_one_after_the_other(name: str, modality: Any) -> None:
    encoder: Any = load_encoder(name, modality, random_init=0, dtype="bfloat16", device="cuda")
    letters = "LAGVSERT" if modality == "protein" else "ACGT"
    draw = np.random.default_rng(0)
    batches = [["".join(draw.choice(list(letters), size=n)) for n in sizes] for sizes in ((900, 33), (600, 600, 5))]
    coming = [encoder.start_layers(batch, [-1]) for batch in batches]
    for batch, pending in zip(batches, coming, strict=True):
        for one, other in zip(pending.result()[-1], encoder.encode(batch), strict=True):
            assert np.array_equal(one, other)
