"""Files and folders whose names are not UTF-8, with line ends or bytes that a terminal would obey."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.dataset import read_dataset
from embedcache.prepare.fasta import prepare_fasta

NAMES = {"latin-1": "caf\udce9", "line-end": "a\nb", "escape": "\x1b[31m", "quote": "'\"", "dash": "-x"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_dataset_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.fa").write_text(">a\nACGT\n")
    made = prepare_fasta(rna=tmp_path / f"{name}.fa", output=tmp_path / name)
    found = read_dataset(tmp_path / name)
    assert [letters for _, letters in found.sequences("rna")] == ["ACGT"]
    assert found.digest == made.digest


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_the_commands_show_any_name(tmp_path: Path, encoding: str) -> None:
    encoder = FakeEncoder()
    cache = tmp_path / "caf\udce9"
    build_cache(random_records(3), encoder, cache / "protein" / encoder.spec.directory)
    done = subprocess.run(
        [sys.executable, "-c", "import cli; cli.embedcache()", "verify", "--cache", cache],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0 and "caf\\udce9" in done.stdout, done.stderr
