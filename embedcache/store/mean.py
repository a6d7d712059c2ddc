"""The channel mean of an int8 store: settled once, before its first shard, by whichever build comes first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import CacheDamagedError
from embedcache.store.files import Files
from embedcache.store.index import load_entries
from embedcache.store.layout import REPAIR, Layout
from embedcache.store.numbers import channel_mean, mean_from_bytes, mean_to_bytes

__all__ = ["MEAN", "adopt_mean", "read_mean", "settle_mean"]

MEAN = "mean.npy"


def read_mean(files: Files, layout: Layout) -> NDArray[np.float32]:
    """The mean of an int8 store, (width,).

    Raises:
        CacheDamagedError: It is missing or not what was written.
    """
    where = str(files.place / MEAN)
    try:
        data = files.read(MEAN)
    except OSError as error:
        raise CacheDamagedError(
            f"{where} cannot be read ({error.strerror or 'missing'}), and without it no embedding of this store. "
            f"{REPAIR}"
        ) from error
    return mean_from_bytes(data, layout.width, where)


def settle_mean(files: Files, layout: Layout, rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean of the store; that of ``rows``, the first embeddings at hand, if it has none yet.

    Of several builds that begin at once one wins, and all use its mean.

    Raises:
        CacheDamagedError: It was lost: rows that were committed with it would read wrong with another one.
    """
    if _may_be_made(files):
        files.create(MEAN, [mean_to_bytes(channel_mean(rows))])
    return read_mean(files, layout)


def adopt_mean(files: Files, layout: Layout, mean: NDArray[np.float32]) -> bool:
    """Give a store the mean of another one, whose rows shall come. False if it has one with other numbers.

    Raises:
        CacheDamagedError: As in ``settle_mean``.
    """
    if _may_be_made(files):
        files.create(MEAN, [mean_to_bytes(mean)])
    return read_mean(files, layout).tobytes() == mean.tobytes()


def _may_be_made(files: Files) -> bool:
    has_rows = bool(load_entries(files)[0]["length"].any())  # before the look at the mean, which comes before all rows
    return not files.exists(MEAN) and not has_rows
