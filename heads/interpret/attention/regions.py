"""Regions of a sequence, and the share of each of its tokens that lies in each region.

Of an RNA 5'UTR, CDS and 3'UTR; of a protein or a DNA window the thirds of what is embedded. Tokens that an encoder
adds are a region of their own. Shapes: T tokens, R regions, the last of them the special tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError
from embedcache.sequences import Modality
from embedcache.transcripts import translate
from heads.interpret.explain.subject import genetic_code

__all__ = [
    "SPECIAL",
    "Case",
    "choose_rows",
    "find_cases",
    "has_regions",
    "region_bounds",
    "region_names",
    "region_shares",
    "sequences_of_rows",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

SPECIAL = "special"
"""Tokens that cover no letter, such as ``<cls>``: trained encoders park much attention there."""
_OF_RNA = ("5'UTR", "CDS", "3'UTR")
_THIRDS = ("first third", "middle third", "last third")  # the TSS lies in the middle of a window


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One transcript as far as one modality goes."""

    row: int
    """Of the dataset."""
    gene_id: str
    sequence: str
    cds: tuple[int, int] | None
    """Letters of the RNA, with the stop codon where there is one."""


def region_names(modality: Modality) -> tuple[str, ...]:
    """Regions of a sequence from its start to its end, and the special tokens."""
    return (*(_OF_RNA if modality == "rna" else _THIRDS), SPECIAL)


def region_bounds(modality: Modality, sequence: str, cds: tuple[int, int] | None, spans: Integers) -> list[float]:
    """Where regions begin and end: R places on the sequence, region i from place i to place i + 1; none of the last.

    Regions of an RNA cover all of it, whatever was cropped.

    Args:
        modality: Of the sequence.
        sequence: All of it.
        cds: Needed for an RNA.
        spans: Letters that its tokens cover, (T, 2); thirds are those of these letters.
    """
    if modality != "rna":
        return [float(x) for x in np.linspace(spans.min(), spans.max(), len(_THIRDS) + 1)]
    assert cds is not None, "an RNA without a CDS has no regions"
    return [0.0, float(cds[0]), float(cds[1]), float(len(sequence))]


def region_shares(spans: Integers, bounds: list[float]) -> Floats:
    """Share of the letters of each token in each region, (T, R): a 6-mer across a border belongs to both.

    Args:
        spans: Letters [start, stop) of each token, (T, 2); special tokens cover none.
        bounds: R places, see ``region_bounds``.
    """
    low, high = np.asarray(bounds[:-1]), np.asarray(bounds[1:])
    starts, stops = spans[:, :1], spans[:, 1:]
    overlap = np.clip(np.minimum(stops, high) - np.maximum(starts, low), 0, None)  # (T, R - 1)
    is_special = starts == stops  # (T, 1)
    shares = overlap / np.where(is_special, 1, stops - starts)
    return np.concatenate([shares, is_special], axis=1).astype(np.float32)


def has_regions(dataset: Dataset, modality: Modality) -> NDArray[np.bool_]:
    """Rows with a sequence of the modality, and for an RNA with a CDS, (rows,)."""
    present = dataset.samples[f"{modality}_key"].notna()
    if modality == "rna":
        present &= dataset.samples[["cds_start", "cds_end"]].notna().all(axis=1)
    return np.asarray(present, dtype=np.bool_)


def choose_rows(dataset: Dataset, rows: Integers, most: int) -> Integers:
    """At most so many rows, 0 for all, ascending; the IDs of transcripts decide which, not their order."""
    if not most or len(rows) <= most:
        return rows
    ids = dataset.samples["transcript_id"].tolist()
    drawn = sorted(rows.tolist(), key=lambda row: blake2b(ids[row].encode(), digest_size=8).digest())
    return np.asarray(sorted(drawn[:most]), dtype=np.int64)


def find_cases(dataset: Dataset, modality: Modality, rows: Iterable[int]) -> list[Case]:
    """The sequences of rows that have regions, in the order given.

    Raises:
        InvalidInputError: A CDS does not lie within its RNA.
    """
    rows = list(rows)
    keys, genes = dataset.keys(modality), dataset.samples["gene_id"].tolist()
    sequences = sequences_of_rows(dataset, modality, rows)
    cases = []
    for row in rows:
        key = keys[row]
        assert key is not None
        cds = _cds(dataset, row, sequences[key]) if modality == "rna" else None
        cases.append(Case(row=row, gene_id=genes[row], sequence=sequences[key], cds=cds))
    return cases


def sequences_of_rows(dataset: Dataset, modality: Modality, rows: Iterable[int]) -> dict[bytes, str]:
    """Sequences of rows by key."""
    keys = dataset.keys(modality)
    wanted = {keys[row] for row in rows}
    return {key: sequence for key, sequence in dataset.sequences(modality) if key in wanted}


def _cds(dataset: Dataset, row: int, rna: str) -> tuple[int, int]:
    """Where the CDS is; the codon behind it belongs to it where the genetic code of the transcript stops there."""
    found, size = dataset.samples.iloc[row], len(rna)
    start, stop = int(found["cds_start"]), int(found["cds_end"])
    if not 0 <= start < stop <= size:
        raise InvalidInputError(
            f"{dataset.path}: the CDS of {found['transcript_id']} is {start} to {stop}, its RNA has {size} letters. "
            "Mend the table or the annotation, and prepare the dataset again."
        )
    is_stop = translate(rna[stop : stop + 3], genetic_code(dataset, row)) == "*"
    return start, stop + 3 if is_stop else stop
