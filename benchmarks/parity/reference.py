"""What every ``*_reference.py`` does around its own network: draw and write the checkpoint, run, keep the outputs.

Runs in the environment of the reference, with NumPy and safetensors alone. ``python X_reference.py CASE.json FOLDER``
writes into the folder ``config.json`` and ``model.safetensors`` as published, ``inputs.json``, ``outputs.npz`` with
an array ``<layer>.<number of the sequence>`` (tokens, width), and ``reference.json`` with what was run.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cases
import numpy as np
import recipe
from numpy.typing import NDArray
from safetensors.numpy import save_file

__all__ = ["Rows", "Tensors", "run"]

Tensors = dict[str, NDArray[Any]]
Rows = dict[int, NDArray[np.float32]]
"""What a reference says of a sequence, special tokens taken off: by layer, -1 for the last; (tokens, width)."""
Embed = Callable[[str], Rows]
Load = Callable[[cases.Case, Tensors], Embed]
"""Takes the case and the tensors of the published file, and gives the network ready to embed."""


def run(load: Load, packages: Sequence[str], what: str) -> None:
    """Do one case.

    Args:
        load: Of this reference.
        packages: Whose versions are noted.
        what: The class or function that computes.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    case = cases.Case(**json.loads(given.case.read_text()))
    tensors = recipe.draw_tensors(cases.layout(case.family, case.sizes), case.seed)
    given.folder.mkdir(parents=True, exist_ok=True)
    config = cases.config(case.family, case.sizes) | dict(case.config)
    (given.folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(tensors, given.folder / "model.safetensors")
    sequences = cases.sequences(case)
    (given.folder / "inputs.json").write_text(json.dumps(sequences))
    embed = load(case, tensors)
    start = time.perf_counter()
    rows = [embed(sequence) for sequence in sequences]
    seconds = time.perf_counter() - start
    np.savez(
        given.folder / "outputs.npz",
        **{f"{layer}.{number}": found for number, one in enumerate(rows) for layer, found in one.items()},
    )
    about = {"what": what, "versions": _versions(packages), "seconds": round(seconds, 1)}
    (given.folder / "reference.json").write_text(json.dumps(about))


def _versions(packages: Sequence[str]) -> Mapping[str, str]:
    return {name: metadata.version(name) for name in packages} | {"python": platform.python_version()}
