"""Two processes that train one run end with the metrics of one, to seven digits, and one run directory."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tuned_study import TunedStudy, make_tuned_study

from heads.checkpoint import read_tensors
from heads.rng import PrivateRng
from heads.team import Alone, Team, find_team

torch.set_num_threads(1)
TOLERANCE = 1e-5
"""Relative, of losses and scores: gradients are added in another order."""
SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tuned_study import TunedStudy
from heads.config import TrainConfig
folder, method = Path(sys.argv[1]), sys.argv[2]
config = TrainConfig(epochs=3, learning_rate=3e-3, batch_size=9, device="cpu")
study = TunedStudy(folder / "dataset", folder / "cache", folder / "frozen", config)
study.tune(folder / "two", study.start(method, ema=0.5), max_tokens_per_batch=60)
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    return make_tuned_study(tmp_path_factory.mktemp("team"))


def start_two(study: TunedStudy, method: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(study.frozen.parent), method],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": here},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def test_two_processes_end_with_the_numbers_of_one(study: TunedStudy) -> None:
    # batches of 9 rows, the last of an epoch one row or more: shares differ, and a process may have none
    study.tune(study.frozen.parent / "one", study.start("lora", ema=0.5), batch_size=9, max_tokens_per_batch=60)
    workers = start_two(study, "lora")
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    one, two = (study.frozen.parent / name for name in ("one", "two"))
    lines = [[json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] for run in (one, two)]
    for a, b in zip(*lines, strict=True):
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=TOLERANCE, abs=1e-6), name
    tensors = [read_tensors(run / "model.safetensors")[0] for run in (one, two)]
    for name, tensor in tensors[0].items():
        np.testing.assert_allclose(tensor.numpy(), tensors[1][name].numpy(), atol=2e-5, err_msg=name)
    assert "epoch 1" in said[0] and "epoch 1" not in said[1], "one of them speaks"


def test_processes_draw_other_masks_and_the_same_ones_again() -> None:
    first, second = Team.__new__(Team), Team.__new__(Team)
    first.rank, second.rank = 0, 1
    seeds = [team.stream(3, epoch, step) for team in (first, second) for epoch in range(2) for step in range(3)]
    assert len(set(seeds)) == len(seeds) and seeds[0] == first.stream(3, 0, 0) and Alone().stream(3, 0, 0) is None
    rng = PrivateRng(0, torch.device("cpu"))
    drawn = []
    for seed in (seeds[0], seeds[1], seeds[0]):
        rng.begin(seed)
        with rng.active():
            drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_a_process_alone_is_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = find_team("cpu")
    assert type(team) is Alone and team.is_first and team.size == 1


@pytest.mark.parametrize(("device", "gpus", "on_cpu"), [("cpu", 1, True), ("auto", 0, True), ("auto", 1, False)])
def test_a_team_meets_on_the_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, on_cpu: bool
) -> None:
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("heads.team.Team", asked.append)
    find_team(device)
    assert asked == [on_cpu]
