"""Every benchmark of the table, one after the other: what | bar | moonshot | measured | holds?

Each script runs in a process of its own with ``--json`` and may be run alone as well. All figures with a bar are ratios
within one run, sizes or counts, for seconds depend on who else uses the machine; the load is printed beside them.
A peer that is not installed is said to be so, and its row reads "not measured". Exits 1 if a bar is missed or a
script fails, else 0. Where there is a CUDA device, the build is measured on it too.

    pip install fair-esm sentence-transformers biotrainer h5py zarr 'moto[server]' 'isoheads[s3]'
    python benchmarks/run_all.py [--only read,write] [--quick] [--markdown] [--peers-python OTHER/bin/python]

About 45 minutes on two cores; ``--quick`` takes about 10 and is for seeing that everything runs: its figures are rough.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from report import Result, read_json, table

HERE = Path(__file__).parent
VERSIONS = ("isoheads", "torch", "numpy", "zarr", "h5py", "obstore")
PEERS = ("transformers", "fair-esm", "biotrainer", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Script:
    """A benchmark and how to call it."""

    name: str
    file: str
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    """Options with ``--quick``, after the others."""
    device: str = "cpu"


ON_CUDA = (  # a size that people run there, in batches that fill it
    *("--device", "cuda", "--dtype", "bfloat16", "--encoder", "esm2-150m"),
    *("--sequences", "2000", "--tokens-per-batch", "16384"),
)
SCRIPTS = (  # in the order of the table
    Script("build", "bench_build.py", (), ("--sequences", "100", "--rounds", "3")),
    Script("peers", "bench_peers.py", (), ("--sequences", "60", "--rounds", "2")),
    Script("precision", "bench_precision.py", (), ("--layers", "2", "--tokens", "100")),
    Script("read", "bench_read.py", (), ("--megabytes", "400", "--batches", "30")),
    Script("read-320", "bench_read.py", ("--width", "320"), ("--megabytes", "400", "--batches", "30")),
    Script("read-1024", "bench_read.py", ("--width", "1024"), ("--megabytes", "400", "--batches", "30")),
    Script("cold", "bench_cold.py", (), ("--megabytes", "600", "--rounds", "3")),
    Script("open", "bench_open.py", (), ("--repeats", "7")),
    Script("memory", "bench_memory.py", (), ("--megabytes", "200")),
    Script("write", "bench_write.py", (), ("--tasks", "8")),
    Script("files", "bench_files.py", (), ("--megabytes", "500")),
    Script("gct", "bench_gct.py", (), ("--rows", "100")),
    Script("objects", "bench_objects.py", (), ("--megabytes", "60", "--batches", "2")),
    Script("training", "bench_training.py", (), ("--transcripts", "200", "--rounds", "3", "--sequences", "1")),
    Script("means", "bench_means.py", (), ("--widths", "128,paper", "--rounds", "2")),
    Script("sweep", "bench_sweep.py", ("--alone", "4"), ("--alone", "2", "--rounds", "1", "--transcripts", "600")),
    Script("by-hand", "by_hand.py", (), ("--transcripts", "150", "--epochs", "1")),
    Script("finetune", "bench_finetune.py", (), ("--deep", "esm2-35m", "--rounds", "1", "--batch-size", "4")),
    Script("shard", "bench_shard.py", (), ("--encoder", "esm2-8m", "--rounds", "1")),
    Script("planted-motif", "planted_motif.py", (), ("--seeds", "1")),
    Script("attention", "bench_attention.py", (), ("--rounds", "1")),
    Script("bootstrap", "bench_bootstrap.py", (), ("--rounds", "1", "--loop", "1")),
    Script("null-studies", "null_studies.py"),
    Script("kill-builds", "kill_builds.py", ("--kills", "20"), ("--kills", "5")),
    Script("kill-sweeps", "kill_sweeps.py", (), ("--kills", "3", "--epochs", "20")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(script.name for script in SCRIPTS)
    parser.add_argument("--only", default="", help=f"names with commas between, of {names}")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--markdown", action="store_true", help="print what a README can hold, and nothing else")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    options = parser.parse_args()
    chosen = choose([name.strip() for name in options.only.split(",") if name.strip()], cuda_name())
    about = f"{machine(options.peers_python)}; load at the start {os.getloadavg()[0]:.1f}"
    print(about, file=sys.stderr, flush=True)
    found, failed = list[Result](), list[str]()
    for script in chosen:
        results, is_sound = run(script, options.quick, options.peers_python)
        found += results
        failed += [] if is_sound else [script.name]
    about += f"; load at the end {os.getloadavg()[0]:.1f}"
    print(as_text(about, found, options.markdown))
    missed = [result.what for result in found if result.verdict == "NO"]
    for line in [f"missed: {what}" for what in missed] + [f"failed: {name}" for name in failed]:
        print(line, file=sys.stderr)
    sys.exit(1 if missed or failed else 0)


def choose(names: Sequence[str], cuda: str | None) -> list[Script]:
    """Scripts of these names, all without one; the build once more on CUDA."""
    if unknown := sorted({*names} - {script.name for script in SCRIPTS}):
        sys.exit(f"no benchmark is named {unknown[0]!r}. Choose from: {', '.join(one.name for one in SCRIPTS)}.")
    chosen = [script for script in SCRIPTS if not names or script.name in names]
    on_cuda = [replace(one, options=ON_CUDA, device="cuda") for one in chosen if one.name == "build"]
    return [*chosen[:1], *on_cuda, *chosen[1:]] if cuda and on_cuda else chosen


def run(script: Script, quick: bool, peers_python: str) -> tuple[list[Result], bool]:
    """What a script found, and whether it ended well. Its own output goes to standard error."""
    python = peers_python if script.name == "peers" else sys.executable
    command = [python, str(HERE / script.file), *script.options, *(script.quick if quick else ()), "--json"]
    print(f"\n== {script.file} {' '.join(command[2:])}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    try:
        results = read_json(done.stdout)
        lines = lines[:-1]
    except ValueError:
        results = [Result(f"{script.file} {' '.join(script.options)}".strip(), None, note="failed")]
    print("\n".join(lines), f"\n{time.monotonic() - started:.0f} s", sep="", file=sys.stderr, flush=True)
    where = f"{script.device}: " if script.device != "cpu" else ""
    named = [replace(result, what=where + result.what) for result in results]
    return named, done.returncode == 0 and named[0].note != "failed"


def as_text(about: str, results: Sequence[Result], is_markdown: bool) -> str:
    """The figures that have a bar, then those that have none."""
    judged = [result for result in results if result.bar is not None]
    others = [result for result in results if result.bar is None]
    parts = [table(judged, is_padded=not is_markdown)] if judged else []
    if others:
        parts += ["Beside them, without a bar:", table(others, is_padded=not is_markdown, has_bars=False)]
    return "\n\n".join([f"Measured on {about}", *parts])


def machine(peers_python: str) -> str:
    """Processor, device and versions, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor()} ({os.cpu_count()} cores, {memory:.0f} GiB), {cuda_name() or 'no GPU'}, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}, "
        f"{', '.join([*versions(sys.executable, VERSIONS), *versions(peers_python, PEERS)])}"
    )


def processor() -> str:
    """Model of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def cuda_name() -> str | None:
    """Name of the first CUDA device."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def versions(python: str, packages: Sequence[str]) -> list[str]:
    """Versions of packages where another interpreter looks for them."""
    code = """if True:
        import sys
        from importlib.metadata import PackageNotFoundError, version
        for name in sys.argv[1:]:
            try:
                print(name, version(name))
            except PackageNotFoundError:
                print(name, "not installed")"""
    return subprocess.run(
        [python, "-c", code, *packages], capture_output=True, text=True, check=True
    ).stdout.splitlines()


if __name__ == "__main__":
    main()
