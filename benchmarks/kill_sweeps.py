"""Sweeps killed with SIGKILL at random moments: all end in the same table and the same runs, byte for byte.

A sweep is killed with all its workers after a random time and started again, until so many kills have hit it before it
was done; then it ends undisturbed. Every file that it leaves is compared with those of a sweep that nobody disturbed:
table, plan, models, checkpoints, histories, predictions. Once in one process, once with two workers. A sweep that ends
before it is killed is compared as well and begins anew.

    python benchmarks/kill_sweeps.py [--kills 20] [--genes 40] [--epochs 60] [--json]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from random_study import Shape, Study, heads_command, make_study
from report import Result, add_json_option, report

GRID = """seeds = 2
reference = "concat, rna,protein"
[base]
batch_size = 16
hidden = 32
heads = 2
width = 16
dropout = 0.3
epochs = {epochs}
patience = {epochs}
[grid]
aggregator = ["cross-attention", "concat"]
modalities = ["rna", "rna,protein"]
"""


@dataclass
class Tally:
    """What the drill counted."""

    kills: int = 0
    in_training: int = 0
    """Kills of sweeps with a run that had been saved and not ended."""
    wholes: int = 0
    """Sweeps that ended before they were killed, and began anew."""
    differing: int = 0
    """Files that differ from those of the undisturbed sweep, or are missing, or too many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--genes", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=60)
    add_json_option(parser)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        study = make_study(directory / "study", 2 * options.genes, {"rna": Shape(40, 32), "protein": Shape(20, 24)})
        (directory / "grid.toml").write_text(GRID.format(epochs=options.epochs))
        started = time.monotonic()
        finish(start(directory, study, "whole", 1), directory)
        seconds = time.monotonic() - started
        whole = files_of(directory / "whole")
        print(f"undisturbed: {len(whole)} files, {seconds:.1f} s", flush=True)
        for workers in (1, 2):
            tally = drill(directory, study, whole, seconds, (workers, options.kills))
            words = f"{tally.kills} SIGKILLs, {tally.in_training} in training, {tally.wholes} sweeps had ended before"
            print(f"{workers} workers: {words}; {tally.differing} of {len(whole)} files differ", flush=True)
            assert tally.in_training >= tally.kills / 4, "too few kills hit a training: they show nothing"
            what = f"files of a sweep with {workers} workers that differ after {tally.kills} SIGKILLs"
            results.append(Result(what, tally.differing, 0, 0, "lower", f"{tally.in_training} kills hit a training"))
    report(results, options.json)
    sys.exit(1 if any(result.measured for result in results) else 0)


def drill(directory: Path, study: Study, whole: dict[str, bytes], seconds: float, many: tuple[int, int]) -> Tally:
    """Kill a sweep of so many workers so often, let it end, and compare."""
    workers, kills = many
    rng, tally, output = random.Random(workers), Tally(), directory / f"killed{workers}"
    while tally.kills < kills:
        process = start(directory, study, output.name, workers)
        try:
            # half of the time of a sweep is its start, in which there is nothing to kill
            process.wait(rng.uniform(0.2, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            tally.in_training += is_training(output)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            tally.kills += 1
            continue
        finish(process, directory)
        tally.wholes += 1
        tally.differing += differing(files_of(output), whole)
        shutil.rmtree(output)
    finish(start(directory, study, output.name, workers), directory)
    tally.differing += differing(files_of(output), whole)
    return tally


def start(directory: Path, study: Study, output: str, workers: int) -> "subprocess.Popen[bytes]":
    """The sweep in a group of processes of its own."""
    command = heads_command(
        "sweep", directory / "grid.toml", *study.arguments(), "--output", directory / output, "--resamples", "200"
    )
    with (directory / "log").open("wb") as log:
        return subprocess.Popen([*command, "--workers", str(workers)], process_group=0, stdout=log, stderr=log)


def finish(process: "subprocess.Popen[bytes]", directory: Path) -> None:
    """Wait for a sweep that nobody kills any more."""
    if process.wait():
        sys.exit(f"a sweep ended with {process.returncode}: {(directory / 'log').read_text()[-2000:]}")


def is_training(output: Path) -> bool:
    """Whether some run has been saved and has not ended."""
    saved = {path.parent for path in output.glob("runs/*/checkpoint.safetensors")}
    return any(not (run / "test_predictions.parquet").exists() for run in saved)


def files_of(output: Path) -> dict[str, bytes]:
    """Every byte that a sweep leaves, but for locks."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and ".cohorts" not in path.parts
    }


def differing(found: dict[str, bytes], whole: dict[str, bytes]) -> int:
    """Number of files that are not the same; they are named."""
    names = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
    for name in names:
        print(
            f"differs: {name}, {len(found.get(name, b''))} bytes, undisturbed {len(whole.get(name, b''))}", flush=True
        )
    return len(names)


if __name__ == "__main__":
    main()
