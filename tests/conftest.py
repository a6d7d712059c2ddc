"""Fixtures of all tests. No network, no GPU; real data are read where they lie and skipped where they are missing."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small, and run beside each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands do, before anything imports torch
os.environ.setdefault("HEADS_TENSORBOARD", "0")  # its files hold times, and tests compare all bytes of a run


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a folder of real data beside the checkout; skips the test where it is missing."""

    def find(name: str) -> Path:
        path = Path(__file__).resolve().parents[2] / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"real data {name!r} are not beside the checkout")
        return path

    return find


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets the threads of torch until the test ends."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
