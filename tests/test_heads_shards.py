"""Encoders whose weights lie in parts on two processes: gradients, and a training that dies and goes on."""

from types import SimpleNamespace

import pytest
import torch
from two_processes import finish_two

from embedcache.errors import InvalidSettingError
from heads.finetune.sharding import Together
from heads.shards import is_in_parts, local, part_of, whole
from heads.team import Alone

GRADIENTS = """
import copy, os
import torch
torch.set_num_threads(1)
from test_families import drawn, load_small
from embedcache.encoders.registry import load_encoder
from heads.finetune.sharding import Together
from heads.shards import is_in_parts, local, whole
from heads.team import Team
team, rank = Team(True), int(os.environ["RANK"])
for name in ("tiny-random-protein", "esmc-300m", "prott5-xl", "ankh-base"):
    core = load_encoder(name, "protein") if name.startswith("tiny") else load_small(name)
    sequences = drawn([30, 7, 2, 40, 12])
    core.encode_packed(sequences).values.square().sum().backward()
    wanted = {name: one.grad.clone() for name, one in core.model.named_parameters() if one.grad is not None}
    for one in core.model.parameters():
        one.grad = None
    together = Together(core, team)
    named = dict(core.model.named_parameters())
    held = sum(local(one).numel() for one in named.values() if is_in_parts(one))
    print(name, "holds", round(held / sum(one.numel() for one in named.values() if is_in_parts(one)), 2))
    # one process has all sequences, in two passes or more, and the other none
    loss = torch.zeros(())
    if rank == 0:
        for some in (sequences[:3], sequences[3:]):
            loss = loss + core.encode_packed(some).values.square().sum()
    together.catch_up(None)
    (loss + together.touched()).backward()
    team.add_up(named.values(), torch.zeros(1))
    assert wanted.keys() == {name for name, one in named.items() if one.grad is not None}, name
    for one, gradient in wanted.items():
        found = whole(named[one].grad, keep=True)
        assert (found - gradient).abs().max() <= 2e-5 * gradient.abs().max() + 1e-7, (name, one)
    squares = sum(gradient.square().sum() for gradient in wanted.values())
    team.clip(named.values(), 0.5)
    clipped = sum(whole(one.grad, keep=True).square().sum() for one in named.values() if one.grad is not None)
    assert abs(clipped.sqrt() - 0.5) < 1e-4 < squares.sqrt(), (name, clipped)
"""


def test_gradients_are_those_of_one_process_in_every_family() -> None:
    said = finish_two(GRADIENTS)
    held = [line for line in said[0].splitlines() if " holds " in line]
    assert len(held) == 4 and all(0.45 < float(line.split()[-1]) < 0.55 for line in held), said


def test_an_encoder_without_blocks_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match=r"The blocks of .* are not counted here, so --shard cannot"):
        Together(SimpleNamespace(spec=SimpleNamespace(name="enformer")), Alone())


def test_whole_tensors_pass_through() -> None:
    tensor = torch.arange(6.0).view(3, 2)
    assert not is_in_parts(tensor) and local(tensor) is tensor and whole(tensor, keep=False) is tensor
    assert part_of(tensor, torch.zeros(3, 2)) is tensor
