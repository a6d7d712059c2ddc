"""A plug-in whose encoder raises at some sequences and takes its process with it at others; and a dataset for it."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fakes import FakeEncoder, random_records
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.spec import EncoderSpec
from embedcache.prepare.fasta import prepare_fasta
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore
from embedcache.store.find import find_store

CARD = EncoderCard(
    name="brittle",
    modalities=("protein",),
    adapter="brittle/1",
    loader="brittle:load",
    width=12,
    tokens="letter",
    weights="seed:0",
    licence="none",
)
DEADLY = SequenceRecord("deadly", "MAKILLA", "protein")
RAISING = SequenceRecord("raising", "MARAISEA", "protein")
SECONDS = "BRITTLE_SECONDS"
"""Environment variable: how long each sequence takes."""


class Brittle(FakeEncoder):
    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        time.sleep(float(os.environ.get(SECONDS, "0")) * len(sequences))
        if any("KILL" in one for one in sequences):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("RAISE" in one for one in sequences):
            raise ValueError("it was told to")
        return super().encode(sequences)


def load(spec: EncoderSpec, weights: object, device: str) -> Brittle:
    assert weights is None and device == "cpu"
    return Brittle(spec)


def make_proteins(path: Path, n: int, *more: SequenceRecord) -> list[SequenceRecord]:
    """Prepare a dataset of ordinary proteins and these; returns the ordinary ones."""
    records = random_records(n)
    assert not any("KILL" in one.sequence or "RAISE" in one.sequence for one in records)
    fasta = path.with_suffix(".fa")
    fasta.write_text("".join(f">{one.id}\n{one.sequence}\n" for one in [*records, *more]))
    found = prepare_fasta(output=path, protein=fasta, encoders={"protein": "brittle"})
    assert isinstance(found, Dataset)
    return records


def check_embedded(cache: Path, records: Sequence[SequenceRecord]) -> None:
    """These sequences and no others are in the cache, undamaged, with the rows that they have alone."""
    store, encoder = EmbeddingStore(find_store(cache, "protein")), FakeEncoder()
    assert store.damaged() == [] and len(store) == len({one.sequence for one in records})
    for one in records:
        rows = encoder.rows(one.sequence).astype("f2")
        assert store[sequence_key(one.sequence, "protein")].tobytes() == rows.tobytes()
