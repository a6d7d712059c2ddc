"""Bytes that a build will add to a store: the tasks and shards that it would cut, without their rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedcache.plan import Plan
from embedcache.products import Product, task_tokens
from embedcache.store.index import encode_record
from embedcache.store.layout import ENTRY, INNER_ROWS, Layout
from embedcache.store.write import cut_shards, task_name

__all__ = ["Size", "count_size"]

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


def count_size(plan: Plan, product: Product, products: Sequence[Product]) -> Size:
    """Count what a build by one worker writes.

    Args:
        plan: Sequences that a store of the build lacks.
        product: The store; its layout is known.
        products: All stores of the build, in their order: tasks hold what any of them lacks.
    """
    layout = product.layout
    assert layout is not None
    rows_of = dict(zip(plan.keys, map(product.n_rows, plan.lengths), strict=True))
    lacking = set(_lacking(plan, product))
    tasks = plan.tasks(set(plan.keys), task_tokens(products, plan.total_tokens))
    sequences = rows = size_bytes = shards = 0
    for task in tasks:
        lengths = [rows_of[key] for key in task if key in lacking]
        for part in cut_shards(lengths, layout.shard_rows):
            n_rows = sum(lengths[part])
            size_bytes += -(-n_rows // INNER_ROWS) * layout.inner_bytes + layout.index_bytes
            rows, shards = rows + n_rows, shards + 1
        sequences += len(lengths)
        size_bytes += _record_bytes(task_name(task), len(lengths), layout)
    if product is products[0]:
        size_bytes += KEY_BYTES * len(plan.keys)  # the plan that its workers share
    return Size(sequences, rows, size_bytes + _index_bytes(product, sequences, len(tasks)), shards)


def _lacking(plan: Plan, product: Product) -> list[bytes]:
    if product.present is None:
        return plan.keys
    return [plan.keys[i] for i in np.flatnonzero(product.present.find(plan.keys) < 0).tolist()]


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
