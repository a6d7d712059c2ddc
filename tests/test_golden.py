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


def test_the_readme_names_flags_and_commands_that_exist() -> None:
    known = flags(embedcache_app) + flags(heads_app)
    commands = re.findall(r"^((?:embedcache|heads) .*(?:\\\n.*)*)", README.read_text(), re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        words = command.partition("#")[0].replace("\\\n", " ").split()
        name = " ".join(words[:3] if words[1] in ("prepare", "explain") else words[:2])
        for flag in (word for word in words if word.startswith("--")):
            assert f"{name} {flag}" in known, command


def test_the_encoder_of_the_contributing_page_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (HERE.parent / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (tmp_path / "charge.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    encoder = load_encoder("charge:Charge", "protein")
    check_encoder(encoder)
    assert [rows.shape for rows in encoder.encode(["MKVLAAGHWE", "W"])] == [(10, 2), (1, 2)]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proteins.fa").write_text(">a\nMKVLA\n>b\nMKV\n")
    found: dict[str, object] = {}
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)  # our own text
        found.update(names)
    embedding, scores = found["embedding"], found["scores"]
    assert isinstance(embedding, np.ndarray) and embedding.shape[1] == 64
    assert isinstance(scores, np.ndarray) and scores.min() > 0.5
