"""What an export reads: IDs and sequences from a dataset, embeddings from a store, one sequence at a time."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.encoders.pooling import pool_rows
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheDamagedError, CacheIncompleteError, InvalidInputError
from embedcache.progress import Progress
from embedcache.sequences import MODALITIES, Modality
from embedcache.store.layout import REPAIR
from embedcache.store.read import EmbeddingStore

__all__ = ["ExportSource", "open_source", "provenance", "recorded_spec"]

RECORD = "embedcache-export"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSource:
    """The embeddings of one modality of a dataset."""

    dataset: Dataset
    store: EmbeddingStore
    ids: Mapping[bytes, list[str]]
    """The IDs of each sequence, in the order of the samples."""
    lengths: Mapping[bytes, int]
    """Rows of each sequence in the store."""

    @property
    def modality(self) -> Modality:
        """Of the sequences."""
        return self.store.spec.modality

    @property
    def width(self) -> int:
        """Numbers a row."""
        return self.store.spec.width

    @property
    def n_ids(self) -> int:
        """Transcripts that have the modality."""
        return sum(map(len, self.ids.values()))

    def n_rows(self, *, each_id: bool) -> int:
        """Rows of all sequences, those of a repeated one counted once or for each of its IDs."""
        return sum(n * (len(self.ids[key]) if each_id else 1) for key, n in self.lengths.items())

    def by_sequence(self) -> Iterator[tuple[bytes, str, list[str]]]:
        """Stream key, letters and IDs of each distinct sequence."""
        with Progress(self.n_rows(each_id=False), "row", f"export {self.modality}") as progress:
            for key, sequence in self.dataset.sequences(self.modality):
                if key in self.ids:
                    yield key, sequence, self.ids[key]
                    progress.update(self.lengths[key])

    def by_id(self) -> Iterator[tuple[str, bytes]]:
        """Stream ID and key of each sample that has the modality, in their order."""
        samples = zip(self.dataset.samples["transcript_id"], self.dataset.keys(self.modality), strict=True)
        with Progress(self.n_rows(each_id=True), "row", f"export {self.modality}") as progress:
            for identifier, key in samples:
                if key is not None:
                    yield str(identifier), key
                    progress.update(self.lengths[key])

    def rows(self, key: bytes, dtype: str) -> NDArray[Any]:
        """A copy of the rows of a sequence, (tokens, width).

        Raises:
            InvalidInputError: A number is too large for float16.
            CacheDamagedError: Its bytes are not those that were committed.
        """
        return self._cast(self._read(key), key, dtype)

    def mean(self, key: bytes, dtype: str = "float32") -> NDArray[Any]:
        """Mean of the rows of a sequence, (width,), summed in float64.

        Raises:
            InvalidInputError: A number is too large for float16.
            CacheDamagedError: Its bytes are not those that were committed.
        """
        pooled = pool_rows(np.asarray(self._read(key), np.float32), "mean")
        return self._cast(pooled[0], key, dtype)

    def _read(self, key: bytes) -> NDArray[Any]:
        """``store[key]``, its checksum compared: nobody could tell later that an output was made of damaged bytes."""
        position = int(self.store.find([key])[0])
        stored = self.store.view(position)
        if not self.store.is_whole(position, stored):
            raise CacheDamagedError(
                f"{self.modality} embedding of {self.ids[key][0]!r} is damaged in {self.store.root}. {REPAIR}"
            )
        rows = self.store.decode(stored)
        return (rows.float() if self.store.dtype == "bfloat16" else rows).numpy()

    def _cast(self, values: NDArray[Any], key: bytes, dtype: str) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # told below, with the ID
            cast = np.array(values, dtype)
        if dtype == "float16" and not np.isfinite(cast).all():
            largest = float(np.abs(values.astype(np.float32)).max())
            raise InvalidInputError(
                f"{self.modality} embedding of {self.ids[key][0]!r} has {largest:.4g}, more than float16 can hold. "
                "Export with --dtype float32."
            )
        return cast


def open_source(dataset: Dataset, store: EmbeddingStore) -> ExportSource:
    """The embeddings of all samples of a dataset that have the modality of a store.

    Raises:
        InvalidInputError: No sample has it.
        CacheIncompleteError: The store lacks sequences.
    """
    modality = store.spec.modality
    ids: dict[bytes, list[str]] = {}
    for identifier, key in zip(dataset.samples["transcript_id"], dataset.keys(modality), strict=True):
        if key is not None:
            ids.setdefault(key, []).append(str(identifier))
    if not ids:
        raise InvalidInputError(
            f"{dataset.path} has no {modality} sequences, only {', '.join(dataset.modalities) or 'none at all'}. "
            "Choose another --modality."
        )
    positions = store.find(list(ids))
    if absent := int((positions < 0).sum()):
        verb = "import" if store.spec.is_imported else "build"
        raise CacheIncompleteError(
            f"{store.root} lacks {absent:,} of {len(ids):,} {modality} sequences of {dataset.path}. Run `embedcache "
            f"{verb} --modality {modality}` with the settings of this store first."
        )
    lengths = dict(zip(ids, store.lengths[positions].tolist(), strict=True))
    return ExportSource(dataset=dataset, store=store, ids=ids, lengths=lengths)


def provenance(source: ExportSource, *, pooled: bool) -> str:
    """Where the numbers come from, as JSON for the file that holds them; no path of this machine."""
    return json.dumps(
        {
            "format": RECORD,
            "version": 1,
            "encoder": source.store.spec.to_json(),
            "digest": source.store.spec.digest,
            "random_weights": source.store.spec.is_random,
            "pooled": pooled,
            "dataset": {"digest": source.dataset.digest, "labels": source.dataset.labels},
        }
    )


def recorded_spec(text: Any, where: str, name: str = "") -> EncoderSpec | None:
    """The encoder in what ``provenance`` or ``EncoderSpec.to_json`` wrote; None if another tool wrote it.

    Args:
        text: JSON, as the file gives it.
        where: The file, for messages.
        name: Which of several encoders, where there are several.

    Raises:
        CacheMismatchError: Another version of isoheads wrote it.
    """
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    found = found.get("encoders", {}).get(name) if name else found.get("encoder", found)
    is_spec = isinstance(found, dict) and found.get("modality") in MODALITIES and "adapter" in found
    return EncoderSpec.from_json(found, where) if is_spec else None
