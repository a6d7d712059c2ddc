"""Groups of similar proteins without all pairs: python benchmarks/bench_splits.py [--proteins 200000] [--json].

Families of four proteins, two of which have 60 % to 65 % of their letters in common, beside proteins without kin.
Prints seconds and peak memory
of the built-in comparison, how many true pairs it joins and how many false ones.
"""

import argparse
import resource
import time

import numpy as np
from report import Result, add_json_option, report

from heads.splits.genes import join
from heads.splits.kmers import KMER_LENGTH, count_kmers
from heads.splits.shared import gene_profiles, sequence_profiles, similar_pairs

RESIDUES = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)


def make_proteins(n: int, length: int) -> tuple[list[tuple[bytes, str]], np.ndarray]:
    """Key and sequence of each, and its family; every second one is alone in its family."""
    draw = np.random.default_rng(0)
    family = np.concatenate([np.arange(n // 2) // 4, n + np.arange(n - n // 2)])
    records = []
    for i in range(n):
        if i >= n // 2 or i % 4 == 0:
            first = draw.choice(RESIDUES, length)
        letters = np.where(draw.random(length) < 0.2, draw.choice(RESIDUES, length), first)
        records.append((i.to_bytes(16), letters.tobytes().decode()))
    return records, family


def joined_pairs(groups: np.ndarray) -> int:
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1])
    return int((sizes * (sizes - 1) // 2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=200_000)
    parser.add_argument("--length", type=int, default=400, help="residues of each")
    add_json_option(parser)
    options = parser.parse_args()
    n = options.proteins
    records, family = make_proteins(n, options.length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    kmers, genes = count_kmers(records, "protein"), np.arange(n)
    profiles = sequence_profiles(kmers, genes), gene_profiles(kmers, genes, genes, n)
    pairs = list(similar_pairs(*profiles, KMER_LENGTH["protein"], 0.5))
    groups = join(n, np.concatenate([pair.sequence for pair in pairs]), np.concatenate([pair.gene for pair in pairs]))
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    right = joined_pairs(family.astype(np.int64) * n + groups)
    note = f"{n:,} proteins of {options.length} residues, one k-mer in {kmers.every}"
    report(
        [
            Result("groups of similar proteins, s", seconds, better="lower", note=note),
            Result("groups of similar proteins, peak memory beyond the sequences, MiB", grown, better="lower"),
            Result("true pairs in one group, share", right / joined_pairs(family)),
            Result("false pairs in one group", float(joined_pairs(groups) - right), better="lower"),
            Result("largest group, proteins", float(np.bincount(groups).max()), better="lower"),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
