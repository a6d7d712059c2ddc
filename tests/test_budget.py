"""Tokens of one call: from a trial on a device whose memory is made up, and on a CUDA device where there is one."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fakes import FakeEncoder
from numpy.typing import NDArray

from embedcache.budget import CPU_TOKENS, LEAST, MOST, SHARE, find_budget
from embedcache.encoders.registry import load_encoder

MEGABYTE = 1 << 20


class FakeMemory:
    """A device on which a call takes so many bytes a token, beside what the weights take."""

    def __init__(self, encoder: FakeEncoder, bytes_a_token: int, free: int) -> None:
        self.encoder, self.bytes_a_token, self.free = encoder, bytes_a_token, free

    def free_bytes(self) -> int:
        return self.free

    def reset_peak(self) -> int:
        self.calls_before = len(self.encoder.batches)
        return 100 * MEGABYTE

    def peak_bytes(self) -> int:
        return 100 * MEGABYTE + self.bytes_a_token * max(self.encoder.batches[self.calls_before :])


class Tight(FakeEncoder):
    """Runs out of memory over so many tokens a call."""

    most = 1500

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        if sum(map(len, sequences)) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode(sequences)


def test_a_budget_fills_the_share_of_the_free_memory() -> None:
    encoder = FakeEncoder()
    memory = FakeMemory(encoder, bytes_a_token=50_000, free=1000 * MEGABYTE)
    budget = find_budget(encoder, "cuda", memory)
    assert budget == int(SHARE * 1000 * MEGABYTE / 50_000)
    assert find_budget(encoder, "cuda", FakeMemory(encoder, 25_000, 1000 * MEGABYTE)) == pytest.approx(
        2 * budget, abs=1
    )


def test_a_budget_has_bounds_and_a_cpu_needs_no_trial() -> None:
    encoder = FakeEncoder()
    assert find_budget(encoder, "cpu") == CPU_TOKENS * torch.get_num_threads()
    assert encoder.batches == []
    assert find_budget(encoder, "cuda", FakeMemory(encoder, 10_000_000, 100 * MEGABYTE)) == LEAST
    assert find_budget(encoder, "cuda:1", FakeMemory(encoder, 1, 10**12)) == MOST


def test_the_trial_obeys_the_limit_of_the_encoder() -> None:
    encoder = FakeEncoder(max_tokens=100)
    find_budget(encoder, "cuda", FakeMemory(encoder, 1000, 1000 * MEGABYTE))
    assert max(map(len, encoder.embedded)) == 100
    assert max(encoder.batches) == 4000


def test_a_trial_that_does_not_fit_is_halved_until_it_does() -> None:
    encoder = Tight(max_tokens=500)  # 8 copies at first
    budget = find_budget(encoder, "cuda", FakeMemory(encoder, 50_000, 1000 * MEGABYTE))
    assert encoder.batches == [500, 1000]
    assert budget == int(SHARE * 1000 * MEGABYTE / 50_000)
    encoder.most = 400
    with pytest.raises(torch.OutOfMemoryError):
        find_budget(encoder, "cuda", FakeMemory(encoder, 50_000, 1000 * MEGABYTE))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_a_call_of_its_budget_and_more_for_smaller_encoders() -> None:
    budgets = []
    for name in ("esm2-8m", "esm2-650m"):
        encoder = load_encoder(name, "protein", random_init=0, dtype="bfloat16", device="cuda")
        budgets.append(find_budget(encoder, "cuda"))
        rows = encoder.encode(["ACDEFGHIKL" * 100] * (budgets[-1] // 1000))
        assert len(rows) == budgets[-1] // 1000
    assert budgets[0] >= budgets[1]
