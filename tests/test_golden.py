"""What was promised to users earlier: old stores open, flags stay, the code of the README runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from fakes import FakeEncoder

from embedcache.commands import app as embedcache_app
from embedcache.encoders.registry import load_encoder
from embedcache.encoders.selftest import check_encoder
from embedcache.sequences import sequence_key
from embedcache.store import EmbeddingStore
from heads.commands import app as heads_app

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def test_a_store_of_format_version_1_opens() -> None:
    store, encoder = EmbeddingStore(HERE / "golden" / "store_v1"), FakeEncoder(width=4)
    assert len(store) == 3 and store.damaged() == [] and store.index_is_current
    for sequence in ("MKV", "MKVLAAG", "W"):
        rows = store[sequence_key(sequence, "protein")]
        assert np.allclose(rows, encoder.rows(sequence), atol=1e-3)  # sines of another machine may round otherwise
    assert store.spec == encoder.spec


def flags(app: typer.Typer) -> list[str]:
    """Each command with its options, one line an option."""

    def walk(name: str, group: object) -> list[str]:
        lines = []
        for word, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                lines += walk(f"{name} {word}", command)
            else:
                options = sorted(option for parameter in command.params for option in parameter.opts)
                lines += [f"{name} {word} {option}" for option in options]
        return lines

    name = "embedcache" if app is embedcache_app else "heads"
    return walk(name, typer.main.get_command(app))


def test_the_flags_are_those_that_were_promised() -> None:
    found = flags(embedcache_app) + flags(heads_app)
    assert found == (HERE / "golden" / "flags.txt").read_text().splitlines()


def test_the_encoder_of_the_contributing_page_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (HERE.parent / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (tmp_path / "charge.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    encoder = load_encoder("charge:Charge", "protein")
    check_encoder(encoder)
    assert [rows.shape for rows in encoder.encode(["MKVLAAGHWE", "W"])] == [(10, 2), (1, 2)]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proteins.fa").write_text(">a\nMKVLA\n>b\nMKV\n")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)  # our own text
    embedding = names["embedding"]
    assert isinstance(embedding, np.ndarray) and embedding.shape[1] == 64


def test_a_busy_person_finishes_the_readme() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if line.startswith("make ")] == [
        "make demo    # makes .venv, installs, runs the main job on a simulated study; ends in a table and a page",
        "make test",
    ]
    for script in re.findall(r"`(\w+\.py)`", text.split("## Measured")[1].split("## Limits")[0]):
        assert (README.parent / "benchmarks" / script).is_file(), script
