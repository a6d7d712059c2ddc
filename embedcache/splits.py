"""Which split each gene belongs to. Isoforms of one gene share sequence, so a gene is never cut apart."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from embedcache.errors import EmbedCacheError, InvalidSettingError

__all__ = ["SPLITS", "SplitError", "SplitName", "SplitRule", "check_splits", "split_name"]

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

_OTHER_NAMES: dict[str, SplitName] = {
    "training": "train",
    "validation": "validation",
    "evaluation": "validation",
    "eval": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "testing": "test",
}


class SplitError(EmbedCacheError):
    """The rows of one gene are in two splits, or a split cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """How genes are given to train, validation and test.

    A rule sees genes only, so all transcripts of a gene go together. The same genes and seed give the
    same splits, in whatever order the input comes.
    """

    kind: Literal["fractions", "chromosomes", "column"] = "fractions"
    """``fractions`` of the genes at random, whole ``chromosomes``, or a ``column`` of the input."""
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0
    validation_chromosomes: tuple[str, ...] = ()
    test_chromosomes: tuple[str, ...] = ()
    column: str = "split"

    def __post_init__(self) -> None:
        fractions = (self.validation_fraction, self.test_fraction)
        if min(fractions) < 0 or sum(fractions) >= 1:
            raise InvalidSettingError(
                f"Split fractions are {fractions[0]} (validation) and {fractions[1]} (test). "
                "Give values from 0 on whose sum is below 1; the rest is for training."
            )
        both = sorted(set(self.validation_chromosomes) & set(self.test_chromosomes))
        if both:
            raise InvalidSettingError(f"Chromosomes {', '.join(both)} are in validation and test. Name each once.")
        if self.kind == "chromosomes" and not (self.validation_chromosomes or self.test_chromosomes):
            raise InvalidSettingError("A split by chromosomes names none. Give validation or test chromosomes.")

    def options(self) -> dict[str, Any]:
        """The fields that matter for this kind of rule, for ``dataset.json``."""
        wanted = {
            "fractions": ("validation_fraction", "test_fraction", "seed"),
            "chromosomes": ("validation_chromosomes", "test_chromosomes"),
            "column": ("column",),
        }[self.kind]
        fields = asdict(self)
        values = {name: list(fields[name]) if isinstance(fields[name], tuple) else fields[name] for name in wanted}
        return {"kind": self.kind, **values}

    def assign(
        self,
        gene_ids: Sequence[str],
        *,
        chromosomes: Sequence[str | None] | None = None,
        column_values: Sequence[str | None] | None = None,
    ) -> list[SplitName]:
        """Split of each row.

        Args:
            gene_ids: Gene of each row; never missing.
            chromosomes: Contig of each row, for a rule by chromosomes.
            column_values: Value of ``column`` in each row, for a rule by column.

        Raises:
            SplitError: A gene would be in two splits, or the input lacks what the rule needs.
        """
        if self.kind == "fractions":
            splits = self._by_fractions(gene_ids)
        elif self.kind == "chromosomes":
            splits = self._by_chromosomes(chromosomes)
        else:
            splits = self._by_column(column_values)
        check_splits(gene_ids, splits)
        return splits

    def _by_fractions(self, gene_ids: Sequence[str]) -> list[SplitName]:
        genes = sorted(set(gene_ids))
        random.Random(self.seed).shuffle(genes)
        n_validation, n_test = (
            round(self.validation_fraction * len(genes)),
            round(self.test_fraction * len(genes)),
        )
        of_gene: dict[str, SplitName] = dict.fromkeys(genes, "train")
        of_gene.update(dict.fromkeys(genes[:n_validation], "validation"))
        of_gene.update(dict.fromkeys(genes[n_validation : n_validation + n_test], "test"))
        return [of_gene[gene] for gene in gene_ids]

    def _by_chromosomes(self, chromosomes: Sequence[str | None] | None) -> list[SplitName]:
        if chromosomes is None:
            raise SplitError("This input has no chromosomes. Split it by fractions, or by a column.")
        known = set(chromosomes)
        missing = [name for name in (*self.validation_chromosomes, *self.test_chromosomes) if name not in known]
        if missing:
            some = ", ".join(sorted(str(name) for name in known if name is not None)[:30])
            raise SplitError(f"No transcript is on chromosome {missing[0]!r}. Choose from: {some}.")
        of_chromosome: dict[str | None, SplitName] = dict.fromkeys(self.validation_chromosomes, "validation")
        of_chromosome.update(dict.fromkeys(self.test_chromosomes, "test"))
        return [of_chromosome.get(chromosome, "train") for chromosome in chromosomes]

    def _by_column(self, values: Sequence[str | None] | None) -> list[SplitName]:
        if values is None:
            raise SplitError(f"This input has no column {self.column!r}. Split it by fractions or chromosomes.")
        names = {value: split_name(value) for value in set(values)}
        return [names[value] for value in values]


def split_name(value: str | None, where: str = "") -> SplitName:
    """The split that a value such as ``train``, ``Evaluation`` or ``dev`` names; ``where`` it stands, for messages."""
    word = str(value).strip().lower()
    for name in SPLITS:
        if word == name:
            return name
    if word in _OTHER_NAMES:
        return _OTHER_NAMES[word]
    raise SplitError(f"{where}{value!r} names no split. Write train, validation or test (evaluation is validation).")


def check_splits(gene_ids: Sequence[str], splits: Sequence[str]) -> None:
    """Refuse rows of one gene in two splits, rows without a gene, and unknown split names.

    Raises:
        SplitError: Names the first offending gene and its splits.
    """
    of_gene: dict[str, str] = {}
    for gene, split in zip(gene_ids, splits, strict=True):
        if not isinstance(gene, str) or not gene:
            raise SplitError("A row has no gene ID. Give every transcript its gene; the ID of a lone one will do.")
        if split not in SPLITS:
            raise SplitError(f"Gene {gene!r} has split {split!r}. Splits are train, validation and test.")
        if of_gene.setdefault(gene, split) != split:
            raise SplitError(
                f"Gene {gene!r} is in two splits, {of_gene[gene]} and {split}. "
                "Its isoforms share sequence: put them all in one split."
            )
