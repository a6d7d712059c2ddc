"""A small dataset with a store, made without a build, and the way out and back in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fakes import FakeEncoder, fake_spec
from numpy.typing import NDArray

from embedcache.dataset import Dataset, read_dataset
from embedcache.dataset_write import write_dataset
from embedcache.encoders.pooling import pool_rows
from embedcache.encoders.spec import EncoderSpec
from embedcache.exchange.claim import Claim
from embedcache.exchange.export import export_embeddings
from embedcache.exchange.importing import ImportReport, import_embeddings
from embedcache.sequences import Modality, sequence_key
from embedcache.store import EmbeddingStore, commit_task, create_store, store_path, write_index
from embedcache.store.files import open_files
from embedcache.store.mean import settle_mean
from embedcache.store.numbers import encode_rows

HARD_IDS = ("tr|A/1|x y", "tr|A|1|x y", "ü%2F", ".", "..", "..pt", "N" * 300, "a b", "a", "a%20b", "50%", "'\"\\")
"""IDs that file names and groups of HDF5 do not take as they are."""


@dataclass(frozen=True, slots=True)
class Study:
    dataset: Path
    cache: Path
    sequences: dict[str, str]
    """By ID, those that have the modality."""
    spec: EncoderSpec

    @property
    def store(self) -> EmbeddingStore:
        return EmbeddingStore(store_path(self.cache, self.spec))

    def rows(self, identifier: str) -> NDArray[np.float32]:
        return np.asarray(self.store[sequence_key(self.sequences[identifier], self.spec.modality)], np.float32)

    def mean(self, identifier: str) -> NDArray[np.float32]:
        return pool_rows(self.rows(identifier), "mean")[0]

    def export(self, name: str, output: Path, **options: Any) -> None:
        options = {"modalities": [self.spec.modality], **options}
        export_embeddings(format=name, output=output, dataset=self.dataset, cache=self.cache, **options)  # type: ignore[arg-type]

    def import_(self, name: str, path: Path, cache: Path, **options: Any) -> tuple[ImportReport, EmbeddingStore]:
        claim = Claim(encoder=options.pop("encoder", "fake"), **options.pop("claim", {}))
        report = import_embeddings(
            format=name,  # type: ignore[arg-type]
            modality=options.pop("modality", self.spec.modality),
            claim=claim,
            input=path,
            cache=cache,
            dataset=options.pop("dataset", self.dataset),
            **options,
        )
        return report, EmbeddingStore(Path(report.store))


def make_study(
    path: Path,
    sequences: Mapping[str, str | None] | Sequence[str],
    *,
    modality: Modality = "protein",
    targets: NDArray[np.float64] | None = None,
    leave_out: Sequence[str] = (),
    **changes: Any,
) -> Study:
    """Write a dataset of these sequences, and a store of all but those left out."""
    named = dict(sequences) if isinstance(sequences, Mapping) else {f"p{i}": s for i, s in enumerate(sequences)}
    present = {name: sequence for name, sequence in named.items() if sequence is not None}
    make_dataset(path / "dataset", named, modality, targets)
    encoder = FakeEncoder(modality=modality, **changes)
    store = make_store(path / "cache", encoder.spec, [s for s in present.values() if s not in leave_out])
    assert store.spec == encoder.spec
    return Study(path / "dataset", path / "cache", present, encoder.spec)


def make_dataset(
    path: Path, sequences: Mapping[str, str | None], modality: Modality, targets: NDArray[np.float64] | None = None
) -> Dataset:
    keys = [None if s is None else sequence_key(s, modality) for s in sequences.values()]
    samples = pd.DataFrame(
        {
            "transcript_id": list(sequences),
            "gene_id": [f"g{i}" for i in range(len(sequences))],
            "gene_name": [None if i == 1 else f"name{i}" for i in range(len(sequences))],
            "split": ["train", "validation", "test"] * (len(sequences) // 3) + ["train"] * (len(sequences) % 3),
            f"{modality}_key": keys,
        }
    )
    tissues = None if targets is None else pd.DataFrame(targets, columns=[f"t{i}" for i in range(targets.shape[1])])
    texts = [(modality, k, s) for k, s in zip(keys, sequences.values(), strict=True) if k is not None and s is not None]
    info: dict[str, Any] = {"source": "test", "labels": ["simulated"]}
    write_dataset(path, info=info, samples=samples, targets=tissues, sequences=texts)
    return read_dataset(path)


def make_store(cache: Path, spec: EncoderSpec, sequences: Sequence[str]) -> EmbeddingStore:
    encoder = FakeEncoder()
    encoder.spec = spec
    root = store_path(cache, spec)
    rows = {s: pool_rows(encoder.rows(s)[: spec.n_tokens(s)], spec.pooling) for s in dict.fromkeys(sequences)}
    layout = create_store(root, spec, longest=max(map(len, rows.values()), default=0), shard_bytes=1 << 14)
    mean = settle_mean(open_files(root), layout, list(rows.values())) if spec.store_dtype == "int8" else None
    if rows:
        stored = {s: encode_rows(values, spec.store_dtype, mean) for s, values in rows.items()}
        commit_task(root, [(sequence_key(s, spec.modality), values) for s, values in stored.items()])
    write_index(root)
    return EmbeddingStore(root)


def fasta(path: Path, sequences: Mapping[str, str]) -> Path:
    path.write_text("".join(f">{name} of nothing\n{sequence}\n" for name, sequence in sequences.items()))
    return path


__all__ = ["HARD_IDS", "Study", "fake_spec", "fasta", "make_dataset", "make_store", "make_study"]
