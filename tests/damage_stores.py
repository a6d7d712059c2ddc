"""Damaged stores: what opens and passes ``verify`` has the bytes that were written."""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from damage import attempt, replace_by_no_file, require
from damage_bytes import BINARY, DAMAGES, TEXT, odd_json
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.care import collect_cache, verify_cache
from embedcache.info import describe_cache
from embedcache.store import EmbeddingStore, write_index
from embedcache.store.care import check_store
from embedcache.store.files import open_files
from embedcache.store.index import encode_record, read_record

Rows = dict[bytes, bytes]


@functools.cache
def template(dtype: str) -> Path:
    """A cache with one store, made once a process and copied for each case."""
    path = Path(tempfile.mkdtemp(prefix="damage-")).resolve()
    root = path / "x" / "protein" / FakeEncoder(store_dtype=dtype).spec.directory
    for n in (6, 12, 18):
        build_cache(random_records(n), FakeEncoder(store_dtype=dtype), root, shard_bytes=1 << 13)
    return path


def read_rows(root: Path) -> tuple[Rows, set[bytes]]:
    """Bytes of each sequence as stored, and the keys of those that are refused or named as damaged."""
    store = EmbeddingStore(root)
    len(store), store.n_tokens
    rows: Rows = {}
    for position, key in enumerate(store):
        view = attempt(lambda at=position: store.view(at), root.name)
        if view is not None:
            rows[key] = view.contiguous().view(torch.uint8).numpy().tobytes()
            attempt(lambda at=key: store[at], root.name)
    bad = attempt(store.damaged, root.name)
    keys = list(store)
    return rows, {keys[at] for at in bad} if bad is not None else set(keys)


@functools.cache
def whole_store(dtype: str) -> Rows:
    (root,) = (template(dtype) / "x" / "protein").iterdir()
    return read_rows(root)[0]


def rename_record(rng: Random, root: Path) -> None:
    record = rng.choice(records(root))
    record.rename(record.with_name(rng.choice([".hidden", "x", "0" * 32, record.name[:-1], "line\nend", "\udce9"])))


def copy_record(rng: Random, root: Path) -> None:
    record = rng.choice(records(root))
    record.with_name(rng.choice(["x", "0" * 32])).write_bytes(rng.choice(records(root)).read_bytes())


def sign_record_anew(rng: Random, root: Path) -> None:
    """What a faulty writer leaves: a record that is whole and says something wrong."""
    record = rng.choice(records(root))
    entries = read_record(open_files(root), record.name)[0].copy()
    field = rng.choice(["shard", "start", "length", "crc"])
    entries[field][rng.randrange(len(entries)) :][:1] = rng.choice([0, 1, 7, 200, 2**16, 2**31, 2**32 - 1])
    if rng.random() < 0.2:
        entries = entries[: rng.randrange(1, len(entries) + 1)]
    record.write_bytes(b"".join(encode_record(record.name, entries)))


def exchange_shards(rng: Random, root: Path) -> None:
    one, other = rng.sample(sorted(root.glob("tokens/c/*/0")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


STRANGERS = ["tokens/c/x", "tokens/c/-1", "tokens/c/999999999999", "tokens/c/\u0663", "commits/folder", "claims",
    "claims/tasks",
]  # fmt: skip


def add_strangers(rng: Random, root: Path) -> None:
    """Files and folders that nobody of us made."""
    name = rng.choice(STRANGERS)
    if rng.random() < 0.5:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "0").write_bytes(b"strange")
    elif not (root / name).exists():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"strange")


def lose_directory(rng: Random, root: Path) -> None:
    name = rng.choice(["commits", "tokens/c", "tokens", "tokens/c/0"])
    shutil.rmtree(root / name)
    if rng.random() < 0.5:
        (root / name).write_bytes(b"")


def records(root: Path) -> list[Path]:
    return sorted(path for path in (root / "commits").iterdir() if path.is_file() and not path.name.startswith("."))


STRUCTURE: list[Callable[[Random, Path], None]] = [
    rename_record, copy_record, sign_record_anew, sign_record_anew, exchange_shards, add_strangers, lose_directory,
]  # fmt: skip


def damage_store(rng: Random, root: Path) -> bool:
    """Damage something; True if records went away whole, which only a list of what must be there can tell."""
    if rng.random() < 0.3:
        (root / "index.npy").unlink()
    if rng.random() < 0.25:
        change = rng.choice(STRUCTURE)
        change(rng, root)
        return change in (rename_record, lose_directory, sign_record_anew, copy_record)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    kinds = [
        [p for p in files if p.match(pattern)] for pattern in ("*.json", "commits/*", "index.npy", "tokens/c/*/*", "*")
    ]
    path = rng.choice(rng.choice([kind for kind in kinds if kind]))
    if rng.random() < 0.08:
        replace_by_no_file(rng, path)
        return path.parent.name == "commits" and not os.path.lexists(path)
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.5:
        path.write_bytes(odd_json(rng, data))
    elif path.parent.name == "commits" and rng.random() < 0.3:
        head, _, body = data.partition(b"\n")
        path.write_bytes(odd_json(rng, head) + b"\n" + body)
    else:
        path.write_bytes(DAMAGES[rng.choice(TEXT if path.suffix == ".json" else BINARY)](rng, data))
    return False


def store_case(rng: Random, folder: Path) -> str:
    dtype = rng.choice(["float16", "float16", "bfloat16", "float32", "int8"])
    cache = folder / rng.choice(["cache", "cache", "cache", "line\nend"])
    shutil.copytree(template(dtype) / "x", cache)
    (root,) = (cache / "protein").iterdir()
    may_lose = damage_store(rng, root)
    said = whole_store(dtype)
    names = (root.name, cache.name)
    check = attempt(lambda: check_store(root), *names)
    attempt(lambda: describe_cache(cache), *names)
    attempt(lambda: str(verify_cache(cache)), *names)
    found = attempt(lambda: read_rows(root), *names)
    if found is not None:
        rows, named = found
        if check is not None:
            named |= {bytes.fromhex(key) for damage in check.damages for key in damage.keys}
        for key, row in rows.items():
            require(key in said, f"a sequence {key.hex()} that was never written")
            require(row == said[key] or key in named, f"other rows of {key.hex()} were read and pass every check")
        is_clean = check is not None and not check.damages
        require(not is_clean or not named, "verify finds nothing, the reader names damage")
        require(not is_clean or may_lose or rows.keys() == said.keys(), "sequences were lost in silence")
    good = {key for key in found[0] if key not in found[1]} if found else set()
    attempt(lambda: collect_cache(cache, 0), *names)
    attempt(lambda: write_index(root), *names)
    again = attempt(lambda: read_rows(root), *names)
    if again is not None:
        for key in good:
            require(again[0].get(key) == said[key], f"{key.hex()} was lost by collecting garbage or writing the index")
    if rng.random() < 0.1:
        repair(cache, root, dtype)
    return "refused" if check is None or check.damages else "read"


def repair(cache: Path, root: Path, dtype: str) -> None:
    """What verify --repair and a build make of it: every sequence as it was, or one line."""

    def run() -> Rows:
        verify_cache(cache, repair=True)
        build_cache(random_records(18), FakeEncoder(store_dtype=dtype), root, shard_bytes=1 << 13)
        return read_rows(root)[0]

    rows = attempt(run, root.name, cache.name)
    if rows is not None and dtype != "int8":  # a new mean of int8 is a new rounding
        wrong = [key.hex() for key, row in whole_store(dtype).items() if rows.get(key) != row]
        require(not wrong, f"{wrong} are not as they were after repair and build")
