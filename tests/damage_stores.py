"""Damaged stores: what opens and passes ``verify`` has the bytes that were written, and a build mends the rest."""

import functools
import io
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from damage import Case, DefectError, Outcome, attempt, require, shown, workshop
from damage_store_files import damage_store
from fakes import FakeEncoder, random_records
from numpy.typing import NDArray

import cli
from embedcache.build import build_cache, build_products
from embedcache.care import collect_cache, verify_cache
from embedcache.info import describe_cache, format_cache
from embedcache.products import Product
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore, write_index
from embedcache.store.care import StoreCheck, check_store
from embedcache.store.files import open_files
from embedcache.store.quarantine import Poisoned, quarantine

Rows = dict[bytes, bytes]
RECORDS = random_records(24)
GIVEN_UP = sequence_key(RECORDS[20].sequence, "protein")
NOBODY = 2**22 + 1  # no process has this number


class Witness(FakeEncoder):
    """Copies its store while it is asked to embed: what a killed build leaves, with its plan and its lease."""

    root: Path
    copy: Path

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        if self._of_self_test.isdisjoint(sequences) and not self.copy.exists():  # in the midst of the build
            shutil.copytree(self.root, self.copy)
        return super().encode(sequences)


@functools.cache
def template(dtype: str) -> tuple[Path, Rows]:
    """A cache with one store whose last build was killed, made once a process; and the rows that it was to have."""
    folder = workshop() / dtype
    encoder = Witness(store_dtype=dtype)
    encoder.root = folder / "whole" / encoder.spec.directory
    encoder.copy = folder / "x" / "protein" / encoder.spec.directory
    for n in (6, 12, 18):
        build_cache(RECORDS[:n], FakeEncoder(store_dtype=dtype), encoder.root, shard_bytes=1 << 13)
    build_cache(RECORDS, encoder, encoder.root)
    (lease,) = (encoder.copy / "claims/tasks").iterdir()
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"pid": NOBODY}))
    quarantine(open_files(encoder.copy), GIVEN_UP, Poisoned("p20", "made for a test"))
    return folder / "x", read_rows(encoder.root)[0]


@functools.cache
def whole_store(dtype: str) -> Rows:
    (root,) = (template(dtype)[0] / "protein").iterdir()
    return read_rows(root)[0]


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


def store_case(kind: str, case: Case) -> Outcome:
    """Damage one ``kind`` of files: what is read is what was written, or it is named; what is named can be mended."""
    dtype = case.rng.choice(["float16", "float16", "bfloat16", "float32", "int8", "int8"])
    cache = case.folder / case.rng.choice(["cache", "cache", "cache", "line\nend"])
    shutil.copytree(template(dtype)[0], cache)
    (root,) = (cache / "protein").iterdir()
    may_lose = damage_store(case, root, kind)
    names = (root.name, cache.name)
    check = attempt(lambda: check_store(root), *names)
    attempt(lambda: format_cache(describe_cache(cache)), *names)
    attempt(lambda: str(verify_cache(cache)), *names)
    if case.rng.random() < 0.1:  # it takes longer than all the rest
        command = case.rng.choice([["info"], ["verify"], ["gc", "--dry-run"]])
        run_command([*command, "--json", "--cache", str(cache)], names)
    found = attempt(lambda: read_rows(root), *names)
    good = set[bytes]()
    if found is not None:
        good = check_rows(found, check, whole_store(dtype), may_lose)
    attempt(lambda: collect_cache(cache, 0), *names)
    attempt(lambda: write_index(root), *names)
    again = attempt(lambda: read_rows(root), *names)
    if again is not None:
        for key in good:
            require(again[0].get(key) == whole_store(dtype)[key], f"gc or the index lost {key.hex()}")
    if kind == "claims" or case.rng.random() < 0.2:
        repair(cache, root, dtype)
    if check is None or check.is_damaged or found is None:
        return "refused"
    return case.read(found[0] == whole_store(dtype))


def run_command(arguments: list[str], names: Sequence[str]) -> None:
    """A command ends with JSON and 0, or with one line and 1."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", ["embedcache", *arguments]):
        try:
            cli.embedcache()
            code = 0
        except SystemExit as end:
            code = end.code or 0  # type: ignore[assignment]
    text = err.getvalue()
    require(code == 0 or (code == 1 and text.startswith("error: ")), f"{arguments[0]} ended with {code}: {text}")
    require(text.count("\n") == code and (not code or text[:-1].isprintable()), f"{arguments[0]} said {text!r}")
    require(not code or any(shown(name) in text for name in names), f"{arguments[0]} names none of {names}: {text!r}")
    if code == 0 or out.getvalue():
        json.loads(out.getvalue(), parse_constant=refuse_constant)


def refuse_constant(name: str) -> None:
    raise DefectError(f"{name} is no JSON")


def check_rows(found: tuple[Rows, set[bytes]], check: StoreCheck | None, said: Rows, may_lose: bool) -> set[bytes]:
    """Keys that are right, of rows that were read and those that were named as damaged."""
    rows, named = found
    if check is not None:
        named |= {bytes.fromhex(key) for damage in check.damages for key in damage.keys}
    for key, row in rows.items():
        require(key in said, f"a sequence {key.hex()} that was never written")
        require(row == said[key] or key in named, f"other rows of {key.hex()} were read and pass every check")
    is_clean = check is not None and not check.is_damaged
    require(not is_clean or not named, "verify finds nothing, the reader names damage")
    require(not is_clean or may_lose or rows.keys() == said.keys(), "sequences were lost in silence")
    return rows.keys() - named


def repair(cache: Path, root: Path, dtype: str) -> None:
    """What ``verify --repair`` and a build make of it: every sequence as it was to be, or one line."""

    def run() -> Rows:
        verify_cache(cache, repair=True)
        encoder = FakeEncoder(store_dtype=dtype)
        build_products(RECORDS, encoder, [Product(encoder.spec, root)], shard_bytes=1 << 13, ttl=0.05)
        return read_rows(root)[0]

    rows = attempt(run, root.name, cache.name)
    if rows is not None and dtype != "int8":  # a new mean of int8 is a new rounding
        wrong = [key.hex() for key, row in template(dtype)[1].items() if rows.get(key, row) != row]
        require(not wrong, f"{wrong} are not as they were to be after repair and build")
        lost = template(dtype)[1].keys() - rows.keys() - {GIVEN_UP}
        require(not lost, f"{len(lost)} sequences were not embedded by the build")
