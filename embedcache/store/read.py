"""Reading a store: shards are mapped into memory and batches are copied out of the maps in one call."""

import mmap
import resource
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheDamagedError, CacheIncompleteError
from embedcache.store.index import load_entries
from embedcache.store.layout import EMPTY_CHUNK, INNER_ROWS, Array, Layout, crc32c, read_layout

if TYPE_CHECKING:  # torch takes seconds to import, and `embedcache info` needs none of it
    from torch import Tensor

    from embedcache.ragged import Ragged

__all__ = ["EmbeddingStore"]

Positions: TypeAlias = NDArray[np.int64]
REPAIR = "Restore it, or run `embedcache verify --repair` and build again."


class EmbeddingStore(Mapping[bytes, Array]):
    """The embeddings of one encoder spec that were committed when it was opened.

    A Mapping from sequence key (16 bytes) to a read-only array (tokens, width). Batches are faster: ``find``
    positions once, then ``packed`` or ``prefetch``. Views are maps of files: writing to one ends the process.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.layout = read_layout(self.root)
        entries, self.tasks, self.index_is_current = load_entries(self.root)
        self._high, self._low = (np.ascontiguousarray(entries[name]) for name in ("high", "low"))
        self._shard, self._start, self._crc = (entries[name].astype(np.int64) for name in ("shard", "start", "crc"))
        self.lengths: NDArray[np.int64] = entries["length"].astype(np.int64)
        """Tokens of each sequence, by position."""
        self._maps: dict[int, tuple[Tensor, mmap.mmap]] = {}
        self._lock = threading.Lock()
        _allow_many_files()

    @classmethod
    def open(cls, root: Path | str) -> "EmbeddingStore":
        """Open the store at ``root``.

        Raises:
            CacheError: No store there, or one of a newer format.
            CacheDamagedError: Its metadata or a commit record is damaged.
        """
        return cls(root)

    def __reduce__(self) -> "tuple[type[EmbeddingStore], tuple[Path]]":
        return EmbeddingStore, (self.root,)  # maps and locks do not travel to a spawned process

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
        """Tokens of all sequences."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self._high)

    def __iter__(self) -> Iterator[bytes]:
        pairs = np.stack([self._high, self._low], axis=1).astype(">u8")
        return (pair.tobytes() for pair in pairs)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and len(key) == 16 and int(self.find([key])[0]) >= 0

    def __getitem__(self, key: bytes) -> Array:
        """Token embeddings (tokens, width); bfloat16, which numpy lacks, comes as float32."""
        position = int(self.find([key])[0])
        if position < 0:
            raise KeyError(key)
        view = self.view(position)
        return view.float().numpy() if self.dtype == "bfloat16" else view.numpy()

    def find(self, keys: Sequence[bytes]) -> Positions:
        """Positions of keys, -1 for an absent one, (len(keys),). All 128 bits are compared."""
        high, low = np.frombuffer(b"".join(keys), ">u8").astype("u8").reshape(-1, 2).T
        position = np.searchsorted(self._high, high)
        while len(self._high):  # a second round only where 64 bits of two keys are equal
            here = np.minimum(position, len(self._high) - 1)
            same = (position < len(self._high)) & (self._high[here] == high)
            other = same & (self._low[here] != low)
            if not other.any():
                return np.where(same, here, -1).astype(np.int64)
            position = position + other
        return np.full(len(keys), -1, np.int64)

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
        """Token embeddings of one sequence, (tokens, width), without a copy."""
        return self._views(np.array([position]))[0]

    def _views(self, positions: Positions) -> "list[Tensor]":
        """Rows of each sequence; numbers are gathered at once, for a batch spends its time here and in one copy."""
        views = []
        shards, starts, lengths = (x[positions].tolist() for x in (self._shard, self._start, self.lengths))
        for shard, start, length in zip(shards, starts, lengths, strict=True):
            rows = (self._maps.get(shard) or self._map(shard))[0]
            if start + length > len(rows):
                raise CacheDamagedError(f"{self._shard_path(shard)} is shorter than its record says. {REPAIR}")
            views.append(rows[start : start + length])
        return views

    def packed(self, positions: Positions | Sequence[int], out: "Tensor | None" = None) -> "Ragged":
        """Sequences laid end to end, values (N, width) in the stored dtype.

        Args:
            positions: Which sequences; -1 stands for a sequence without tokens, such as a missing modality.
            out: Memory (at least N, width) to reuse, seven times the speed of fresh memory.
        """
        import torch

        from embedcache.ragged import Ragged

        where = np.asarray(positions, np.int64)
        lengths = np.where(where >= 0, self.lengths[where] if len(self) else 0, 0)
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
        n_rows = int(offsets[-1])
        if out is None:
            out = self.empty(n_rows)
        # one call: the GIL is given up and taken back once a batch, not once a sequence
        views = self._views(where[where >= 0]) or [self.empty(0)]
        return Ragged(torch.cat(views, out=out[:n_rows]), offsets)

    def batch(self, keys: Sequence[bytes | None]) -> "Ragged":
        """Sequences by key, packed; None stands for a missing modality.

        Raises:
            CacheIncompleteError: A key is not in the store.
        """
        present = [key for key in keys if key is not None]
        positions = np.full(len(keys), -1, np.int64)
        positions[[key is not None for key in keys]] = self.require(present)
        return self.packed(positions)

    def prefetch(self, batches: Sequence[Positions], *, depth: int = 3, ahead: int = 4) -> "Iterator[Ragged]":
        """Packed batches, read by a thread into a ring of reused buffers.

        A batch is valid until the next one is asked for.

        Args:
            batches: Positions of each batch, as for ``packed``.
            depth: Buffers of the ring.
            ahead: How many batches ahead the disk is asked to read.
        """
        sizes = (int(self.lengths[batch[batch >= 0]].sum()) for batch in batches)
        capacity = max(sizes, default=0)
        ring = [self.empty(capacity).zero_() for _ in range(min(depth, len(batches)))]  # touch the memory once

        def load(i: int) -> "Ragged":
            for batch in batches[i + ahead : i + ahead + 1]:
                self.advise(batch)
            return self.packed(batches[i], ring[i % depth])

        with ThreadPoolExecutor(1) as loader:
            for batch in batches[:ahead]:
                loader.submit(self.advise, batch)
            pending = deque(loader.submit(load, i) for i in range(min(depth, len(batches))))
            for i in range(depth, len(batches) + depth):
                if pending:
                    yield pending.popleft().result()
                if i < len(batches):
                    pending.append(loader.submit(load, i))

    def advise(self, positions: Positions) -> None:
        """Ask the kernel to read these sequences; returns before it has."""
        row_bytes = self.layout.row_bytes
        for position in positions[positions >= 0]:
            start, length = int(self._start[position]) * row_bytes, int(self.lengths[position]) * row_bytes
            before = start % mmap.PAGESIZE
            mapped = self._map(int(self._shard[position]))[1]
            mapped.madvise(mmap.MADV_WILLNEED, start - before, max(length + before, 1))

    def empty(self, n_rows: int) -> "Tensor":
        """Uninitialised memory (n_rows, width) of the stored dtype."""
        import torch

        return torch.empty(n_rows, self.width, dtype=getattr(torch, self.dtype))

    def damaged(self) -> list[int]:
        """Positions of sequences whose bytes are not those of their record."""
        import torch

        return [p for p in range(len(self)) if crc32c(self.view(p).view(torch.uint8).numpy()) != self._crc[p]]

    def check_shards(self) -> None:
        """Look whether every committed shard is there in its length; reads nothing but sizes.

        Raises:
            CacheDamagedError: Some are missing or cut.
        """
        n_rows = np.zeros(int(self._shard.max(initial=-1)) + 1, np.int64)
        np.maximum.at(n_rows, self._shard, self._start + self.lengths)
        lost = [number for number in np.unique(self._shard).tolist() if self._is_short(number, int(n_rows[number]))]
        if lost:
            raise CacheDamagedError(
                f"{len(lost)} of {len(np.unique(self._shard))} shards are missing or cut, such as "
                f"{self._shard_path(lost[0])}. {REPAIR}"
            )

    def _is_short(self, number: int, n_rows: int) -> bool:
        expected = -(-n_rows // INNER_ROWS) * self.layout.inner_bytes + self.layout.index_bytes
        try:
            return self._shard_path(number).stat().st_size < expected
        except OSError:
            return True

    def _shard_path(self, number: int) -> Path:
        return self.root / "tokens" / "c" / str(number) / "0"

    def _map(self, number: int) -> "tuple[Tensor, mmap.mmap]":
        with self._lock:
            if number not in self._maps:
                self._maps[number] = _map_shard(self._shard_path(number), self.layout)
            return self._maps[number]


def _map_shard(path: Path, layout: Layout) -> "tuple[Tensor, mmap.mmap]":
    """Rows (n, width) of a shard and its map, after its index was found to be that of plain C-order rows."""
    import torch

    n_inner = layout.shard_rows // INNER_ROWS
    index_bytes = layout.index_bytes
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (FileNotFoundError, ValueError) as error:  # ValueError: an empty file
        raise CacheDamagedError(f"{path} is missing or empty although it was committed. {REPAIR}") from error
    mapped.madvise(mmap.MADV_RANDOM)  # else a page fault reads ahead megabytes that nobody asked for
    if len(mapped) < index_bytes:
        raise CacheDamagedError(f"{path} has {len(mapped)} bytes, less than its index. {REPAIR}")
    index = np.frombuffer(bytearray(mapped[-index_bytes:-4]), "<u8").reshape(n_inner, 2)
    used = int((index[:, 0] != EMPTY_CHUNK).sum())
    plain = (index[:used, 0] == np.arange(used, dtype="u8") * np.uint64(layout.inner_bytes)).all()
    sized = len(mapped) == used * layout.inner_bytes + index_bytes
    if crc32c(index) != int.from_bytes(mapped[-4:], "little") or not plain or not sized:
        raise CacheDamagedError(f"{path} is damaged, or another program wrote it. {REPAIR}")
    rows: NDArray[Any] = np.frombuffer(mapped, layout.stored, used * INNER_ROWS * layout.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no read-only tensors and says so
        return torch.from_numpy(rows.reshape(-1, layout.width)).view(getattr(torch, layout.spec.store_dtype)), mapped


def _allow_many_files() -> None:
    """A map keeps a file descriptor, and the usual limit of 1,024 is less than the shards of 64 GiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
