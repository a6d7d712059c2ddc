"""Starts a script in two processes that find each other, as torchrun does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

__all__ = ["finish_two", "start_two"]


def start_two(script: str, *words: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, *words],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": here},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def finish_two(script: str, *words: str, code: int = 0) -> list[str]:
    """What each said; both have to end with this exit status."""
    workers = start_two(script, *words)
    try:
        said = [worker.communicate(timeout=180)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [code, code], said
    return said
