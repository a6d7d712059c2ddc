"""A worker of the drill in ``kill_builds.py``: one build of a small encoder, which notes down what it embeds.

Imported once by a server process from which workers are forked, so that a killed one is replaced in milliseconds.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import embedcache.store.leases as leases_module
import embedcache.store.objects  # noqa: F401  here, and not in each worker
from embedcache.build import build_products
from embedcache.encoders.registry import load_encoder
from embedcache.encoders.spec import Encoder
from embedcache.place import parse_place
from embedcache.products import Product
from embedcache.sequences import SequenceRecord, sequence_key

WORKERS = 3
SHARD_BYTES = 1 << 17  # many shards, so that a kill falls into every part of a commit
KEY_BYTES = 16


def make_records(count: int) -> list[SequenceRecord]:
    """Random proteins of 20 to 200 residues."""
    rng, letters = np.random.default_rng(0), np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    lengths = rng.integers(20, 201, count)
    return [SequenceRecord(f"p{i}", "".join(rng.choice(letters, n)), "protein") for i, n in enumerate(lengths)]


class NotingEncoder:
    """Writes the key of each sequence to a file before it is embedded."""

    def __init__(self, encoder: Encoder, notes: Path, pause: float) -> None:
        self.encoder, self.spec, self.notes, self.pause = encoder, encoder.spec, notes, pause

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Note, wait, embed."""
        keys = b"".join(sequence_key(one, "protein") for one in sequences)
        with self.notes.open("ab", buffering=0) as file:
            file.write(keys)
        time.sleep(self.pause)  # as of a GPU: without it most kills would hit a commit
        return self.encoder.encode(sequences)


torch.set_num_threads(1)
ENCODER = load_encoder(os.environ.get("DRILL_ENCODER", "tiny-random-protein"), "protein")


def work(place: str, notes: str, count: int, ttl: float | None, pause: float) -> None:
    """Build ``place`` to its end.

    Args:
        place: Of the store.
        notes: Directory; the file of this process in it gets the keys of what is embedded.
        count: Number of records.
        ttl: Other workers are known to be dead from their silence alone, as on another machine; None looks for the
            processes as well.
        pause: Seconds a batch takes longer.
    """
    if ttl is not None:
        leases_module.is_gone = lambda process: False
    encoder = NotingEncoder(ENCODER, Path(notes, str(os.getpid())), pause)
    build_products(
        make_records(count),
        encoder,
        [Product(encoder.spec, parse_place(place))],
        tokens_per_batch=512,
        shard_bytes=SHARD_BYTES,
        workers=WORKERS,
        **({} if ttl is None else {"ttl": ttl}),
    )


def embedded_by(notes: Path, pid: int, start: int = 0) -> list[bytes]:
    """Keys of what a worker began to embed, in its order, from byte ``start`` of its file."""
    file = notes / str(pid)
    data = file.read_bytes()[start:] if file.exists() else b""
    return [data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES)]
