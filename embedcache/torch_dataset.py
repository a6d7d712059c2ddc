"""Embeddings for training loops of your own: a torch dataset that reads a whole batch in one call.

    data = EmbeddingDataset("cache/protein/esm2-150m-0123456789ab", records)
    for batch in DataLoader(data, batch_size=64, shuffle=True, collate_fn=collate):
        tokens = batch.tokens["protein"]  # Ragged: values (N, D), offsets (65,)

A DataLoader gives the numbers of a batch to ``__getitems__`` and what comes back to ``collate``, both in the worker.
Its workers help where reading waits for an object store or a slow disk: ``num_workers=4, persistent_workers=True``,
for an object store with ``multiprocessing_context="spawn"``. From a local disk ``data.batches(rows_of_each_batch)`` is
several times faster, for nothing is handed from process to process.
Shapes: B rows of a batch, N packed tokens, T tokens of the longest row, D width of a store, K targets.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from embedcache.dataset import read_dataset
from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.place import ObjectUrl, Place
from embedcache.ragged import Ragged
from embedcache.sequences import Modality, SequenceRecord, sequence_key
from embedcache.splits import SplitName
from embedcache.store.find import find_store
from embedcache.store.read import EmbeddingStore

__all__ = ["EmbeddingDataset", "Padded", "TokenBatch", "TokenSample", "collate", "collate_padded"]

StoreLike: TypeAlias = EmbeddingStore | Place | str
KeyLike: TypeAlias = bytes | SequenceRecord | None
"""A sequence key, a record whose sequence has it, or None for a row that lacks the modality."""


class Padded(NamedTuple):
    """Tokens of B rows side by side, zeros behind the end of each."""

    values: Tensor
    """(B, T, D)."""
    mask: Tensor
    """(B, T), True on real tokens."""


class TokenSample(NamedTuple):
    """One row: tokens (T, D) by name of the store, none where the row lacks the modality."""

    tokens: dict[str, Tensor]
    targets: Tensor
    """(K,) float32, NaN where not measured; K = 0 without targets."""
    row: int


class TokenBatch(NamedTuple):
    """B rows. A tuple of tensors through and through, so that a DataLoader can pin it."""

    tokens: dict[str, Any]
    """By name of the store: ``Ragged``, or ``Padded`` from ``collate_padded``."""
    targets: Tensor
    """(B, K) float32, NaN where not measured; K = 0 without targets."""
    rows: Tensor
    """(B,) int64, row numbers of the dataset."""


class EmbeddingDataset(torch.utils.data.Dataset[TokenSample]):
    """Rows of one or several stores, in the order of their keys.

    Numbers are those of the store; int8 is decoded to float32. Each batch has memory of its own. Stores travel to
    spawned workers by their place, and rows by their keys, for a store may have grown in between. Forked workers are
    fine with local stores; one in an object store tells that it needs ``multiprocessing_context="spawn"``.

    Args:
        stores: A store or its place, which is named after its modality; or several by name.
        keys: Key or record of each row; by name of the store if there are several. None: the row lacks it.
        targets: (rows, K), NaN where not measured.
        ids: Name of each row; without any, that of its record, or its key in hexadecimal.

    Raises:
        InvalidInputError: Keys of other stores, of different number, or that are no keys.
        CacheIncompleteError: Sequences are not in a store.
    """

    def __init__(
        self,
        stores: StoreLike | Mapping[str, StoreLike],
        keys: Sequence[KeyLike] | Mapping[str, Sequence[KeyLike]],
        targets: Any = None,
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        if isinstance(stores, EmbeddingStore | Path | ObjectUrl | str):
            store = _opened(stores)
            opened = {str(store.spec.modality): store}
            keys = keys if isinstance(keys, Mapping) else {store.spec.modality: keys}
        else:
            opened = {name: _opened(one) for name, one in stores.items()}
        if not isinstance(keys, Mapping) or not opened or set(keys) != set(opened):
            given = f"for {', '.join(sorted(keys))}" if isinstance(keys, Mapping) else "without names"
            raise InvalidInputError(
                f"Keys are given {given}, stores are {', '.join(sorted(opened)) or 'none'}. "
                "Give a list of keys for each store, under the same name."
            )
        self.stores = opened
        n_rows = len(next(iter(keys.values())))
        self.targets: NDArray[np.float32] = np.asarray(np.zeros((n_rows, 0)) if targets is None else targets, "f4")
        sizes = {name: len(some) for name, some in keys.items()} | {"targets": len(self.targets)}
        sizes |= {} if ids is None else {"ids": len(ids)}
        if len(set(sizes.values())) > 1 or self.targets.ndim != 2:
            found = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise InvalidInputError(
                f"Rows do not match: {found}, targets {self.targets.shape}. Give one of each a row."
            )
        self._keys = {name: [_key(one) for one in keys[name]] for name in self.stores}
        self.ids = list(ids) if ids is not None else _ids(keys)
        self._find()

    @classmethod
    def from_directory(
        cls,
        dataset: Path | str,
        cache: str | Place,
        modalities: Sequence[Modality] | None = None,
        *,
        encoders: Mapping[Modality, str] | None = None,
        split: SplitName | None = None,
        transcripts: Sequence[str] | None = None,
    ) -> "EmbeddingDataset":
        """Rows of a dataset that ``embedcache prepare`` wrote, with its targets if it has any.

        Args:
            dataset: Directory of the dataset.
            cache: Root of the cache.
            modalities: What is read, by default all that the dataset has; stores are named after them.
            encoders: Encoder of a modality by name, or by name and digest; else the dataset's default.
            split: Rows of one split only.
            transcripts: These transcripts only, in this order.

        Raises:
            InvalidInputError: No such dataset, or no sequence of a modality.
            UnknownNameError: The dataset has no such transcript or split.
            CacheError: No store, several that fit, or one that lacks sequences.
        """
        found = read_dataset(dataset)
        rows = _chosen_rows(
            found.samples["transcript_id"].tolist(), found.samples["split"].tolist(), split, transcripts
        )
        stores, keys = dict[str, StoreLike](), dict[str, Sequence[KeyLike]]()
        if isinstance(modalities, str) or isinstance(encoders, str):
            raise InvalidInputError("modalities are a list, such as ['rna'], encoders a dict, {'rna': 'nt-v2-250m'}.")
        modalities = modalities or found.modalities
        if unread := [name for name in encoders or () if name not in modalities]:
            raise InvalidInputError(
                f"An encoder is named for {unread[0]!r}, read are {', '.join(modalities)}. Name one of them, or read "
                f"{unread[0]} as well."
            )
        for modality in modalities:
            if modality not in found.modalities:
                raise InvalidInputError(
                    f"{found.path} has no {modality!r} sequences. Choose of {', '.join(found.modalities)}."
                )
            stores[modality] = find_store(cache, modality, (encoders or {}).get(modality) or found.encoder(modality))
            all_keys = found.keys(modality)
            keys[modality] = [all_keys[row] for row in rows]
        targets = None if found.targets is None else found.targets.to_numpy(np.float32)[rows]
        return cls(stores, keys, targets, ids=found.samples["transcript_id"].iloc[rows].tolist())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> TokenSample:
        """One row. A DataLoader asks for whole batches instead."""
        row = range(len(self))[row]  # negative numbers, and IndexError at the end
        batch = self.__getitems__([row])
        return TokenSample({name: tokens.values for name, tokens in batch.tokens.items()}, batch.targets[0], row)

    def __getitems__(self, rows: Sequence[int]) -> TokenBatch:
        """Several rows, read in one call a store; tokens are ``Ragged``."""
        where = np.asarray(rows, np.int64)
        return TokenBatch(
            {name: self._read(name, where) for name in self.stores},
            torch.from_numpy(self.targets[where]),
            torch.from_numpy(where),
        )

    def batches(self, rows: Sequence[Sequence[int]]) -> Iterator[TokenBatch]:
        """Several batches in order, read ahead by a thread into reused memory: the fastest way from a local store.

        A batch is valid until the next one is asked for. Its numbers are those of ``__getitems__``.

        Args:
            rows: Row numbers of each batch.
        """
        where = [np.asarray(one, np.int64) for one in rows]
        streams = [store.prefetch([self._positions[name][one] for one in where]) for name, store in self.stores.items()]
        for one, *found in zip(where, *streams, strict=True):
            decoded = [
                part._replace(values=store.decode(part.values))
                for store, part in zip(self.stores.values(), found, strict=True)
            ]
            tokens = dict(zip(self.stores, decoded, strict=True))
            yield TokenBatch(tokens, torch.from_numpy(self.targets[one]), torch.from_numpy(one))

    def _read(self, name: str, rows: NDArray[np.int64]) -> Ragged:
        store, positions = self.stores[name], self._positions[name][rows]
        in_worker = torch.utils.data.get_worker_info() is not None
        found = store.packed(positions, _shared(store, positions) if in_worker and store.dtype != "int8" else None)
        return found._replace(values=store.decode(found.values))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_positions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._find()

    def _find(self) -> None:
        """Look up the keys. Positions hold for the stores as they were opened here."""
        self._positions = {name: _positions(store, self._keys[name]) for name, store in self.stores.items()}


def collate(found: TokenBatch | Sequence[TokenSample]) -> TokenBatch:
    """Pass a batch on; pack samples that came one by one, as they do through a ``ConcatDataset``."""
    if isinstance(found, TokenBatch):
        return found
    return TokenBatch(
        {name: Ragged.from_list([sample.tokens[name] for sample in found]) for name in found[0].tokens},
        torch.stack([sample.targets for sample in found]),
        torch.tensor([sample.row for sample in found]),
    )


def collate_padded(found: TokenBatch | Sequence[TokenSample]) -> TokenBatch:
    """As ``collate``, with ``Padded`` in place of ``Ragged``: for models that take a rectangle and a mask."""
    batch = collate(found)
    return batch._replace(tokens={name: _padded(tokens) for name, tokens in batch.tokens.items()})


def _padded(tokens: Ragged) -> Padded:
    values = pad_sequence(tokens.to_list(), batch_first=True)  # (B, T, D)
    return Padded(values, torch.arange(values.shape[1]) < tokens.lengths[:, None])


def _shared(store: EmbeddingStore, positions: NDArray[np.int64]) -> Tensor | None:
    """Memory for these sequences that a worker hands over as it is; other tensors are copied into such memory first."""
    n_rows = int(store.lengths[positions[positions >= 0]].sum())
    if not n_rows:
        return None
    storage = torch.UntypedStorage._new_shared(n_rows * store.layout.row_bytes)  # type: ignore[no-untyped-call]
    columns = store.layout.columns
    return store.empty(0).set_(storage, 0, (n_rows, columns), (columns, 1))


def _opened(store: StoreLike) -> EmbeddingStore:
    return store if isinstance(store, EmbeddingStore) else EmbeddingStore.open(store)


def _key(one: KeyLike) -> bytes | None:
    if isinstance(one, SequenceRecord):
        return sequence_key(one.sequence, one.modality)
    if one is None or (isinstance(one, bytes) and len(one) == 16):
        return one
    raise InvalidInputError(
        f"{one!r} is no sequence key. Give 16 bytes as `sequence_key` makes them, a SequenceRecord, or None."
    )


def _ids(keys: Mapping[str, Sequence[KeyLike]]) -> list[str]:
    """Of each row the first name that any of its keys gives."""
    rows = zip(*keys.values(), strict=True)
    return [next((_id(one) for one in row if one is not None), "") for row in rows]


def _id(one: bytes | SequenceRecord) -> str:
    return one.id if isinstance(one, SequenceRecord) else one.hex()


def _positions(store: EmbeddingStore, keys: Sequence[bytes | None]) -> NDArray[np.int64]:
    """Position of each row in a store, -1 where it has none."""
    positions = np.full(len(keys), -1, np.int64)
    positions[[key is not None for key in keys]] = store.require([key for key in keys if key is not None])
    return positions


def _chosen_rows(
    all_ids: list[str], all_splits: list[str], split: SplitName | None, transcripts: Sequence[str] | None
) -> list[int]:
    if split is not None and split not in all_splits:
        raise UnknownNameError("split", split, set(all_splits))
    row_of = {name: row for row, name in enumerate(all_ids)}
    for name in transcripts or ():
        if name not in row_of:
            raise UnknownNameError("transcript", name, row_of)
    rows = range(len(all_ids)) if transcripts is None else [row_of[name] for name in transcripts]
    return [row for row in rows if split in (None, all_splits[row])]
