"""Damaged dataset directories, and datasets prepared from damaged files."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from damage import attempt, compare, replace_by_no_file
from damage_bytes import BINARY, DAMAGES, TEXT, odd_json
from fake_study import make_dataset

from embedcache.dataset import read_dataset
from embedcache.dataset_write import made_by_same_command
from embedcache.sequences import MODALITIES

PARQUET = ["samples.parquet", "targets.parquet", "sequences.parquet"]


@functools.cache
def template() -> Path:
    """A dataset, made once a process and copied for each case."""
    path = Path(tempfile.mkdtemp(prefix="damage-")).resolve() / "x"
    make_dataset(path, n_genes=6)
    return path


def damage_dataset(rng: Random, path: Path) -> bool:
    """Damage one file; True if the description may now say something else and knows that it does."""
    file = path / rng.choice(
        ["dataset.json", "dataset.json", "samples.parquet", "targets.parquet", "sequences.parquet"]
    )
    if rng.random() < 0.1:
        replace_by_no_file(rng, file)
    elif rng.random() < 0.05:
        other = path / rng.choice(PARQUET)
        file.write_bytes(other.read_bytes())
    elif file.name != "dataset.json":
        file.write_bytes(DAMAGES[rng.choice(BINARY)](rng, file.read_bytes()))
    elif rng.random() < 0.5:
        file.write_bytes(DAMAGES[rng.choice(TEXT)](rng, file.read_bytes()))
    else:
        info = json.loads(file.read_text())
        is_free = rng.random() < 0.5
        if is_free:
            del info["sha256"]
        file.write_bytes(odd_json(rng, json.dumps(info).encode()))
        return is_free
    return False


def content(path: Path) -> dict[str, Any]:
    dataset = read_dataset(path)
    dataset.summary(), dataset.digest, dataset.tissues
    found: dict[str, Any] = {m: sorted(dataset.sequences(m)) for m in dataset.modalities}
    found["samples"] = dataset.samples.astype(object).where(dataset.samples.notna(), None).to_dict("records")
    found["targets"] = None if dataset.targets is None else dataset.targets.round(12).fillna(-99).to_dict("records")
    found |= {"labels": dataset.labels, "encoders": [dataset.encoder(m) for m in MODALITIES]}
    return found


@functools.cache
def whole_dataset() -> dict[str, Any]:
    return content(template())


def dataset_case(rng: Random, folder: Path) -> str:
    path = folder / rng.choice(["d", "d", "d", "a b", "line\nend", "\udce9"])
    shutil.copytree(template(), path)
    is_free = damage_dataset(rng, path)
    found = attempt(lambda: content(path), path.name)
    attempt(lambda: made_by_same_command(path, {"source": "x", "options": {}, "encoders": {}}), path.name)
    attempt(lambda: read_dataset(path).verify(), path.name)
    if found is None:
        return "refused"
    said = dict(whole_dataset())
    if is_free:
        for name in ("labels", "encoders", "targets"):  # a description that claims nothing of itself may say these
            said[name] = found[name]
    compare(found, said)
    return "read"
