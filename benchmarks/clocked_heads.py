"""``heads`` with clocks in it: where the seconds of a command go, written to a file as JSON.

    python benchmarks/clocked_heads.py FILE train --dataset D --cache C ...

Phases are disjoint: a clock inside another stops the outer one. ``start`` is the start of Python and all imports,
``other`` what no clock saw.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NOW = time.time
_stack: list[list[Any]] = []
_spent: dict[str, float] = {}


def born() -> float:
    """When this process was started, in seconds since 1970."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = float(next(x.split()[1] for x in Path("/proc/stat").read_text().splitlines() if x.startswith("btime")))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def enter(phase: str) -> None:
    now = NOW()
    if _stack:
        name, since = _stack[-1]
        _spent[name] = _spent.get(name, 0) + now - since
    _stack.append([phase, now])


def leave() -> None:
    now = NOW()
    name, since = _stack.pop()
    _spent[name] = _spent.get(name, 0) + now - since
    if _stack:
        _stack[-1][1] = now


def clocked(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inside(*arguments: Any, **options: Any) -> Any:
        enter(phase)
        try:
            return function(*arguments, **options)
        finally:
            leave()

    return inside


def clocked_iterator(phase: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(function)
    def inside(*arguments: Any, **options: Any) -> Iterator[Any]:
        found = function(*arguments, **options)
        while True:
            enter(phase)
            try:
                one = next(found, None)
            finally:
                leave()
            if one is None:
                return
            yield one

    return inside


def put_clocks() -> None:
    """Wrap the functions of each phase where their callers look for them."""
    from heads import fit, train
    from heads.data import CachedDataset
    from heads.run import Run
    from heads.sweep import sweep, work

    CachedDataset.batches = clocked_iterator("reading", CachedDataset.batches)  # type: ignore[method-assign]
    for name, phase in (("accumulate", "steps"), ("update", "steps"), ("end_epoch", "scoring an epoch")):
        setattr(Run, name, clocked(phase, getattr(Run, name)))
    Run.measure = clocked("scales", Run.measure)  # type: ignore[method-assign]
    for module in (fit, work):
        module.predict_cohort = clocked("predicting", module.predict_cohort)  # type: ignore[attr-defined]
    for module in (train, work):
        for name, phase in (("save", "saving"), ("finish", "saving"), ("describe", "opening")):
            setattr(module, name, clocked(phase, getattr(module, name)))
    train.open_study = clocked("opening", train.open_study)  # type: ignore[attr-defined]
    work.Opened.study = clocked("opening", work.Opened.study)  # type: ignore[method-assign]
    sweep.score_sweep = clocked("table", sweep.score_sweep)  # type: ignore[attr-defined]


def main() -> None:
    begun, file = NOW(), Path(sys.argv[1])
    del sys.argv[1]
    enter("start")
    from cli import heads

    put_clocks()
    leave()
    _spent["start"] += begun - born()
    enter("other")
    try:
        heads()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        leave()
    file.write_text(json.dumps({name: round(seconds, 3) for name, seconds in _spent.items()}))


if __name__ == "__main__":
    main()
