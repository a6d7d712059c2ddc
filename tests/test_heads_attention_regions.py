"""Where the CDS of an RNA ends, by the genetic code of its transcript."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedcache.dataset import Dataset
from embedcache.dataset_write import write_dataset
from embedcache.errors import InvalidInputError
from embedcache.sequences import sequence_key
from heads.interpret.attention.regions import find_cases, region_bounds


def one_rna(path: Path, rna: str, cds: tuple[int, int], code: int | None) -> Dataset:
    row = {"transcript_id": "a", "gene_id": "g", "split": "train", "rna_key": sequence_key(rna, "rna")}
    samples = pd.DataFrame([row]).assign(cds_start=cds[0], cds_end=cds[1])
    if code is not None:
        samples["genetic_code"] = code
    sequences = [("rna", sequence_key(rna, "rna"), rna)]
    return write_dataset(path, info={}, samples=samples, targets=None, sequences=sequences)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("behind", "code", "belongs"),
    [
        ("TAA", 1, True),
        ("TGA", 1, True),
        ("TGA", 2, False),  # tryptophan in mitochondria of vertebrates
        ("AGA", 1, False),
        ("AGA", 2, True),
        ("TAA", 6, False),  # glutamine in ciliates
        ("TAA", None, True),  # no code is the standard one
        ("TNA", 1, False),
        ("TA", 1, False),
        ("", 1, False),
    ],
)
def test_the_stop_codon_belongs_to_the_cds(tmp_path: Path, behind: str, code: int | None, belongs: bool) -> None:
    rna = "CCATGAAA" + behind
    (case,) = find_cases(one_rna(tmp_path / "d", rna, (2, 8), code), "rna", [0])
    assert case.cds == (2, 11 if belongs else 8)
    spans = np.array([[0, len(rna)]])
    assert region_bounds("rna", rna, case.cds, spans) == [0.0, 2.0, 11.0 if belongs else 8.0, float(len(rna))]


def test_a_cds_outside_its_rna_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the CDS of a is 2 to 12, its RNA has 8 letters"):
        find_cases(one_rna(tmp_path / "d", "CCATGAAA", (2, 12), 1), "rna", [0])
