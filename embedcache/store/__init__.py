"""Embeddings on disk: one Zarr v3 array a store, written in whole shards, read through memory maps."""

from embedcache.store.find import find_store, lacks, list_stores, store_path
from embedcache.store.index import write_index
from embedcache.store.layout import create_store
from embedcache.store.read import EmbeddingStore
from embedcache.store.write import commit_task, task_name

__all__ = [
    "EmbeddingStore",
    "commit_task",
    "create_store",
    "find_store",
    "lacks",
    "list_stores",
    "store_path",
    "task_name",
    "write_index",
]
