"""Damaged dataset directories, and datasets prepared from damaged files."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

from damage import Case, Outcome, attempt, compare, replace_by_no_file, workshop
from damage_bytes import BINARY, DAMAGES, TEXT, odd_json
from fake_study import make_dataset

from embedcache.dataset import read_dataset
from embedcache.dataset_write import made_by_same_command
from embedcache.sequences import MODALITIES

PARQUET = ["samples.parquet", "targets.parquet", "sequences.parquet"]


@functools.cache
def template() -> Path:
    """A dataset, made once a process and copied for each case."""
    path = workshop() / "dataset"
    make_dataset(path, n_genes=6)
    return path


def damage_dataset(case: Case, path: Path) -> bool:
    """Damage one file; True if the description may now say something else and knows that it does."""
    rng = case.rng
    file = path / rng.choice(["dataset.json", "dataset.json", *PARQUET])
    if rng.random() < 0.1:
        case.done.append(f"{file.name}: no file")
        replace_by_no_file(rng, file)
    elif rng.random() < 0.05:
        case.done.append(f"{file.name}: another file")
        file.write_bytes((path / rng.choice(PARQUET)).read_bytes())
    elif file.name != "dataset.json" or rng.random() < 0.5:
        kind = rng.choice(TEXT if file.suffix == ".json" else BINARY)
        case.done.append(f"{file.name}: {kind}")
        file.write_bytes(DAMAGES[kind](rng, file.read_bytes()))
    else:
        info = json.loads(file.read_text())
        is_free = rng.random() < 0.5
        case.done.append(f"{file.name}: odd value{', no digest' if is_free else ''}")
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


def dataset_case(case: Case) -> Outcome:
    path = case.folder / case.rng.choice(["d", "d", "d", "a b", "line\nend", "\udce9"])
    shutil.copytree(template(), path)
    is_free = damage_dataset(case, path)
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
    return case.read(found == whole_dataset())
