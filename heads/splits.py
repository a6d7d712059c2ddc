"""Rows by split, and the promise that all isoforms of a gene are in one of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.splits import SPLITS, SplitError, SplitName, SplitRule, check_splits

__all__ = ["SplitError", "check_splits", "rows_by_split", "split_by_gene"]


def split_by_gene(
    gene_ids: Sequence[str], *, validation_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> list[SplitName]:
    """Draw a split for every row so that the rows of a gene stay together.

    Args:
        gene_ids: Gene of each row.
        validation_fraction: Share of the genes, not of the rows.
        test_fraction: Share of the genes.
        seed: The same genes and seed give the same split, whatever the order of rows.

    Returns:
        ``train``, ``validation`` or ``test`` for every row.
    """
    rule = SplitRule(validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    return rule.assign(gene_ids)


def rows_by_split(dataset: Dataset) -> dict[SplitName, NDArray[np.int64]]:
    """Row numbers of each split, ascending.

    Raises:
        SplitError: A gene is in two splits.
    """
    splits = dataset.samples["split"].tolist()
    check_splits(dataset.samples["gene_id"].tolist(), splits)
    found = np.asarray(splits, dtype=object)
    return {name: np.flatnonzero(found == name).astype(np.int64) for name in SPLITS}
