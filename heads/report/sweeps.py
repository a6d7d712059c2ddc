"""A sweep directory as a report needs it: its arms, and the runs of each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from embedcache.errors import InvalidInputError
from heads.report.content import Arm
from heads.report.measured import Measured
from heads.report.reading import Part, read_json
from heads.report.runs import RunFiles, open_run
from heads.text import how_again

__all__ = ["SweepArm", "SweepFiles", "open_sweep"]

SWEEP_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepArm:
    """One arm and its runs by name, such as ``seed 0, fold 2``; None for a run that has not begun."""

    name: str
    settings: Mapping[str, Any]
    runs: tuple[tuple[str, RunFiles | None], ...]
    seeds: tuple[int, ...]
    """Of the runs, one each."""

    def complete(self, arm: Arm, measured: Measured | None) -> Arm:
        """The arm with its learning curves and, of its first seed, predicted against measured values."""
        begun = [(name, run) for name, run in self.runs if run]
        if begun:
            arm = begun[0][1].complete(arm, begun)
        first = [run for seed, (_, run) in zip(self.seeds, self.runs, strict=True) if run and seed == self.seeds[0]]
        kept = [run for run in first if run.has_predictions]
        if measured and kept:
            folds = f", {len(kept)} of {len(first)} folds" if len(kept) < len(first) else ""
            arm = measured.complete(arm, kept, f"seed {self.seeds[0]}, test rows{folds}", resamples=None)
        return arm


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFiles:
    """A sweep directory that has been looked into."""

    name: str
    labels: tuple[str, ...]
    arms: tuple[SweepArm, ...]
    shown: Mapping[str, Any]
    """``sweep.json``, with the directory of each run under its name."""

    @property
    def n_runs(self) -> int:
        """Runs of all arms."""
        return sum(len(arm.runs) for arm in self.arms)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of all runs."""
        return tuple(sorted({seed for arm in self.arms for seed in arm.seeds}))

    @property
    def folds(self) -> int | None:
        """How many folds the runs name; None without folds."""
        named = {name.partition("fold ")[2] for arm in self.arms for name, _ in arm.runs if "fold " in name}
        return len(named) or None

    @property
    def tissues(self) -> tuple[str, ...]:
        """Of the first run that has begun."""
        return next((run.tissues for arm in self.arms for _, run in arm.runs if run), ())

    def join(self, scored: Iterable[Arm], measured: Measured | None) -> tuple[Arm, ...]:
        """Scored arms with what their runs tell, in their order; then arms that were not scored."""
        planned = {arm.name: arm for arm in self.arms}
        joined = [
            planned.pop(arm.name).complete(arm, measured) if arm.kind == "arm" and arm.name in planned else arm
            for arm in scored
        ]
        for arm in planned.values():
            joined.append(arm.complete(Arm(name=arm.name, kind="arm", settings=arm.settings), measured))
        return tuple(joined)


def open_sweep(path: Path) -> SweepFiles:
    """Read a sweep directory and those of its runs that have begun.

    Raises:
        InvalidInputError: It is of another version, or damaged, or one of its runs is.
    """
    found = read_json(path / "sweep.json", "isoheads-sweep", SWEEP_VERSION)
    arms = tuple(_arm(path, arm) for arm in found.parts("arms"))
    shown = dict(found.values)
    shown["arms"] = [
        {**arm.values, "runs": {name: run.text("directory") for name, run in _named(arm)}}
        for arm in found.parts("arms")
    ]
    return SweepFiles(
        name=found.text("name") or path.resolve().name, labels=found.texts("labels"), arms=arms, shown=shown
    )


def _arm(path: Path, arm: Part) -> SweepArm:
    runs, seeds = [], []
    for name, run in _named(arm):
        directory = PurePosixPath(run.name("directory"))
        if directory.is_absolute() or ".." in directory.parts or "\0" in str(directory):
            run.fail("directory", "a path below the sweep")
        seeds.append(run.whole("seed") or 0)
        runs.append((name, _open(path / directory)))
    return SweepArm(name=arm.name("name"), settings=arm.plain("settings"), runs=tuple(runs), seeds=tuple(seeds))


def _named(arm: Part) -> Iterator[tuple[str, Part]]:
    """Runs of an arm under the names that are shown."""
    for run in arm.parts("runs"):
        fold = run.whole("fold")
        yield f"seed {run.whole('seed') or 0}" + (f", fold {fold}" if fold is not None else ""), run


def _directories(arm: Part) -> dict[str, str | None]:
    return {name: run.text("directory") for name, run in _named(arm)}


def _open(path: Path) -> RunFiles | None:
    """A run, if it has begun."""
    if (path / "config.json").is_file():
        return open_run(path)
    if any((path / name).is_file() for name in ("model.safetensors", "checkpoint.safetensors")):
        raise InvalidInputError(f"{path} has lost its config.json. {how_again(path)}")
    return None
