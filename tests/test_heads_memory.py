"""Memory that runs out is told in one line, and nothing is lost."""

from pathlib import Path

import pytest
import torch
from fake_study import FakeStudy, make_study

from heads.config import ModelConfig, TrainConfig
from heads.memory import NoMemoryLeftError, memory_told
from heads.run import Run
from heads.train import train


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     MemoryError()],
)  # fmt: skip
def test_a_step_that_does_not_fit_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    study: FakeStudy = make_study(tmp_path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Run, "accumulate", fail)
    with pytest.raises(NoMemoryLeftError, match="Training does not fit the memory; what was saved is kept") as caught:
        train(
            dataset=study.dataset, cache=study.cache, run=tmp_path / "run",
            model=ModelConfig(aggregator="concat", hidden=4), config=TrainConfig(device="cpu", epochs=1),
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_told("Training"):
        raise RuntimeError("shapes do not match")
