"""Shards in an object store: the rows of a sequence are one range of one object, fetched when they are asked for.

A request takes tens of milliseconds before its first byte comes, so many run at once, and sequences that lie beside
each other share one. What lies between them is then fetched in vain, where that is quicker than to ask once more.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from embedcache.errors import CacheDamagedError
from embedcache.store.layout import REPAIR, Layout
from embedcache.store.objects import REQUESTS_AT_ONCE, ObjectFiles

__all__ = ["FetchedShards"]

RowPlace = tuple[int, int, int]
ADVISED_BYTES = 1 << 30
"""So much may wait for its reader; the oldest sequences are forgotten first, and fetched again if need be."""
REQUEST_BYTES = 8 << 20
"""Sequences share a request up to this size: one connection gives less than several beside each other."""
NEAR_BYTES = 64 << 10
VAIN_SHARE = 16
"""What lies between two sequences is fetched too if it is small, or at most this part of what is asked for."""


class FetchedShards:
    """See ``read.Shards``; ``advise`` begins to fetch, ``views`` waits for what is on its way and fetches the rest."""

    def __init__(self, files: ObjectFiles, layout: Layout) -> None:
        self.files, self.layout = files, layout
        self._pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        self._coming: OrderedDict[RowPlace, Future[Tensor]] = OrderedDict()
        self._coming_rows = 0
        self._lock = threading.Lock()

    def views(self, places: Iterable[RowPlace]) -> list[Tensor]:
        """Rows (tokens, columns) of each (shard, start, length), in memory of their own."""
        wanted = list(places)
        self.files.check_process()  # a forked process has no threads to answer, and may have inherited a held lock
        with self._lock:
            self._begin(wanted)
            futures = [self._coming[place] for place in wanted]
            for place in set(wanted):
                self._forget(place)
        return [future.result() for future in futures]

    def advise(self, places: Iterable[RowPlace]) -> None:
        """Begin to fetch these rows; returns before they are here."""
        self.files.check_process()
        with self._lock:
            self._begin(places)
            while self._coming_rows * self.layout.row_bytes > ADVISED_BYTES:
                self._forget(next(iter(self._coming)))

    def _begin(self, places: Iterable[RowPlace]) -> None:
        """Ask for what is not on its way."""
        fresh = sorted({place for place in places if place not in self._coming})
        for some in _requests(fresh, self.layout.row_bytes):
            task = self._pool.submit(self._fetch, some)
            for i, place in enumerate(some):
                self._coming[place] = _part(task, i)
                self._coming_rows += place[2]

    def _forget(self, place: RowPlace) -> None:
        del self._coming[place]
        self._coming_rows -= place[2]

    def _fetch(self, places: list[RowPlace]) -> list[Tensor]:
        """Rows of sequences that lie beside each other in one shard, by one request."""
        shard, first, _ = places[0]
        row_bytes, end = self.layout.row_bytes, max(start + length for _, start, length in places)
        name = f"tokens/c/{shard}/0"
        try:
            data = self.files.read_range(name, first * row_bytes, (end - first) * row_bytes) if end > first else b""
        except FileNotFoundError:
            raise CacheDamagedError(
                f"{self.files.place}/{name} is missing although it was committed. {REPAIR}"
            ) from None
        view = memoryview(data)
        cuts = [((start - first) * row_bytes, length * row_bytes) for _, start, length in places]
        return [
            self._tensor(place, bytearray(view[at : at + size])) for place, (at, size) in zip(places, cuts, strict=True)
        ]

    def _tensor(self, place: RowPlace, data: bytearray) -> Tensor:
        shard, _, length = place
        if len(data) != length * self.layout.row_bytes:
            raise CacheDamagedError(f"{self.files.place}/tokens/c/{shard}/0 is shorter than its record says. {REPAIR}")
        dtype = getattr(torch, self.layout.spec.store_dtype)
        if not data:
            return torch.empty(0, self.layout.columns, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).view(length, self.layout.columns)


def _requests(places: Iterable[RowPlace], row_bytes: int) -> Iterator[list[RowPlace]]:
    """Sorted places that share a request: of one shard, one behind the other, with little in between."""
    some, n_rows = list[RowPlace](), 0
    near, most = NEAR_BYTES // row_bytes, REQUEST_BYTES // row_bytes
    for place in places:
        shard, start, length = place
        if some:
            gap, n_all = start - some[-1][1] - some[-1][2], start + length - some[0][1]
            is_beside = gap <= near or n_all - n_rows - length <= n_rows // VAIN_SHARE
            if shard != some[0][0] or not is_beside or n_all > most:
                yield some
                some, n_rows = [], 0
        some.append(place)
        n_rows += length
    if some:
        yield some


def _part(task: "Future[list[Tensor]]", i: int) -> "Future[Tensor]":
    """The i-th result of a task that gives several."""
    part: Future[Tensor] = Future()

    def pass_on(done: "Future[list[Tensor]]") -> None:
        if error := done.exception():
            part.set_exception(error)
        else:
            part.set_result(done.result()[i])

    task.add_done_callback(pass_on)
    return part
