"""Which rows a run trains on, chooses its epoch by, and is scored on."""

import hashlib
import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.splits import SPLITS, SplitError, SplitName, SplitRule, check_splits
from heads.split_config import SplitConfig
from heads.splits.units import split_units, units_word

__all__ = [
    "SplitError",
    "check_splits",
    "cut_into_parts",
    "draw_validation",
    "fold_of_rows",
    "rows_by_split",
    "split_by_gene",
    "unit_names",
]

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_GIVEN = SplitConfig()


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


def rows_by_split(dataset: Dataset, config: SplitConfig = _GIVEN) -> dict[SplitName, Rows]:
    """Row numbers of each split, ascending; no gene, and no unit of the split, is in two of them.

    With ``inner_folds`` the test part of ``fold`` is in none of the three: its rows are kept for the end.

    Args:
        dataset: Rows, and sequences where the unit is ``similarity``.
        config: How to divide them; as the dataset says without it.

    Raises:
        SplitError: A gene is in two given splits, there are fewer units than parts, a chromosome or a value of the
            column is missing, or a split would be empty.
        UnknownNameError: The dataset has no such column.
    """
    if config.unit == "given":
        return _given(dataset)
    units = split_units(dataset, config)
    names, sizes = unit_names(dataset, units), np.bincount(units)
    is_test, is_rest = _tested(names, sizes, config)
    salt = " ".join(map(str, (config.seed, config.fold, *([config.inner_fold] if config.inner_folds else []))))
    is_validation = draw_validation(names, sizes, np.flatnonzero(is_rest), config.validation_fraction, salt)
    chosen = {"train": is_rest & ~is_validation, "validation": is_validation, "test": is_test}
    for name, found in chosen.items():
        if not found.any():
            raise SplitError(
                f"{dataset.path}: {len(names)} {units_word(config)} in {config.folds} folds leave nothing for {name}. "
                "Take fewer folds, or a smaller unit."
            )
    return {name: np.flatnonzero(chosen[name][units]).astype(np.int64) for name in SPLITS}


def fold_of_rows(dataset: Dataset, config: SplitConfig) -> Rows:
    """The fold in whose test part each row is, (N,); 0 to ``folds`` - 1. Not for the unit ``given``."""
    assert config.unit != "given"
    units = split_units(dataset, config)
    sizes = np.bincount(units)
    found = cut_into_parts(
        unit_names(dataset, units), sizes, config.folds, salt=f"{config.seed}", what=units_word(config)
    )
    of_rows: Rows = found[units]
    return of_rows


def cut_into_parts(names: Sequence[str], sizes: Rows, n_parts: int, *, salt: str, what: str = "units") -> Rows:
    """Cut units into parts of nearly equal size; names and salt decide, never the order.

    The largest units go first, each into the part that is smallest so far.

    Args:
        names: A name for each unit, all different.
        sizes: Transcripts of each unit, (U,).
        n_parts: Parts to make; none will be empty.
        salt: Another one gives another draw.
        what: What the units are, for the message.

    Returns:
        Number of the part of each unit, (U,).

    Raises:
        SplitError: Fewer units than parts.
    """
    if len(names) < n_parts:
        raise SplitError(
            f"{len(names)} {what} cannot be cut into {n_parts} folds. Take at most {len(names)} folds, "
            "or a smaller unit."
        )
    drawn = {name: _draw(salt, name) for name in names}
    order = sorted(range(len(names)), key=lambda unit: (-int(sizes[unit]), drawn[names[unit]]))
    # Ties between parts are drawn too, or the largest unit would be in part 0 for every seed.
    parts = [(0, _draw(salt, f"part {part}"), part) for part in range(n_parts)]
    heapq.heapify(parts)
    found = np.zeros(len(names), dtype=np.int64)
    for unit in order:
        total, tie, part = heapq.heappop(parts)
        found[unit] = part
        heapq.heappush(parts, (total + int(sizes[unit]), tie, part))
    return found


def _tested(names: Sequence[str], sizes: Rows, config: SplitConfig) -> tuple[Mask, Mask]:
    """Units to test on, and units to train and validate on, both (U,); with inner folds some are neither."""
    what = units_word(config)
    part = cut_into_parts(names, sizes, config.folds, salt=f"{config.seed}", what=what)
    is_rest = part != config.fold
    if not config.inner_folds:
        return ~is_rest, is_rest
    rest = np.flatnonzero(is_rest)
    salt = f"{config.seed} {config.fold} inner"
    left = [names[unit] for unit in rest.tolist()]
    inner = cut_into_parts(left, sizes[rest], config.inner_folds, salt=salt, what=f"remaining {what}")
    is_test = np.zeros(len(names), dtype=bool)
    is_test[rest[inner == config.inner_fold]] = True
    return is_test, is_rest & ~is_test


def _given(dataset: Dataset) -> dict[SplitName, Rows]:
    splits = dataset.samples["split"].tolist()
    check_splits(dataset.samples["gene_id"].tolist(), splits)
    found = np.asarray(splits, dtype=object)
    return {name: np.flatnonzero(found == name).astype(np.int64) for name in SPLITS}


def unit_names(dataset: Dataset, units: Rows) -> list[str]:
    """The first gene ID of each unit in alphabetical order: a name that does not depend on the order of rows."""
    found = dict[int, str]()
    for unit, gene in zip(units.tolist(), dataset.samples["gene_id"].tolist(), strict=True):
        found[unit] = min(gene, found.get(unit, gene))
    return [found[unit] for unit in range(len(found))]


def draw_validation(names: Sequence[str], sizes: Rows, rest: Rows, fraction: float, salt: str) -> Mask:
    """Units for validation, (U,): in drawn order whatever still fits into the share, and one at least."""
    order = sorted(rest.tolist(), key=lambda unit: _draw(f"{salt} validation", names[unit]))
    room = fraction * float(sizes[rest].sum())
    chosen = np.zeros(len(names), dtype=bool)
    for unit in order:
        if sizes[unit] <= room:
            chosen[unit] = True
            room -= float(sizes[unit])
    if not chosen.any() and len(order) > 1:
        chosen[min(order, key=lambda unit: int(sizes[unit]))] = True
    return chosen


def _draw(salt: str, name: str) -> bytes:
    """A number drawn for a name: the same with every version of every library, and for every set of other names."""
    return hashlib.blake2b(f"{salt}\0{name}".encode(), digest_size=8).digest()
