"""Reading batches ahead: a thread fills a ring of buffers while the caller computes."""

import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray

from embedcache.ragged import Ragged

if TYPE_CHECKING:
    import numpy as np

    from embedcache.store.read import EmbeddingStore

__all__ = ["read_ahead"]


def read_ahead(
    store: "EmbeddingStore", batches: "Sequence[NDArray[np.int64]]", *, depth: int, ahead: int, pinned: bool
) -> Iterator[Ragged]:
    """See ``EmbeddingStore.prefetch``."""
    capacity = max([1, *(int(store.lengths[batch[batch >= 0]].sum()) for batch in batches)])  # torch views no 0 rows
    ring = list[torch.Tensor]()

    def load(i: int) -> Ragged:
        for batch in batches[i + ahead : i + ahead + 1]:
            store.advise(batch)
        return store.packed(batches[i], ring[i % depth])

    with ThreadPoolExecutor(1) as loader:
        for batch in batches[:ahead]:
            loader.submit(store.advise, batch)
        for _ in range(min(depth, len(batches))):  # meanwhile
            ring.append(store.empty(capacity, pinned=pinned))
            ring[-1].view(torch.uint8).flatten()[:: mmap.PAGESIZE] = 0  # so that memory is given now, and all of it
        pending = deque(loader.submit(load, i) for i in range(min(depth, len(batches))))
        for i in range(depth, len(batches) + depth):
            if pending:
                yield pending.popleft().result()
            if i < len(batches):
                pending.append(loader.submit(load, i))
