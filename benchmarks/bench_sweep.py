"""Sixteen configurations in one ``heads sweep`` over the same alone as ``heads train``: whole commands, start to end.

Pooled heads (concat, means from memory) are held against one alone, cross-attention against sixteen alone. A sweep
ends with test scores and baselines in a table, so one alone is ``train`` and ``evaluate``; the ratio to ``train``,
which scores no test rows, stands beside. Commands take turns; wall seconds are judged, CPU seconds stand beside them.
What a run leaves in the sweep and alone is compared byte for byte. ``benchmarks/clocked_heads.py`` tells where the
seconds go, in a round that is not counted.

On one CPU thread nothing but start and reading can be shared: with S seconds of both and T of training a run, a sweep
over one alone is (S + 16 T) / (S + T). On a GPU T is small.

    python benchmarks/bench_sweep.py [--rounds 3] [--alone 16] [--transcripts 3000] [--hidden 128] [--json]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from random_study import Shape, Study, Taken, heads_command, make_study, size_megabytes, timed
from report import Result, add_json_option, report

SEEDS = (0, 1, 2, 3)
SHAPES = {"rna": Shape(500, 256), "protein": Shape(300, 320)}
FILES = ("model.safetensors", "checkpoint.safetensors", "history.jsonl", "config.json")
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """Sixteen runs: four arms, four seeds."""

    name: str
    study: Study
    base: Settings
    lists: Mapping[str, Sequence[float]]
    """Two values of each of two settings."""

    def sweep(self, output: Path) -> list[str]:
        """The command that trains them together."""
        file = output.parent / f"{self.name}.toml"
        lines = [f"seeds = {list(SEEDS)}", "[base]", *(f"{k} = {json.dumps(v)}" for k, v in self.base.items())]
        lines += ["[grid]", *(f"{name} = {list(values)}" for name, values in self.lists.items())]
        file.write_text("\n".join(lines) + "\n")
        return heads_command("sweep", file, *self.study.arguments(), "--output", output)

    def runs(self) -> Iterator[tuple[Settings, int]]:
        """What differs, and the seed, of each."""
        for values in product(*self.lists.values()):
            for seed in SEEDS:
                yield dict(zip(self.lists, values, strict=True)), seed

    def alone(self, differs: Settings, seed: int, output: Path) -> list[str]:
        """The command that trains one."""
        flags = {**self.base, **differs, "seed": seed}
        words = [
            (f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, list) else str(value))
            for name, value in flags.items()
        ]
        return heads_command("train", *(x for pair in words for x in pair), *self.study.arguments(), "--run", output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=16, help="cross-attention runs that are trained alone")
    parser.add_argument("--transcripts", type=int, default=3000, help="of the pooled study")
    parser.add_argument("--tokened", type=int, default=200, help="transcripts of the study of cross-attention")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 1024], help="the first is judged")
    parser.add_argument("--epochs", type=int, nargs=2, default=[15, 2], help="pooled, and cross-attention")
    parser.add_argument("--no-clocks", action="store_true", help="leave out where the seconds go")
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report(compare(Path(directory), options), options.json)


def compare(directory: Path, options: argparse.Namespace) -> list[Result]:
    pooled = make_study(directory / "pooled", options.transcripts, SHAPES)
    tokened = make_study(directory / "tokened", options.tokened, SHAPES)
    sizes = ", ".join(f"{size_megabytes(one.cache):,.0f} MB" for one in (pooled, tokened))
    print(f"caches of {sizes}: {', '.join(f'{m} {s.tokens} x {s.width}' for m, s in SHAPES.items())}")
    results = []
    for hidden in options.hidden:
        base = {"modalities": ["rna", "protein"], "aggregator": "concat", "hidden": hidden}
        base |= {"epochs": options.epochs[0], "patience": options.epochs[0]}
        grid = Grid(f"pooled{hidden}", pooled, base, {"learning_rate": [3e-4, 1e-3], "dropout": [0.1, 0.3]})
        bars = (5.0, 2.0) if hidden == options.hidden[0] else (None, None)
        results += pooled_results(grid, directory, options.rounds, bars)
    base = {"modalities": ["rna", "protein"], "width": 64, "heads": 4, "epochs": options.epochs[1]}
    grid = Grid("tokens", tokened, base, {"learning_rate": [3e-4, 1e-3], "weight_decay": [0.0, 0.1]})
    return [*results, *token_results(grid, directory, options)]


def pooled_results(
    grid: Grid, directory: Path, rounds: int, bars: tuple[float | None, float | None]
) -> Iterator[Result]:
    """Sixteen together over one alone."""
    chosen = list(grid.runs())
    found, evaluated, unequal = [], [], 0
    for i in range(rounds):
        output = directory / f"{grid.name}-{i}"
        first = timed(grid.alone(*chosen[i], output / "alone0"))
        together = timed(grid.sweep(output / "sweep"))
        second = timed(grid.alone(*chosen[-1 - i], output / "alone1"))
        scored = timed(heads_command("evaluate", "--run", output / "alone1"))
        found.append((together, [first, second]))
        evaluated.append((together, [plus(one, scored) for one in (first, second)]))
        unequal += differing(
            grid, output / "sweep", [(chosen[i], output / "alone0"), (chosen[-1 - i], output / "alone1")]
        )
    what = f"16 pooled configurations (concat, hidden {grid.base['hidden']}) in one sweep over one alone"
    yield ratio(f"{what}, to test scores", evaluated, 1, bars)
    yield ratio(f"{what}, its test scores left out", found, 1, (None, None))
    yield Result(f"files of {2 * rounds} pooled runs alone that differ in the sweep", unequal, 0, 0, "lower")
    show_clocks(grid, directory / f"{grid.name}-clocked", chosen[0])


def token_results(grid: Grid, directory: Path, options: argparse.Namespace) -> Iterator[Result]:
    """Sixteen together over sixteen alone."""
    chosen = list(grid.runs())[:: 16 // options.alone]
    found, unequal = [], 0
    for i in range(options.rounds if options.alone < 16 else 1):
        output = directory / f"{grid.name}-{i}"
        half = len(chosen) // 2
        pairs = [(run, output / f"alone{k}") for k, run in enumerate(chosen)]
        alone = [timed(grid.alone(*run, path)) for run, path in pairs[:half]]
        together = timed(grid.sweep(output / "sweep"))
        alone += [timed(grid.alone(*run, path)) for run, path in pairs[half:]]
        found.append((together, alone))
        unequal += differing(grid, output / "sweep", pairs)
    yield ratio("16 cross-attention configurations in one sweep over 16 alone", found, 16, (0.8, 0.5))
    yield Result(f"files of {len(chosen)} cross-attention runs alone that differ in the sweep", unequal, 0, 0, "lower")
    if not options.no_clocks:
        show_clocks(grid, directory / f"{grid.name}-clocked", chosen[0])


def ratio(
    what: str, found: Sequence[tuple[Taken, Sequence[Taken]]], times: int, bars: tuple[float | None, float | None]
) -> Result:
    """Together over the mean of those alone, times so many; the median of the rounds."""
    walls = [one.wall / (times * statistics.mean(a.wall for a in alone)) for one, alone in found]
    cpus = [one.cpu / (times * statistics.mean(a.cpu for a in alone)) for one, alone in found]
    one, alone = found[0]
    note = f"{min(walls):.3g} to {max(walls):.3g} of {len(walls)}; CPU seconds {statistics.median(cpus):.3g}, such as "
    note += f"{one.cpu:.1f} s over {statistics.mean(a.cpu for a in alone):.1f} s"
    return Result(what, statistics.median(walls), *bars, better="lower", note=note)


def plus(one: Taken, other: Taken) -> Taken:
    """One command after the other."""
    return Taken(one.wall + other.wall, one.cpu + other.cpu, "")


def differing(grid: Grid, sweep: Path, alone: Sequence[tuple[tuple[Settings, int], Path]]) -> int:
    """Files of runs alone that are not those of the sweep."""
    plan = json.loads((sweep / "sweep.json").read_text())
    count = 0
    for (differs, seed), path in alone:
        (arm,) = [one for one in plan["arms"] if one["settings"] == differs]
        (run,) = [one for one in arm["runs"] if one["seed"] == seed]
        count += sum((path / file).read_bytes() != (sweep / run["directory"] / file).read_bytes() for file in FILES)
    return count


def show_clocks(grid: Grid, output: Path, run: tuple[Settings, int]) -> None:
    """Print where the seconds of both commands go."""
    output.mkdir()
    clocks = Path(__file__).parent / "clocked_heads.py"
    for name, command in (("alone", grid.alone(*run, output / "alone")), ("sweep", grid.sweep(output / "sweep"))):
        arguments = command[command.index("train" if name == "alone" else "sweep") :]
        timed([sys.executable, str(clocks), str(output / f"{name}.json"), *arguments])
        spent = json.loads((output / f"{name}.json").read_text())
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in spent.items() if seconds >= 0.05)
        print(f"{grid.name}, {name}: {sum(spent.values()):.1f} s: {parts}", flush=True)


if __name__ == "__main__":
    main()
