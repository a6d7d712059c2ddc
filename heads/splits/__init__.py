"""Rows by split, and the promise that what is alike is never on both sides.

Reading order: ``assign`` (units into parts, parts into splits), ``genes`` and ``units`` (what stays together),
``related`` (genes whose sequences are alike), ``kmers`` and ``shared`` (how alike they are), ``tools`` (the same by
another program), ``neighbours`` and ``describe`` (what ``heads splits`` reports).
"""

from heads.splits.assign import SplitError, check_splits, fold_of_rows, rows_by_split, split_by_gene
from heads.splits.units import split_units, unit_of_rows

__all__ = [
    "SplitError",
    "check_splits",
    "fold_of_rows",
    "rows_by_split",
    "split_by_gene",
    "split_units",
    "unit_of_rows",
]
