"""Speed and memory of reading a GTEx-like GCT file of drawn values.

Measured are MB/s of uncompressed text for a plain and a gzip-compressed file, both over a bare split-and-float loop on
the plain file, and how much peak memory grows for a MB more of text when the number of rows doubles.

    python benchmarks/bench_gct.py [--rows 1000] [--samples 17000] [--json]
"""

import argparse
import gzip
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import Result, add_json_option, report

from embedcache.expression import read_gct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--samples", type=int, default=17_000, help="as many as GTEx v8 has, or nearly")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)  # given to the processes whose memory is measured
    add_json_option(parser)
    options = parser.parse_args()
    if options.peak is not None:
        read_gct(options.peak, options.peak.parent / "samples.tsv")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        return
    with tempfile.TemporaryDirectory() as folder:
        report(measure(Path(folder), options.rows, options.samples), options.json)


def measure(folder: Path, n_rows: int, n_samples: int) -> list[Result]:
    path = write_gct(folder, n_rows, n_samples)
    half = write_gct(folder, n_rows // 2, n_samples)
    packed = folder / "packed.gct.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 5))
    size_mb = path.stat().st_size / 1e6
    plain = seconds(lambda: read_gct(path, folder / "samples.tsv"))
    zipped = seconds(lambda: read_gct(packed, folder / "samples.tsv"))
    loop = seconds(lambda: floats(path))
    grown = peak_mb(path) - peak_mb(half)
    note = f"{n_rows:,} rows of {n_samples:,} samples, {size_mb:.0f} MB"
    return [
        Result("GCT, MB/s of text, plain", round(size_mb / plain, 1), note=note),
        Result("GCT, MB/s of text, gzip", round(size_mb / zipped, 1)),
        Result("GCT, time of a bare loop over ours, plain", loop / plain),
        Result("GCT, time of a bare loop on plain text over ours on gzip", loop / zipped),
        Result("GCT, MB of peak memory for a MB more of text", round(grown / (size_mb / 2), 3), better="lower"),
    ]


def write_gct(folder: Path, n_rows: int, n_samples: int) -> Path:
    draw = np.random.default_rng(0)
    names = [f"GTEX-{i:05d}" for i in range(n_samples)]
    lines = [f"{name}\tTissue {i % 54}\n" for i, name in enumerate(names)]
    (folder / "samples.tsv").write_text("SAMPID\tSMTSD\n" + "".join(lines))
    path = folder / f"{n_rows}.gct"
    with path.open("w") as file:
        file.write(f"#1.2\n{n_rows}\t{n_samples}\ntranscript_id\tgene_id\t" + "\t".join(names) + "\n")
        for i in range(n_rows):
            values = np.where(draw.random(n_samples) < 0.5, 0, draw.gamma(0.5, 5, n_samples))
            file.write(f"ENST{i:011d}.1\tENSG\t" + "\t".join(f"{value:.4g}" for value in values) + "\n")
    return path


def floats(path: Path) -> None:
    with path.open() as file:
        for _ in range(3):
            next(file)
        for line in file:
            np.array([float(field) for field in line.split("\t")[2:]])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_mb(path: Path) -> float:
    """Peak memory of a fresh process that reads the file."""
    done = subprocess.run([sys.executable, __file__, "--peak", str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
