"""A dataset with stores of random embeddings, and what the benchmarks of training share. Not a benchmark itself."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from random_store import SHARD_BYTES, random_spec

from embedcache.dataset_write import write_dataset
from embedcache.encoders.spec import EncoderSpec
from embedcache.place import Place
from embedcache.sequences import Modality, sequence_key
from embedcache.store import commit_task, create_store, store_path, write_index
from heads.splits import split_by_gene

N_TISSUES = 30
LOG_SD, LONGEST = 0.7, 2048
LETTERS: dict[Modality, str] = {"dna": "ACGT", "rna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Mean tokens of a sequence of one modality, and numbers a token."""

    tokens: int
    width: int


@dataclass(frozen=True, slots=True)
class Study:
    """Where a dataset and its cache are."""

    dataset: Path
    cache: Path

    def arguments(self) -> list[str]:
        """Options of ``heads train`` and ``heads sweep``."""
        return ["--dataset", str(self.dataset), "--cache", str(self.cache), "--device", "cpu"]


def make_study(
    path: Path, n_transcripts: int, shapes: Mapping[Modality, Shape], seed: int = 0, log_sd: float = LOG_SD
) -> Study:
    """Genes with two isoforms each; targets of which the embeddings hold a part, so that training has something to do.

    Lengths are log-normal, by default with a log sd as those of human proteins (mean over median 1.3), and all the
    same with 0; stores are float16.
    """
    rng = np.random.default_rng(seed)
    samples = pd.DataFrame(
        {
            "transcript_id": [f"T{i}" for i in range(n_transcripts)],
            "gene_id": [f"G{i // 2}" for i in range(n_transcripts)],
            "biotype": "protein_coding",
        }
    )
    samples["split"] = split_by_gene(samples["gene_id"].tolist(), validation_fraction=0.15, test_fraction=0.15)
    signal = rng.standard_normal((n_transcripts, 8))
    sequences = []
    for modality, shape in shapes.items():
        letters = np.array(list(LETTERS[modality]))
        drawn_lengths = rng.lognormal(np.log(shape.tokens) - log_sd**2 / 2, log_sd, n_transcripts)
        lengths = drawn_lengths.clip(4, LONGEST).astype(int)
        drawn = ["".join(rng.choice(letters, length)) for length in lengths]
        keys = [sequence_key(one, modality) for one in drawn]
        samples[f"{modality}_key"] = keys
        sequences += [(modality, key, one) for key, one in zip(keys, drawn, strict=True)]
        spec = replace(random_spec(shape.width), modality=modality)
        _write_store(store_path(path / "cache", spec), spec, keys, lengths.tolist(), signal)
    noise = rng.standard_normal((n_transcripts, N_TISSUES))
    targets = 2 + signal @ rng.standard_normal((8, N_TISSUES)) / 8**0.5 + noise
    table = pd.DataFrame(targets, columns=[f"tissue {k}" for k in range(N_TISSUES)])
    info = {"labels": ["random"], "target_unit": "log1p_tpm", "encoders": dict.fromkeys(shapes, "random")}
    write_dataset(path / "dataset", info=info, samples=samples, targets=table, sequences=sequences)
    return Study(path / "dataset", path / "cache")


def _write_store(
    root: Place, spec: EncoderSpec, keys: Sequence[bytes], lengths: Sequence[int], signal: np.ndarray
) -> None:
    """Random rows, the first of whose columns carry the signal of their transcript."""
    create_store(root, spec)
    block = np.random.default_rng(1).standard_normal((max(*lengths) + 4096, spec.width)).astype(np.float16)
    task: list[tuple[bytes, np.ndarray]] = []
    size_bytes = 0
    for i, (key, length) in enumerate(zip(keys, lengths, strict=True)):
        start = 37 * i % 4096
        rows = block[start : start + length].copy()
        rows[:, : signal.shape[1]] += signal[i].astype(np.float16)
        if size_bytes + rows.nbytes > SHARD_BYTES - 256 * 2 * spec.width:
            commit_task(root, task)
            task, size_bytes = [], 0
        task.append((key, rows))
        size_bytes += rows.nbytes
    commit_task(root, task)
    write_index(root)


def size_megabytes(cache: Path) -> float:
    """Of all files."""
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e6


def heads_command(*arguments: str | Path) -> list[str]:
    """The command ``heads``, run by this interpreter."""
    return [sys.executable, "-c", "from cli import heads; heads()", *map(str, arguments)]


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of a command."""

    wall: float
    cpu: float
    """Of its processes, which other work on the machine disturbs less."""
    output: str


def timed(command: Sequence[str]) -> Taken:
    """What a command takes with one thread, from start to end.

    Raises:
        RuntimeError: It failed; with the end of what it printed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Taken(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout)
