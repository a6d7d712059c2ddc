"""Our encoders against the outputs that the references left: ``python compare.py FOLDER...``, in our environment."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import numpy as np
import torch
from safetensors import safe_open
from sized import sized_card

from embedcache.encoders import registry
from embedcache.encoders.registry import load_layers

__all__ = ["Row", "compare", "table"]


@dataclass(frozen=True)
class Row:
    """What one folder says."""

    case: str
    reference: str
    sizes: str
    sequences: int
    tokens: int
    differences: dict[int, float]
    """By layer: the largest difference over the largest value, of the worst sequence."""
    tensors: str
    """How many of the tensors in the file were loaded; the rest are named as unused by the card."""


def compare(folder: Path) -> Row:
    """Load the checkpoint of a folder into our encoder, strictly, and embed the same sequences.

    Raises:
        EmbedCacheError: The checkpoint does not load.
    """
    case = cases.Case(**json.loads((folder / "case.json").read_text()))
    encoder, found = case.encoder, sized_card(case)
    registry.CARDS[encoder] = found
    sequences = json.loads((folder / "inputs.json").read_text())
    about = json.loads((folder / "reference.json").read_text())
    with np.load(folder / "outputs.npz") as outputs:
        theirs = {name: outputs[name] for name in outputs.files}
    layers = sorted({int(name.split(".")[0]) for name in theirs}, reverse=True)
    ours: Any = load_layers(encoder, found.modalities[-1], layers, weights=folder)
    differences = dict.fromkeys(layers, 0.0)
    for number, sequence in enumerate(sequences):
        for layer, (rows,) in ours.encode_layers([sequence], layers).items():
            wanted = theirs[f"{layer}.{number}"]
            assert rows.shape == wanted.shape == (ours.spec.n_tokens(sequence), found.width), (rows.shape, wanted.shape)
            off = float(np.abs(rows - wanted).max() / np.abs(wanted).max())
            differences[layer] = max(differences[layer], off)
    with safe_open(folder / "model.safetensors", "np") as file:
        names = [name.removeprefix(found.key_prefix) for name in file.keys()]  # noqa: SIM118
    used = sum(not name.startswith(found.unused) for name in names)
    return Row(
        case=f"{encoder}, {case.note}" if case.note else encoder,
        reference=f"{about['what']} ({', '.join(f'{name} {version}' for name, version in about['versions'].items())})",
        sizes=f"{found.width} x {ours.spec.architecture['layers']}",
        sequences=len(sequences),
        tokens=sum(map(ours.spec.n_tokens, sequences)),
        differences=differences,
        tensors=f"{used} of {len(names)}",
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| encoder | reference | width x layers | sequences, tokens | largest difference | tensors loaded |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        off = ", ".join(
            f"{'last' if layer == -1 else f'layer {layer}'} {value:.1e}" for layer, value in row.differences.items()
        )
        cells = (row.case, row.reference, row.sizes, f"{row.sequences}, {row.tokens:,}", off, row.tensors)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path)
    torch.set_num_threads(1)
    rows = [compare(folder) for folder in parser.parse_args().folder]
    print(table(rows))


if __name__ == "__main__":
    main()
