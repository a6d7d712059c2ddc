"""Our encoders against rows that public implementations gave for the same weights, see ``benchmarks/parity``."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "parity"))
import cases
import recipe
from sized import sized_card

from embedcache.encoders import registry
from embedcache.encoders.cards import CARDS
from embedcache.encoders.registry import load_layers
from embedcache.errors import InvalidInputError

FOLDER = Path(__file__).parent / "golden" / "parity"
GOLDEN = {case.name: case for case in cases.GOLDEN}


def draw(case: cases.Case) -> dict[str, np.ndarray]:
    return recipe.draw_tensors(cases.layout(case.family, case.sizes), case.seed)


def write_checkpoint(case: cases.Case, folder: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(cases.config(case.family, case.sizes) | dict(case.config)))


@pytest.mark.parametrize("name", GOLDEN)
def test_rows_are_those_of_the_public_implementation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = GOLDEN[name]
    about: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    assert about["sequences"] == cases.sequences(case)
    monkeypatch.setattr(registry, "CARDS", CARDS | {case.encoder: sized_card(case)})
    write_checkpoint(case, tmp_path, draw(case))
    layers = sorted({int(key.split(".")[0]) for key in about["rows"]}, reverse=True)
    encoder: Any = load_layers(case.encoder, case.modality, layers, weights=tmp_path)  # type: ignore[arg-type]
    with np.load(FOLDER / f"{name}.npz") as golden:
        for number, sequence in enumerate(about["sequences"]):
            for layer, (rows,) in encoder.encode_layers([sequence], layers).items():
                key = f"{layer}.{number}"
                wanted = golden[key]
                assert len(wanted) == len(about["rows"][key])
                assert len(rows) == encoder.spec.n_tokens(sequence) == about["rows"][key][-1] + 1
                off = np.abs(rows[about["rows"][key]] - wanted).max()
                assert off <= 1e-5 * np.abs(wanted).max(), key


@pytest.mark.parametrize("name", [name for name in GOLDEN if "zoi" not in name])  # those: test_borzoi, faster
def test_one_tensor_less_or_more_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = GOLDEN[name]
    card = sized_card(case)
    monkeypatch.setattr(registry, "CARDS", CARDS | {case.encoder: card})
    tensors = draw(case)
    used = [key for key in tensors if not key.removeprefix(card.key_prefix).startswith(card.unused)]
    lost = next(key for key in reversed(used) if key.endswith(".weight"))
    for wrong in ({key: tensors[key] for key in tensors if key != lost}, tensors | {f"{lost}_more": tensors[lost]}):
        write_checkpoint(case, tmp_path, wrong)
        with pytest.raises(InvalidInputError, match="do not fit"):
            load_layers(case.encoder, case.modality, [-1], weights=tmp_path)  # type: ignore[arg-type]


def test_every_file_belongs_to_a_case() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(GOLDEN)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 100_000
