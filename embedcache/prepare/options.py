"""Options of ``embedcache prepare``, and from their words to plain objects. Imports nothing slow."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedcache.errors import InvalidSettingError
from embedcache.options import parse_by_modality, parse_pairs

if TYPE_CHECKING:
    from embedcache.sequences import Modality
    from embedcache.splits import SplitRule

__all__ = [
    "DnaLengthOption",
    "EncoderOption",
    "FastaOptions",
    "GeneticCodeOption",
    "GenomeOptions",
    "OutputOption",
    "SplitSeedOption",
    "TestOption",
    "ValidationOption",
    "read_encoders",
    "read_genetic_codes",
    "read_shares",
    "split_rule",
]

OutputOption = Annotated[Path, typer.Option(envvar="EMBEDCACHE_DATASET", help="Directory to make.")]
DnaLengthOption = Annotated[int, typer.Option(min=1, help="Window centred on the TSS, in bp.")]
EncoderOption = Annotated[
    list[str] | None, typer.Option(metavar="MODALITY=NAME", help="Default encoder, such as rna=nt-v2-250m.")
]
AlreadyLogOption = Annotated[bool, typer.Option(help="Values are on a log scale: take them as they are.")]
TargetUnitOption = Annotated[str | None, typer.Option(help="Unit of values with --already-log, for the record.")]
IdColumnOption = Annotated[str | None, typer.Option(help="Column of transcript IDs in a table. Default: the first.")]
DropColumnOption = Annotated[list[str] | None, typer.Option(help="Column of a table that is no tissue.")]
StripVersionsOption = Annotated[
    bool, typer.Option(help="Join IDs that differ in their version only (ENST1.4, ENST1.5).")
]
GeneticCodeOption = Annotated[
    list[str] | None, typer.Option(metavar="CONTIG=TABLE", help="NCBI translation table, such as Mito=3.")
]
OnlyMeasuredOption = Annotated[bool, typer.Option(help="Leave out transcripts without expression.")]
ValidationOption = Annotated[float, typer.Option(min=0, max=1, help="Share of genes for validation.")]
TestOption = Annotated[float, typer.Option(min=0, max=1, help="Share of genes for the test.")]
SplitSeedOption = Annotated[int, typer.Option(help="Seed of the split by shares.")]
ChromosomesOption = Annotated[
    str, typer.Option(metavar="A,B", help="Chromosomes of this split, in place of shares of genes.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenomeOptions:
    """Options of ``prepare genome``."""

    genome: Annotated[Path, typer.Option(help="Genome FASTA, plain or gzip-compressed.", show_default=False)]
    gtf: Annotated[Path, typer.Option(help="Annotation: GENCODE, Ensembl or RefSeq GTF.", show_default=False)]
    output: OutputOption = Path("dataset")
    expression: Annotated[
        Path | None, typer.Option(help="GTEx GCT of TPM (with --samples), or a TSV, CSV or Parquet table.")
    ] = None
    samples: Annotated[Path | None, typer.Option(help="GTEx sample attributes of the GCT.")] = None
    tissue_column: Annotated[str, typer.Option(help="Column of --samples that names the tissue.")] = "SMTSD"
    tissue: Annotated[list[str] | None, typer.Option(help="Tissue to keep. Default: all.")] = None
    already_log: AlreadyLogOption = False
    target_unit: TargetUnitOption = None
    id_column: IdColumnOption = None
    drop_column: DropColumnOption = None
    strip_versions: StripVersionsOption = False
    dna_length: DnaLengthOption = 12_288
    genetic_code: GeneticCodeOption = None
    only_measured: OnlyMeasuredOption = False
    missing_contigs: Annotated[
        Literal["error", "leave-out"], typer.Option(help="What to do with contigs that the genome lacks.")
    ] = "error"
    validation_fraction: ValidationOption = 0.1
    test_fraction: TestOption = 0.1
    split_seed: SplitSeedOption = 0
    validation_chromosomes: ChromosomesOption = ""
    test_chromosomes: ChromosomesOption = ""
    encoder: EncoderOption = None

    def splits(self) -> "SplitRule":
        """How genes are split: by chromosomes if any are named, else by shares."""
        from embedcache.splits import SplitRule

        validation, test = (
            tuple(name.strip() for name in names.split(",") if name.strip())
            for names in (self.validation_chromosomes, self.test_chromosomes)
        )
        if validation or test:
            return SplitRule(kind="chromosomes", validation_chromosomes=validation, test_chromosomes=test)
        return split_rule(self.validation_fraction, self.test_fraction, self.split_seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastaOptions:
    """Options of ``prepare fasta``."""

    dna: Annotated[Path | None, typer.Option(help="FASTA of DNA windows.")] = None
    rna: Annotated[Path | None, typer.Option(help="FASTA of RNA, with T or U.")] = None
    protein: Annotated[Path | None, typer.Option(help="FASTA of proteins.")] = None
    targets: Annotated[
        Path | None, typer.Option(help="Table of transcripts by tissues: TSV, CSV, Parquet; empty is not measured.")
    ] = None
    genes: Annotated[Path | None, typer.Option(help="Table of transcript and gene, in its first two columns.")] = None
    output: OutputOption = Path("dataset")
    id_column: IdColumnOption = None
    gene_column: Annotated[str | None, typer.Option(help="Column of gene IDs in the targets.")] = None
    drop_column: DropColumnOption = None
    already_log: AlreadyLogOption = False
    target_unit: TargetUnitOption = None
    strip_versions: StripVersionsOption = False
    only_measured: OnlyMeasuredOption = False
    validation_fraction: ValidationOption = 0.1
    test_fraction: TestOption = 0.1
    split_seed: SplitSeedOption = 0
    split_column: Annotated[
        str | None, typer.Option(help="Column of --genes that names the split, in place of shares of genes.")
    ] = None
    encoder: EncoderOption = None

    def splits(self) -> "SplitRule":
        """How genes are split: as a column says if one is named, else by shares."""
        from embedcache.splits import SplitRule

        if self.split_column is not None:
            return SplitRule(kind="column", column=self.split_column)
        return split_rule(self.validation_fraction, self.test_fraction, self.split_seed)


def split_rule(validation_fraction: float, test_fraction: float, seed: int) -> "SplitRule":
    """Split by shares of genes."""
    from embedcache.splits import SplitRule

    return SplitRule(validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)


def read_encoders(values: list[str] | None) -> "dict[Modality, str]":
    """Default encoder of a modality."""
    return parse_by_modality("--encoder", values or [])


def read_genetic_codes(values: list[str] | None) -> dict[str, int]:
    """NCBI table of a contig.

    Raises:
        InvalidSettingError: Not a number on the right.
    """
    pairs = parse_pairs("--genetic-code", values or [])
    if wrong := [value for value in pairs.values() if not value.isdecimal()]:
        raise InvalidSettingError(f"--genetic-code takes the number of an NCBI table, not {wrong[0]!r}. Write Mito=3.")
    return {contig: int(table) for contig, table in pairs.items()}


def read_shares(values: list[str] | None) -> "dict[Modality, float] | None":
    """Share of variance of every modality; None if no value is given.

    Raises:
        InvalidSettingError: Not a number on the right.
    """
    from embedcache.prepare.simulate import SHARES

    try:
        chosen = {name: float(share) for name, share in parse_by_modality("--share", values or []).items()}
    except ValueError as error:
        raise InvalidSettingError(f"--share takes a number after the sign ({error}). Write --share rna=0.3.") from None
    return {**SHARES, **chosen} if chosen else None
