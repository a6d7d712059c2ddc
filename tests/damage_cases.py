"""All kinds of damaged input, each with the case that makes one and reads it."""

from collections.abc import Callable
from functools import partial

from damage import Case, Outcome
from damage_datasets import dataset_case
from damage_prepare import fasta_table_case, isoformer_case, prepare_case
from damage_sequences import fasta_case, genome_case, gtf_case
from damage_store_files import PATTERNS
from damage_stores import store_case
from damage_tables import gct_case, table_case

CASES: dict[str, Callable[[Case], Outcome]] = {
    "FASTA": fasta_case,
    "genome FASTA": genome_case,
    "GTF": gtf_case,
    "GCT and sample attributes": gct_case,
    "table of targets": table_case,
    "prepare genome": prepare_case,
    "prepare fasta": fasta_table_case,
    "prepare isoformer": isoformer_case,
    "dataset": dataset_case,
    **{f"store: {kind}": partial(store_case, kind) for kind in PATTERNS},
}
