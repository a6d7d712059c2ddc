"""Encoders that fail in known ways, a plan of a few sequences, and an embedder over both."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder
from numpy.typing import NDArray

from embedcache.embedding import Embedder
from embedcache.plan import Plan
from embedcache.products import Product
from embedcache.store.quarantine import Poisoned

MakePlan = Callable[..., Plan]


@contextmanager
def plan_of(*sequences: str) -> Iterator[Plan]:
    """A plan of these sequences in this order, a token a letter."""
    with tempfile.TemporaryFile() as letters:
        plan = Plan(letters)
        for i, sequence in enumerate(sequences):
            plan.add(bytes([i]) * 16, f"P{i}", sequence, len(sequence))
        yield plan


@pytest.fixture
def make_plan() -> Iterator[MakePlan]:
    """A function from sequences to a plan, open while the test runs."""
    with ExitStack() as stack:
        yield lambda *sequences: stack.enter_context(plan_of(*sequences))


class Limited(FakeEncoder):
    """Runs out of memory over so many tokens a call."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        if sum(map(len, sequences)) > self.most:
            raise self.error
        return super().encode(sequences)


class Choking(FakeEncoder):
    """Fails on a letter."""

    def __init__(self, on: str, error: Exception) -> None:
        super().__init__()
        self.on, self.error = on, error

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        if any(self.on in sequence for sequence in sequences):
            raise self.error
        return super().encode(sequences)


class Beside(FakeEncoder):
    """Begins without waiting, and writes down what happens when; may fail in the beginning or at the end."""

    def __init__(self, events: list[str], begin: Any = None, end: Any = None) -> None:
        super().__init__()
        self.events, self.begin, self.end = events, begin, end

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[NDArray[np.float32]]]:
        self.events.append(f"run {','.join(sequences)}")
        return {layer: [rows + (layer + 1) for rows in self.encode(sequences)] for layer in layers}

    def start(self, sequences: Sequence[str]) -> Any:
        raise AssertionError("the build asks for layers")

    def start_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> Any:
        events, end, encoder = self.events, self.end, self
        events.append(f"begin {','.join(sequences)}")
        if self.begin is not None:
            self.begin(sequences)

        class Coming:
            def result(self) -> dict[int, list[NDArray[np.float32]]]:
                events.append(f"end {','.join(sequences)}")
                if end is not None:
                    end(sequences)
                return {layer: [encoder.rows(one) + (layer + 1) for one in sequences] for layer in layers}

        return Coming()


def embedder(encoder: Any, tokens: int = 10, layers: Sequence[int] = (-1,), **more: Any) -> Embedder:
    specs = [type(encoder.spec).from_json({**encoder.spec.to_json(), "layer": n}) for n in layers]
    spec = [type(one).from_json({**one.to_json(), "store_dtype": "float32"}) for one in specs]
    return Embedder(encoder, [Product(one, Path("unused")) for one in spec], tokens, **more)


def run(found: Embedder, plan: Plan, before: Callable[[Sequence[int]], bool] = lambda batch: True) -> dict[int, Any]:
    """All sequences of a plan, each at most once, by index; its rows are those of the fake encoder."""
    rows: dict[int, Any] = {}
    for one in found.embed(plan, range(len(plan.keys)), before):
        assert one.index not in rows
        rows[one.index] = one.stored
    return rows


def gather(given_up: dict[int, Poisoned]) -> Callable[[Plan, int, Poisoned], None]:
    def give_up(plan: Plan, index: int, reason: Poisoned) -> None:
        given_up[index] = reason

    return give_up
