"""Two processes that train one run end with the metrics of one, to seven digits, and one run directory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tuned_study import TunedStudy, build_store, make_tuned_study
from two_processes import finish_two

from embedcache.dataset import read_dataset
from heads.checkpoint import read_tensors
from heads.rng import PrivateRng
from heads.team import Alone, Team, find_team

torch.set_num_threads(1)
TOLERANCE = 1e-5
"""Relative, of losses and scores: gradients are added in another order."""
SCRIPT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import torch
import heads.fit, heads.train
torch.set_num_threads(1)
from tuned_study import TunedStudy
from heads.config import TrainConfig
folder, method = Path(sys.argv[1]), sys.argv[2]
config = TrainConfig(epochs=3, learning_rate=3e-3, batch_size=9, device="cpu")
study = TunedStudy(folder / "dataset", folder / "cache", folder / "frozen", config)
changes = json.loads(sys.argv[3])
start = replace(study.start(method, **changes.pop("start")), shard=changes.pop("shard"))
if sys.argv[4:]:
    def save(*given, left=[int(sys.argv[4])], **more):
        kept(*given, **more)
        left[0] -= 1
        if not left[0]:
            os._exit(9)
    heads.fit._SAVE_EVERY_S, heads.fit._SAVE_SHARE = 0.0, 1e9
    kept, heads.train.save = heads.train.save, save
study.tune(folder / changes.pop("run"), start, **changes)
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TunedStudy:
    found = make_tuned_study(tmp_path_factory.mktemp("team"))
    build_store(read_dataset(found.dataset), found.cache, "protein", layer=2, keep_special=True)
    return found


def check_same(one: Path, two: Path) -> None:
    lines = [[json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] for run in (one, two)]
    assert len(lines[0]) == len(lines[1])
    for a, b in zip(*lines, strict=True):
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=TOLERANCE, abs=1e-6), name
    for file in ("model.safetensors", "checkpoint.safetensors"):
        tensors = [read_tensors(run / file)[0] for run in (one, two)]
        assert tensors[0].keys() - tensors[1].keys() <= {"rng.cpu"}
        for name, tensor in tensors[0].items():
            if not name.startswith("rng."):
                np.testing.assert_allclose(tensor.numpy(), tensors[1][name].numpy(), atol=2e-5, err_msg=name)


# batches of 9 rows, the last of an epoch one row or more: shares differ, and a process may have none
@pytest.mark.parametrize(
    ("method", "shard", "more"),
    [
        ("lora", False, {"modalities": ["rna"]}),
        ("full", True, {"modalities": ["rna", "protein"], "checkpointing": True}),
        ("last:2", True, {"modalities": ["protein"]}),
    ],
    ids=["lora", "full-in-parts", "inner-layer-in-parts"],
)
def test_two_processes_end_with_the_numbers_of_one(
    study: TunedStudy, method: str, shard: bool, more: dict[str, Any]
) -> None:
    folder = study.frozen.parent
    names = [f"{method.replace(':', '-')}-{shard}-{n}" for n in (1, 2)]
    settings = {"batch_size": 9, "max_tokens_per_batch": 60, "clip": 0.05}
    study.tune(folder / names[0], study.start(method, ema=0.5, **more), **settings)
    changes = json.dumps({"shard": shard, "run": names[1], "start": {"ema": 0.5, **more}, **settings})
    if method == "full":
        finish_two(SCRIPT, str(folder), method, changes, "2", code=9)  # they die in the middle of the first epoch
        config = json.loads((folder / names[1] / "config.json").read_text())
        assert "shard" not in json.dumps(config), "how it is computed is no part of what a run is"
    assert method != "last:2" or json.loads((folder / names[0] / "config.json").read_text())["finetune"]["inner"]
    said = finish_two(SCRIPT, str(folder), method, changes)
    check_same(*(folder / name for name in names))
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
