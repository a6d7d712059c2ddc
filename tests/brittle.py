"""A plug-in whose encoder raises at some sequences and takes its process with it at others; and a dataset for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder, random_records
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.spec import EncoderSpec
from embedcache.job import BuildJob
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


def use_brittle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``brittle`` be found by whoever needs it, as a user would."""
    monkeypatch.setenv("EMBEDCACHE_ENCODERS", "brittle:CARD")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def brittle_job(path: Path, **settings: Any) -> BuildJob:
    paths = {"dataset": path / "dataset", "cache": path / "cache"}
    return BuildJob(**{**paths, "modality": "protein", "device": "cpu", **settings})


def command(path: Path, *words: str) -> "subprocess.Popen[str]":
    code = "import cli; cli.embedcache()"
    line = [sys.executable, "-c", code, *words, "--modality", "protein", "--device", "cpu"]
    return subprocess.Popen(line, cwd=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def commits(path: Path) -> int:
    return len(list(path.glob("cache/protein/*/commits/*")))


def wait_for(condition: Any, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


def lease_pids(path: Path) -> list[int]:
    """The processes that hold a task right now."""
    found = []
    for lease in path.glob("cache/protein/*/claims/tasks/*"):
        with suppress(FileNotFoundError, ValueError):  # given back, or being written
            found.append(json.loads(lease.read_bytes())["pid"])
    return found
