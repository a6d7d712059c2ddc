"""Clusters of similar sequences by an installed program: MMseqs2 or CD-HIT."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import InvalidSettingError, MissingDependencyError
from embedcache.sequences import Modality
from embedcache.splits import SplitError

__all__ = ["cluster_by_tool"]

Ints = NDArray[np.int64]
Tool = Literal["mmseqs", "cd-hit"]

_PROGRAMS: dict[tuple[Tool, Modality], str] = {
    ("mmseqs", "protein"): "mmseqs",
    ("mmseqs", "rna"): "mmseqs",
    ("cd-hit", "protein"): "cd-hit",
    ("cd-hit", "rna"): "cd-hit-est",
}
_WORDS = ((0.7, 5), (0.6, 4), (0.5, 3), (0.4, 2))
"""Word length of cd-hit by the least identity that it can find, from its manual."""


def cluster_by_tool(
    records: Iterable[tuple[bytes, str]], modality: Modality, *, tool: Tool, similarity: float
) -> tuple[dict[bytes, int], Ints]:
    """Cluster sequences with a program that the user has installed.

    Args:
        records: Key and sequence, each distinct sequence once.
        modality: ``rna`` or ``protein``.
        tool: Which program.
        similarity: Least identity to the representative of a cluster, over at least half of the shorter sequence.

    Returns:
        Number of each sequence by its key, and for each sequence the number of the representative of its cluster.

    Raises:
        MissingDependencyError: The program is not installed.
        InvalidSettingError: CD-HIT does not go down to this similarity.
        SplitError: The program failed, or left sequences out.
    """
    program = _PROGRAMS[tool, modality]
    if (found := shutil.which(program)) is None:
        raise MissingDependencyError(
            f"{program} is not on the PATH. Install {'MMseqs2' if tool == 'mmseqs' else 'CD-HIT'}, or leave out --tool."
        )
    numbers = dict[bytes, int]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.fasta").open("w") as file:
            for key, sequence in records:
                file.write(f">s{len(numbers)}\n{sequence}\n")
                numbers[key] = len(numbers)
        arguments = _mmseqs(modality, similarity) if tool == "mmseqs" else _cd_hit(modality, similarity)
        _run([found, *arguments], folder)
        read = _read_mmseqs if tool == "mmseqs" else _read_cd_hit
        representative = np.full(len(numbers), -1, dtype=np.int64)
        for first, member in read(folder):
            representative[int(member[1:])] = int(first[1:])
    # CD-HIT leaves out sequences that are shorter than a word or so: nothing is like them.
    alone = representative < 0
    representative[alone] = np.flatnonzero(alone)
    return numbers, representative


def _mmseqs(modality: Modality, similarity: float) -> list[str]:
    kind = "2" if modality == "rna" else "1"
    # Mode 1: the cluster is a connected component, so that no similar pair is cut apart.
    return [
        *("easy-cluster", "in.fasta", "out", "tmp", "--dbtype", kind, "--min-seq-id", f"{similarity}"),
        *("-c", "0.5", "--cov-mode", "5", "--cluster-mode", "1", "--threads", "1", "-v", "1"),
    ]


def _cd_hit(modality: Modality, similarity: float) -> list[str]:
    least = 0.8 if modality == "rna" else 0.4
    if similarity < least:
        raise InvalidSettingError(
            f"similarity is {similarity}, but CD-HIT finds {modality} from {least} on. Raise it, or take another tool."
        )
    word = (
        8
        if modality == "rna" and similarity >= 0.9
        else 5
        if modality == "rna"
        else next(word for limit, word in _WORDS if similarity >= limit)
    )
    return ["-i", "in.fasta", "-o", "out", "-c", f"{similarity}", "-n", f"{word}", "-aS", "0.5", "-d", "0", "-M", "0"]


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise SplitError(
            f"{Path(command[0]).name} ended with code {done.returncode}: {' '.join(said) or 'it said nothing'}. "
            "Mend its installation, or leave out --tool."
        )


def _read_mmseqs(folder: Path) -> Iterable[tuple[str, str]]:
    """Representative and member, one pair a line."""
    for line in _lines(folder / "out_cluster.tsv"):
        first, _, member = line.partition("\t")
        yield first, member


def _read_cd_hit(folder: Path) -> Iterable[tuple[str, str]]:
    """Lines such as ``0  120aa, >s3... at 91.2%`` below a line ``>Cluster 0``."""
    first = ""
    for line in _lines(folder / "out.clstr"):
        if line.startswith(">"):
            first = ""
            continue
        member = line.partition(">")[2].partition("...")[0]
        first = first or member
        yield first, member


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise SplitError(f"{path.name} was not written by the program for clusters. Try another version of it.")
    return path.read_text().splitlines()
