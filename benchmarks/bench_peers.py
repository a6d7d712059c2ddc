"""CPU seconds a residue of ``build_cache`` and of other tools: ESM-2 8M with drawn weights, one thread, no network.

Each tool runs in a process of its own. First its rows are compared with single sequences in transformers, its bytes on
disk are added up and the tokens that enter its embedding layer are counted. Then the tools run in turn, round after
round, and a ratio is the median over the rounds. CPU seconds are those of the process and its children around
embedding and writing; imports and loading the model are left out. A tool that is not installed is said to be so:

    pip install fair-esm sentence-transformers biotrainer
    python benchmarks/bench_peers.py [--sequences 300] [--rounds 5] [--json]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest.mock import patch

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
import torch
from peer_tools import BFLOAT, HALF, OURS, TOOLS, load_transformers, prepare, read_sequences
from report import Result, add_json_option, report

BARS = {  # bar and moonshot of CPU seconds of a tool over ours
    ("fair-esm extract", OURS): (2.5, 3.0),
    ("biotrainer", OURS): (2.2, 2.7),
    ("sentence-transformers", OURS): (1.5, 1.8),
    ("FastPLMs-like loop", OURS): (1.5, 1.8),
    ("sentence-transformers", BFLOAT): (2.2, 3.0),
    ("FastPLMs-like loop", BFLOAT): (2.2, 3.0),
    ("plain loop", OURS): (None, None),
}
CHECKED = 20
WIDTH = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", default="", help="names with commas between; all by default")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a child: one tool in a folder that is prepared
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        print(json.dumps(run_here(options.one, options.folder, options.check)))
        return
    chosen = [name.strip() for name in options.tools.split(",")] if options.tools else list(TOOLS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.sequences)
        checks = {tool: run_apart(tool, folder, "--check") for tool in chosen if is_installed(tool)}
        tokens = sum(map(len, read_sequences(folder)))
        print_checks(chosen, checks, tokens)
        sound = [tool for tool, check in checks.items() if check["error"] <= TOOLS[tool].tolerance]
        seconds: dict[str, list[float]] = {tool: [] for tool in sound}
        for i in range(options.rounds):
            for tool in sound[i:] + sound[:i]:  # nobody always follows the same neighbour
                seconds[tool].append(run_apart(tool, folder)["seconds"])
    print_seconds(seconds, tokens)
    report([*ratios(chosen, seconds), *counts(checks)], options.json)
    sys.exit(0 if len(sound) == len(checks) else 1)


def is_installed(tool: str) -> bool:
    try:
        return not TOOLS[tool].package or bool(version(TOOLS[tool].package))
    except PackageNotFoundError:
        return False


def run_apart(tool: str, folder: Path, *more: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", tool, "--folder", str(folder), *more]
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


@torch.inference_mode()
def run_here(tool: str, folder: Path, check: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        work = TOOLS[tool].load(folder, Path(out))
        with counted_tokens(check) as counted, without_self_test(check):
            before = cpu_seconds()
            rows_of = work()
            result = {"seconds": cpu_seconds() - before}
        if check:
            sequences = read_sequences(folder)
            needed = sum(map(len, sequences)) + 2 * len(sequences)  # with the special tokens at both ends
            size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
            result |= {"error": worst_error(folder, rows_of), "padding": sum(counted) - needed, "bytes": size}
    return result


def cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


@contextmanager
def counted_tokens(wanted: bool) -> Iterator[list[int]]:
    """Tokens that enter a table of the ESM vocabulary in any model, padding and special ones too."""
    counted: list[int] = []

    def count(module, arguments, _output) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == 33:
            counted.append(arguments[0].numel())

    hook = torch.nn.modules.module.register_module_forward_hook(count) if wanted else None
    yield counted
    if hook:
        hook.remove()


@contextmanager
def without_self_test(wanted: bool) -> Iterator[None]:
    """A build tries its encoder before it writes; these tokens are no padding. What is timed includes them."""
    with patch("embedcache.build.check_encoder", lambda *_, **__: None) if wanted else nullcontext():
        yield


def worst_error(folder: Path, rows_of) -> float:
    """Largest difference from single sequences over the largest value; infinite where the rows are too many or few."""
    model, tokenize = load_transformers(folder)
    worst = 0.0
    for sequence in read_sequences(folder)[:CHECKED]:
        wanted, found = model(**tokenize([sequence])).last_hidden_state[0, 1:-1].numpy(), rows_of(sequence)
        is_whole = wanted.shape == found.shape
        worst = max(worst, float(np.abs(wanted - found).max() / np.abs(wanted).max()) if is_whole else float("inf"))
    return worst


def print_checks(chosen: list[str], checks: dict[str, dict[str, float]], tokens: int) -> None:
    print(f"{tokens:,} residues; rows of {CHECKED} sequences against single ones, relative to the largest value")
    for tool in chosen:
        if tool not in checks:
            print(f"{tool:28} not installed")
            continue
        check = checks[tool]
        verdict = "" if check["error"] <= TOOLS[tool].tolerance else "   WRONG ROWS, not timed"
        size = f"{check['bytes'] / (tokens * WIDTH * 4):.2f} of float32 rows" if check["bytes"] else "in memory only"
        print(f"{tool:28} worst error {check['error']:.0e}   bytes {size}   padding {check['padding']:,}{verdict}")


def print_seconds(seconds: dict[str, list[float]], tokens: int) -> None:
    for tool, found in seconds.items():
        middle, spread = statistics.median(found), f"{min(found):.2f} to {max(found):.2f}"
        print(f"{tool:28} {middle:6.2f} CPU s ({spread}), {middle / tokens * 1e6:5.0f} microseconds a residue")


def ratios(chosen: list[str], seconds: dict[str, list[float]]) -> list[Result]:
    results = []
    for (tool, base), (bar, moonshot) in BARS.items():
        if tool not in chosen or base not in chosen:
            continue
        what = f"CPU time of {tool} over {base}"
        if tool in seconds and base in seconds:
            found = [a / b for a, b in zip(seconds[tool], seconds[base], strict=True)]
            note = f"{min(found):.2f} to {max(found):.2f}"
            results.append(Result(what, statistics.median(found), bar, moonshot, note=note))
        else:
            note = "wrong rows" if is_installed(tool) else "not installed"
            results.append(Result(what, None, bar, moonshot, note=note))
    return results


def counts(checks: dict[str, dict[str, float]]) -> list[Result]:
    results = []
    for tool in (OURS, BFLOAT):
        if tool in checks:
            results.append(Result(f"padding computed, {tool}, tokens", checks[tool]["padding"], 0, 0, "lower"))
    if {OURS, HALF} <= checks.keys():
        share = checks[HALF]["bytes"] / checks[OURS]["bytes"]
        results.append(Result("bytes of the float16 store over the float32 store", share, better="lower"))
    return results


if __name__ == "__main__":
    main()
