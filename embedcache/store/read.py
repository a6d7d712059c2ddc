"""Reading a store: which sequences it has, and batches of their rows, copied in one call."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheDamagedError, CacheIncompleteError, InvalidInputError
from embedcache.place import Place, parse_place
from embedcache.store.files import open_files
from embedcache.store.index import load_entries, search_keys
from embedcache.store.layout import INNER_ROWS, REPAIR, Array, crc32c, read_layout
from embedcache.store.mean import read_mean
from embedcache.store.numbers import decode_rows

if TYPE_CHECKING:  # torch takes seconds to import, and `embedcache info` needs none of it
    from torch import Tensor

    from embedcache.ragged import Ragged

__all__ = ["EmbeddingStore"]

Positions: TypeAlias = NDArray[np.int64]


class Shards(Protocol):
    """Where rows come from: files mapped into memory, or ranges of objects."""

    def views(self, places: "Iterable[tuple[int, int, int]]") -> "list[Tensor]":
        """Rows of each (shard, start, length) as stored, (length, columns)."""
        ...

    def advise(self, places: "Iterable[tuple[int, int, int]]") -> None:
        """Say which rows will be asked for soon."""
        ...


class EmbeddingStore(Mapping[bytes, Array]):
    """The embeddings of one encoder spec that were committed when it was opened.

    A Mapping from sequence key (16 bytes) to a read-only array (tokens, width). Batches are faster: ``find`` positions
    once, then ``packed`` or ``prefetch``. A ``view`` of a local store maps a file: writing to it ends the process.
    """

    def __init__(self, root: str | Place) -> None:
        self.root = parse_place(root)
        self.files = open_files(self.root)
        self.layout = read_layout(self.files)
        self._entries, self.tasks, self.index_is_current = load_entries(self.files)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each sequence, by position."""
        return self._entries["length"].astype(np.int64)

    @cached_property
    def _high(self) -> NDArray[np.uint64]:
        """First halves of the keys, sorted: a search would copy them, each time, from between the other fields."""
        return np.ascontiguousarray(self._entries["high"])

    @classmethod
    def open(cls, root: str | Place) -> "EmbeddingStore":
        """Open the store at ``root``, a directory or ``s3://bucket/path``.

        Raises:
            CacheError: No store there, or one of a newer format.
            CacheDamagedError: Its metadata or a commit record is damaged.
        """
        return cls(root)

    def __reduce__(self) -> "tuple[type[EmbeddingStore], tuple[Place]]":
        return EmbeddingStore, (self.root,)  # maps, locks and network clients do not travel to a spawned process

    @property
    def spec(self) -> EncoderSpec:
        """The encoder whose embeddings these are."""
        return self.layout.spec

    @property
    def width(self) -> int:
        """Numbers a token."""
        return self.layout.width

    @property
    def dtype(self) -> str:
        """Name of the stored type, as torch spells it."""
        return self.spec.store_dtype

    @property
    def n_tokens(self) -> int:
        """Rows of all sequences."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[bytes]:
        pairs = np.stack([self._entries["high"], self._entries["low"]], axis=1).astype(">u8")
        return (pair.tobytes() for pair in pairs)

    __eq__, __hash__ = object.__eq__, object.__hash__  # a Mapping would compare arrays, which have no one truth value

    def __contains__(self, key: object) -> bool:
        return self._position(key) >= 0

    def __getitem__(self, key: bytes) -> Array:
        """Token embeddings (tokens, width); bfloat16, which numpy lacks, and int8 come as float32."""
        position = self._position(key)
        if position < 0:
            raise KeyError(key)
        rows = self.decode(self.view(position))
        array: Array = (rows.float() if self.dtype == "bfloat16" else rows).numpy()
        array.flags.writeable = False  # else numpy would write to the map of a file, and the process would end
        return array

    def _position(self, key: object) -> int:
        """Position of anything: -1 for what is absent, or no key at all."""
        return int(self.find([key])[0]) if isinstance(key, bytes) and len(key) == 16 else -1

    def find(self, keys: Sequence[bytes]) -> Positions:
        """Positions of keys, -1 for an absent one, (len(keys),). All 128 bits are compared.

        Raises:
            InvalidInputError: Something is not 16 bytes.
        """
        if {*map(type, keys)} - {bytes} or {*map(len, keys)} - {16}:  # laid end to end they might look right
            wrong = next(key for key in keys if not isinstance(key, bytes) or len(key) != 16)
            raise InvalidInputError(f"{wrong!r} is no sequence key. Give 16 bytes, as `sequence_key` makes them.")
        high, low = np.frombuffer(b"".join(keys), ">u8").astype("u8").reshape(-1, 2).T
        return search_keys(self._high, self._entries["low"], high, low)

    def require(self, keys: Sequence[bytes]) -> Positions:
        """Positions of keys that must all be here.

        Raises:
            CacheIncompleteError: Some are absent.
        """
        positions = self.find(keys)
        if absent := int((positions < 0).sum()):
            raise CacheIncompleteError(
                f"{self.root} lacks {absent} of {len(keys)} {self.spec.modality} sequences. Run `embedcache build "
                f"--modality {self.spec.modality}` with the same encoder on this dataset."
            )
        return positions

    def view(self, position: int) -> "Tensor":
        """Rows of one sequence as stored, (tokens, columns); of a local store without a copy."""
        return self._shards.views(self._places(np.array([position])))[0]

    def decode(self, rows: "Tensor") -> "Tensor":
        """Embeddings (N, width) of rows as stored, on any device: float32 for int8, else the rows themselves."""
        mean = self._mean.to(rows.device) if self.dtype == "int8" and len(rows) else None
        return decode_rows(rows, self.dtype, mean)

    @cached_property
    def _mean(self) -> "Tensor":
        """What was subtracted from rows of int8, (width,)."""
        import torch

        return torch.from_numpy(read_mean(self.files, self.layout))

    @cached_property
    def _shards(self) -> Shards:
        if isinstance(self.root, Path):
            from embedcache.store.maps import MappedShards

            return MappedShards(self.root, self.layout)
        from embedcache.store.objects import ObjectFiles
        from embedcache.store.ranges import FetchedShards

        return FetchedShards(ObjectFiles(self.root), self.layout)

    def _places(self, positions: Positions) -> Iterable[tuple[int, int, int]]:
        """Shard, first row and rows of each sequence; gathered at once, for a batch spends its time here."""
        found = self._entries[positions]
        columns = found["shard"], found["start"], self.lengths[positions]
        return zip(*(column.tolist() for column in columns), strict=True)

    def packed(self, positions: Positions | Sequence[int], out: "Tensor | None" = None) -> "Ragged":
        """Sequences laid end to end, values (N, columns) as stored; ``decode`` makes numbers of int8.

        Args:
            positions: Which sequences; -1 stands for a sequence without tokens, such as a missing modality.
            out: Memory (at least N, columns) to reuse, seven times the speed of fresh memory.
        """
        import torch

        from embedcache.ragged import Ragged

        where = np.asarray(positions, np.int64)
        is_here = where >= 0
        present = where[is_here]
        lengths = self.lengths[present]
        offsets = np.zeros(len(where) + 1, np.int64)
        offsets[1:][is_here] = lengths
        np.cumsum(offsets, out=offsets)
        n_rows = int(offsets[-1])
        values = self.empty(n_rows) if out is None else out[:n_rows]
        if len(present):
            # one call: the GIL is given up and taken back once a batch, not once a sequence. torch.cat would do, but
            # its loop is a tenth slower than that of copy_
            torch._foreach_copy_(values.split_with_sizes(lengths.tolist()), self._shards.views(self._places(present)))
        return Ragged(values, torch.from_numpy(offsets))

    def batch(self, keys: Sequence[bytes | None]) -> "Ragged":
        """Embeddings by key, packed, values (N, width); None stands for a missing modality.

        Raises:
            CacheIncompleteError: A key is not in the store.
        """
        positions = np.full(len(keys), -1, np.int64)
        positions[[key is not None for key in keys]] = self.require([key for key in keys if key is not None])
        found = self.packed(positions)
        return found._replace(values=self.decode(found.values))

    def prefetch(
        self, batches: Sequence[Positions], *, depth: int = 3, ahead: int = 4, pinned: bool = False
    ) -> "Iterator[Ragged]":
        """Packed batches, read by a thread into a ring of reused buffers.

        A batch is valid until the next one is asked for.

        Args:
            batches: Positions of each batch, as for ``packed``.
            depth: Buffers of the ring.
            ahead: How many batches ahead the disk is asked to read.
            pinned: Whether buffers are locked in memory, so that a GPU fetches them by itself.
        """
        from embedcache.store.ahead import read_ahead

        return read_ahead(self, batches, depth=depth, ahead=ahead, pinned=pinned)

    def advise(self, positions: Positions) -> None:
        """Ask for these sequences to be read or fetched; returns before they are."""
        self._shards.advise(self._places(positions[positions >= 0]))

    def empty(self, n_rows: int, *, pinned: bool = False) -> "Tensor":
        """Uninitialised memory (n_rows, columns) of the stored dtype; ``pinned`` for copies to a GPU."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        if pinned:
            return torch.empty(n_rows, self.layout.columns, dtype=dtype, pin_memory=True)
        # numpy asks for huge pages where torch does not: they are filled a tenth faster
        return torch.from_numpy(np.empty((n_rows, self.layout.columns), self.layout.stored)).view(dtype)

    def damaged(self) -> list[int]:
        """Positions of sequences whose bytes are not those of their record."""
        return [p for p in range(len(self)) if not self.is_whole(p, self.view(p))]

    def is_whole(self, position: int, rows: "Tensor") -> bool:
        """Whether the bytes of a ``view`` are those that were committed."""
        import torch

        return bool(crc32c(rows.view(torch.uint8).numpy()) == self._entries["crc"][position])

    def check_shards(self) -> None:
        """Look whether every committed shard is there in its length; reads nothing but sizes.

        Raises:
            CacheDamagedError: Some are missing or cut.
        """
        shards = self._entries["shard"]
        numbers = np.unique(shards)
        n_rows = np.zeros(len(numbers), np.int64)  # never as many as the largest number: it may be a wrong one
        np.maximum.at(n_rows, np.searchsorted(numbers, shards), self._entries["start"] + self.lengths)
        sizes = {name: status.size for name, status in self.files.statuses("tokens/c").items()}
        lost = [
            number
            for number, n in zip(numbers.tolist(), n_rows.tolist(), strict=True)
            if sizes.get(f"tokens/c/{number}/0", 0)
            < -(-n // INNER_ROWS) * self.layout.inner_bytes + self.layout.index_bytes
        ]
        if lost:
            raise CacheDamagedError(
                f"{len(lost)} of {len(numbers)} shards are missing or cut, such as "
                f"{self.root / 'tokens' / 'c' / str(lost[0]) / '0'}. {REPAIR}"
            )
