"""Speed and memory of reading a GTEx-like GCT file: python benchmarks/bench_gct.py [rows] [samples].

Prints MB/s of uncompressed text for a plain and a gzip-compressed file, the same for a bare split-and-float loop
over the plain file, and the growth of peak memory when the number of rows doubles.
"""

import gzip
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embedcache.expression import read_gct


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


def main(n_rows: int = 1_000, n_samples: int = 17_000) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_gct(folder, n_rows, n_samples)
        half = write_gct(folder, n_rows // 2, n_samples)
        packed = folder / "packed.gct.gz"
        packed.write_bytes(gzip.compress(path.read_bytes(), 5))
        size_mb = path.stat().st_size / 1e6
        plain = seconds(lambda: read_gct(path, folder / "samples.tsv"))
        zipped = seconds(lambda: read_gct(packed, folder / "samples.tsv"))
        loop = seconds(lambda: floats(path))
        print(f"{n_rows} rows x {n_samples} samples, {size_mb:.0f} MB")
        print(
            f"plain {size_mb / plain:.0f} MB/s, gzip {size_mb / zipped:.0f} MB/s, bare loop {size_mb / loop:.0f} MB/s"
        )
        print(f"ratio to the bare loop: plain {loop / plain:.1f}, gzip {loop / zipped:.1f}")
        grown = peak_mb(path) - peak_mb(half)
        print(f"peak memory grew by {grown:.1f} MB for {size_mb / 2:.0f} MB more of text")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        read_gct(Path(sys.argv[2]), Path(sys.argv[2]).parent / "samples.tsv")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    else:
        main(*map(int, sys.argv[1:]))
