import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedcache.partial import make_partial, remove_abandoned

ROOT = Path(__file__).resolve().parents[1]


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    held, lock = make_partial(tmp_path / "d")
    left, other = make_partial(tmp_path / "d")
    (left / "file").write_text("x")
    os.close(other)
    foreign, third = make_partial(tmp_path / "dd")
    os.close(third)
    assert remove_abandoned(tmp_path / "d") == [left]
    assert held.is_dir() and foreign.is_dir() and not left.exists()
    os.close(lock)


def test_a_directory_that_is_taken_for_abandoned_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, made = Path.mkdir, []

    def mkdir_and_lose(path: Path) -> None:
        mkdir(path)
        made.append(path)
        if len(made) == 1:
            assert remove_abandoned(tmp_path / "d") == [path]

    monkeypatch.setattr(Path, "mkdir", mkdir_and_lose)
    partial, lock = make_partial(tmp_path / "d")
    assert len(made) == 2 and partial == made[1] and partial.is_dir()
    os.close(lock)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_prepare_leaves_nothing_to_the_next(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "p.fa").write_text("".join(f">p{i}\nMK{'ACDEFGHIKL'[i % 10]}\n" for i in range(9)))
    body = (
        "import cli, time; from embedcache.prepare import fasta;"
        "fasta.read_fasta = lambda *_: (print('here', flush=True), time.sleep(60));"
        "cli.embedcache()"
    )
    command = [sys.executable, "-c", body, "prepare", "fasta", "--protein", "p.fa", "--output", "a/d"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    left = list((tmp_path / "a").iterdir()) if (tmp_path / "a").exists() else []
    if number == signal.SIGKILL:
        assert [path.suffix for path in left] == [".partial"]
    else:
        assert "Stopped" in errors and "Traceback" not in errors
        assert not (tmp_path / "a").exists()
    again = [*command[:2], "import cli; cli.embedcache()", *command[3:]]
    subprocess.run(again, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["d"]
