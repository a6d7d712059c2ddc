"""Damage to the files of a store, one kind of file at a time."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from damage import Case, replace_by_no_file
from damage_bytes import BINARY, DAMAGES, TEXT, odd_json

from embedcache.store.files import open_files
from embedcache.store.index import encode_record, read_record

PATTERNS = {
    "metadata": ["zarr.json", "tokens/zarr.json"],
    "records": ["commits/*"],
    "shards": ["tokens/c/*/0"],
    "index": ["index.npy", "index.npy", "mean.npy"],
    "claims": ["claims/plans/*/*", "claims/tasks/*", "claims/quarantine/*"],
}
STRANGERS = [
    "tokens/c/x", "tokens/c/-1", "tokens/c/999999999999", "tokens/c/\u0663", "commits/folder", "claims", "claims/tasks",
    "claims/tasks/x-1", "claims/plans/x", "claims/plans/x/0", "claims/quarantine/x", "claims/quarantine/" + "0" * 32,
    ".lock", ".clock", "index.npy/x",
]  # fmt: skip
NAMES = [".hidden", "x", "0" * 32, "line\nend", "\udce9"]


def files_of(root: Path, kind: str) -> list[Path]:
    return sorted(
        path
        for pattern in PATTERNS[kind]
        for path in root.glob(pattern)
        if path.is_file() and not path.name.startswith(".")
    )


def rename_record(rng: Random, root: Path) -> None:
    record = rng.choice(files_of(root, "records"))
    record.rename(record.with_name(rng.choice([*NAMES, record.name[:-1]])))


def copy_record(rng: Random, root: Path) -> None:
    record = rng.choice(files_of(root, "records"))
    record.with_name(rng.choice(["x", "0" * 32])).write_bytes(rng.choice(files_of(root, "records")).read_bytes())


def sign_record_anew(rng: Random, root: Path) -> None:
    """What a faulty writer leaves: a record that is whole and says something wrong."""
    record = rng.choice(files_of(root, "records"))
    entries = read_record(open_files(root), record.name)[0].copy()
    field = rng.choice(["shard", "start", "length", "crc"])
    entries[field][rng.randrange(len(entries)) :][:1] = rng.choice([0, 1, 7, 200, 2**16, 2**31, 2**32 - 1])
    if rng.random() < 0.2:
        entries = entries[: rng.randrange(1, len(entries) + 1)]
    record.write_bytes(b"".join(encode_record(record.name, entries)))


def exchange_shards(rng: Random, root: Path) -> None:
    one, other = rng.sample(files_of(root, "shards"), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def lose_directory(name: str) -> Callable[[Random, Path], None]:
    def damage(rng: Random, root: Path) -> None:
        shutil.rmtree(root / name)
        if rng.random() < 0.5:
            (root / name).write_bytes(b"")

    return damage


def add_stranger(rng: Random, root: Path) -> None:
    """A file or a folder that nobody of us made."""
    path = root / rng.choice(STRANGERS)
    if path.is_dir() and rng.random() < 0.5:
        shutil.rmtree(path)
    if path.parent.is_file():
        path.parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if rng.random() < 0.5:
            path.mkdir()
            (path / "0").write_bytes(b"strange")
        else:
            path.write_bytes(b"strange")


SPECIAL: dict[str, dict[str, Callable[[Random, Path], None]]] = {
    "metadata": {},
    "records": {
        "renamed": rename_record,
        "copied": copy_record,
        "signed anew": sign_record_anew,
        "directory lost": lose_directory("commits"),
    },
    "shards": {
        "exchanged": exchange_shards,
        "directory lost": lose_directory("tokens/c"),
        "one directory lost": lose_directory("tokens/c/0"),
    },
    "index": {},
    "claims": {"strange file": add_stranger, "directory lost": lose_directory("claims")},
}


def damage_store(case: Case, root: Path, kind: str) -> bool:
    """Damage one file; True if records went away or were written anew whole, which only a list of keys can tell."""
    rng, special = case.rng, SPECIAL[kind]
    if rng.random() < 0.3:
        (root / "index.npy").unlink()
    if special and rng.random() < 0.3:
        case.done.append(rng.choice(list(special)))
        special[case.done[-1]](rng, root)
        return kind == "records"
    path = rng.choice(files_of(root, kind) or [root / "zarr.json"])
    if rng.random() < 0.1:
        case.done.append("no file")
        replace_by_no_file(rng, path)
        return kind == "records" and not os.path.lexists(path)
    data = path.read_bytes()
    is_json = path.suffix == ".json" or path.parent.name in ("tasks", "quarantine")
    if is_json and rng.random() < 0.5:
        case.done.append("odd value")
        path.write_bytes(odd_json(rng, data))
    elif path.parent.name == "commits" and rng.random() < 0.3:
        case.done.append("odd value")
        head, _, body = data.partition(b"\n")
        path.write_bytes(odd_json(rng, head) + b"\n" + body)
    else:
        case.done.append(rng.choice(TEXT if is_json else BINARY))
        path.write_bytes(DAMAGES[case.done[-1]](rng, data))
    return False
