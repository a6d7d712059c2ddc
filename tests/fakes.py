"""Stand-ins that are cheap and exact, importable from a subprocess too."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.selftest import make_cases
from embedcache.encoders.spec import EncoderSpec
from embedcache.sequences import SequenceRecord


def fake_spec(**changes: object) -> EncoderSpec:
    fields: dict[str, object] = {
        "name": "fake",
        "modality": "protein",
        "adapter": "fake/1",
        "model_id": "random",
        "weights": "seed:0",
        "width": 12,
        "tokens": "letter",
    }
    return EncoderSpec(**{**fields, **changes})  # type: ignore[arg-type]


class FakeEncoder:
    """Rows that letters, their places and the length of the sequence determine; counts what it embeds in earnest."""

    def __init__(self, **changes: object) -> None:
        self.spec = fake_spec(**changes)
        self.embedded: list[str] = []
        self.batches: list[int] = []
        cases = make_cases(self.spec)
        self._of_self_test = {cases[0].sequence, cases[-1].sequence}  # one of these is in each call of it

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        if self._of_self_test.isdisjoint(sequences):
            self.embedded += sequences
            self.batches.append(sum(map(len, sequences)))
        return [self.rows(sequence) for sequence in sequences]

    def rows(self, sequence: str) -> NDArray[np.float32]:
        codes = np.frombuffer(sequence.encode(), np.uint8).astype(np.float32)[:, None]
        places = np.arange(len(sequence), dtype=np.float32)[:, None]
        columns = np.arange(1, self.spec.width + 1, dtype=np.float32)
        return np.sin(codes * columns + places / 7 + len(sequence)).astype(np.float32)


def random_records(n: int, seed: int = 0, longest: int = 90) -> list[SequenceRecord]:
    """Proteins of 1 to ``longest`` residues, a few of them equal."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    records = [
        SequenceRecord(f"p{i}", "".join(rng.choice(letters, rng.integers(1, longest + 1))), "protein") for i in range(n)
    ]
    return records + [SequenceRecord(f"again{i}", records[i].sequence, "protein") for i in range(0, n, 10)]
