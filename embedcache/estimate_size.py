"""Bytes that a build will add to a store: the tasks and shards that it would cut, without their rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedcache.plan import Plan
from embedcache.products import Product, task_tokens
from embedcache.store.index import encode_record
from embedcache.store.layout import ENTRY, INNER_ROWS, Layout
from embedcache.store.write import cut_shards, task_name

__all__ = ["Size", "count_sizes"]

KEY_BYTES = 16
NPY_HEAD = 128
ROUNDING = {"rounding": {"relative_l2": 0.123456789012345678, "cosine": 0.123456789012345678, "tokens": 1234}}
"""As wide as what a record says of its loss."""


class Size(NamedTuple):
    """What a build will add to one store."""

    sequences: int
    rows: int
    size_bytes: int
    shards: int


def count_sizes(plan: Plan, products: Sequence[Product]) -> list[Size]:
    """Count what a build by one worker writes, for each store.

    Args:
        plan: Sequences that a store of the build lacks.
        products: All stores of the build, with their layouts; the first keeps what workers agree on.
    """
    tasks = plan.tasks(set(plan.keys), task_tokens(products, plan.total_tokens))
    first, *others = [_count_size(plan, product, tasks) for product in products]
    return [first._replace(size_bytes=first.size_bytes + KEY_BYTES * len(plan.keys)), *others]


def _count_size(plan: Plan, product: Product, tasks: Sequence[Sequence[bytes]]) -> Size:
    layout = product.layout
    assert layout is not None
    rows = np.array([product.n_rows(n_tokens) for n_tokens in plan.lengths], np.int64)
    rows_of = {plan.keys[i]: int(rows[i]) for i in _lacking(plan, product)}
    sequences = size_bytes = shards = 0
    for task in tasks:
        lengths = [rows_of[key] for key in task if key in rows_of]
        for part in cut_shards(lengths, layout.shard_rows):
            size_bytes += -(-sum(lengths[part]) // INNER_ROWS) * layout.inner_bytes + layout.index_bytes
            shards += 1
        sequences += len(lengths)
        size_bytes += _record_bytes(task_name(task), len(lengths), layout)
    n_rows = sum(rows_of.values())
    return Size(sequences, n_rows, size_bytes + _index_bytes(product, sequences, len(tasks)), shards)


def _lacking(plan: Plan, product: Product) -> Sequence[int]:
    """Numbers of the sequences that a store lacks."""
    if product.present is None:
        return range(len(plan.keys))
    found: list[int] = np.flatnonzero(product.present.find(plan.keys) < 0).tolist()
    return found


def _record_bytes(name: str, n_sequences: int, layout: Layout) -> int:
    extra = None if layout.spec.store_dtype == "float32" else ROUNDING
    return sum(map(len, encode_record(name, np.zeros(n_sequences, ENTRY), extra)))


def _index_bytes(product: Product, n_sequences: int, n_tasks: int) -> int:
    """Growth of the index, which repeats entries and names of tasks; and what a new store begins with."""
    layout = product.layout
    assert layout is not None
    grown = n_sequences * ENTRY.itemsize + n_tasks * np.dtype(f"U{2 * KEY_BYTES}").itemsize
    if product.present is not None:
        return grown
    begun = 3 * NPY_HEAD + len(layout.group_metadata()) + len(layout.array_metadata(1))
    return grown + begun + (NPY_HEAD + 4 * layout.width if layout.spec.store_dtype == "int8" else 0)
