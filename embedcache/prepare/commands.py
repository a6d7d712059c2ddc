"""The subcommands of ``embedcache prepare``. Each one translates its options and calls one public function."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedcache.errors import InvalidSettingError
from embedcache.options import parse_by_modality, parse_pairs

if TYPE_CHECKING:
    from embedcache.dataset import Dataset
    from embedcache.sequences import Modality
    from embedcache.splits import SplitRule

__all__ = ["app"]

app = typer.Typer(
    help="Make a dataset: transcripts, their sequences, their targets, their splits.", no_args_is_help=True
)

OutputOption = Annotated[Path, typer.Option(envvar="EMBEDCACHE_DATASET", help="Directory to make.")]
GenomeOption = Annotated[Path, typer.Option(help="Genome FASTA, plain or gzip-compressed.", show_default=False)]
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


@app.command()
def genome(
    genome: GenomeOption,
    gtf: Annotated[Path, typer.Option(help="Annotation: GENCODE, Ensembl or RefSeq GTF.", show_default=False)],
    output: OutputOption = Path("dataset"),
    expression: Annotated[
        Path | None, typer.Option(help="GTEx GCT of TPM (with --samples), or a TSV, CSV or Parquet table.")
    ] = None,
    samples: Annotated[Path | None, typer.Option(help="GTEx sample attributes of the GCT.")] = None,
    tissue_column: Annotated[str, typer.Option(help="Column of --samples that names the tissue.")] = "SMTSD",
    tissue: Annotated[list[str] | None, typer.Option(help="Tissue to keep. Default: all.")] = None,
    already_log: AlreadyLogOption = False,
    target_unit: TargetUnitOption = None,
    id_column: IdColumnOption = None,
    drop_column: DropColumnOption = None,
    strip_versions: StripVersionsOption = False,
    dna_length: DnaLengthOption = 12_288,
    genetic_code: GeneticCodeOption = None,
    only_measured: OnlyMeasuredOption = False,
    missing_contigs: Annotated[
        Literal["error", "leave-out"], typer.Option(help="What to do with contigs that the genome lacks.")
    ] = "error",
    validation_fraction: ValidationOption = 0.1,
    test_fraction: TestOption = 0.1,
    split_seed: SplitSeedOption = 0,
    validation_chromosomes: ChromosomesOption = "",
    test_chromosomes: ChromosomesOption = "",
    encoder: EncoderOption = None,
) -> None:
    """From a genome, its annotation and, if there is any, expression."""
    from embedcache.prepare.genome import prepare_genome

    _show(
        prepare_genome(
            genome=genome,
            gtf=gtf,
            output=output,
            expression=expression,
            samples=samples,
            tissue_column=tissue_column,
            tissues=tissue or (),
            already_log=already_log,
            target_unit=target_unit,
            id_column=id_column,
            drop_columns=drop_column or (),
            strip_versions=strip_versions,
            dna_length=dna_length,
            genetic_codes=_genetic_codes(genetic_code or []),
            only_measured=only_measured,
            missing_contigs=missing_contigs,
            splits=_split_rule(
                validation_fraction, test_fraction, split_seed, validation_chromosomes, test_chromosomes
            ),
            encoders=parse_by_modality("--encoder", encoder or []),
        )
    )


@app.command()
def isoformer(
    table: Annotated[Path, typer.Option(help="GTEx_final.csv, plain or gzip-compressed.", show_default=False)],
    genome: Annotated[Path | None, typer.Option(help="FASTA of hg38; without it there is no DNA.")] = None,
    output: OutputOption = Path("dataset"),
    values: Annotated[
        Literal["z-score", "log1p", "tpm"],
        typer.Option(help="What the table holds; revision un-standardized-values is not z-scored."),
    ] = "z-score",
    tissue: Annotated[list[str] | None, typer.Option(help="Column of a target. Default: the 30 of GTEx.")] = None,
    dna_length: DnaLengthOption = 12_288,
    genetic_code: GeneticCodeOption = None,
    encoder: EncoderOption = None,
) -> None:
    """From the published table of IsoFormer, with its own split."""
    from embedcache.prepare.isoformer import prepare_isoformer

    _show(
        prepare_isoformer(
            table=table,
            genome=genome,
            output=output,
            values=values,
            tissues=tissue,
            dna_length=dna_length,
            genetic_codes=_genetic_codes(genetic_code or []),
            encoders=parse_by_modality("--encoder", encoder or []),
        )
    )


@app.command()
def fasta(
    dna: Annotated[Path | None, typer.Option(help="FASTA of DNA windows.")] = None,
    rna: Annotated[Path | None, typer.Option(help="FASTA of RNA, with T or U.")] = None,
    protein: Annotated[Path | None, typer.Option(help="FASTA of proteins.")] = None,
    targets: Annotated[
        Path | None, typer.Option(help="Table of transcripts by tissues: TSV, CSV, Parquet; empty is not measured.")
    ] = None,
    genes: Annotated[Path | None, typer.Option(help="Table of transcript and gene, in its first two columns.")] = None,
    output: OutputOption = Path("dataset"),
    id_column: IdColumnOption = None,
    gene_column: Annotated[str | None, typer.Option(help="Column of gene IDs in the targets.")] = None,
    drop_column: DropColumnOption = None,
    already_log: AlreadyLogOption = False,
    target_unit: TargetUnitOption = None,
    strip_versions: StripVersionsOption = False,
    only_measured: OnlyMeasuredOption = False,
    validation_fraction: ValidationOption = 0.1,
    test_fraction: TestOption = 0.1,
    split_seed: SplitSeedOption = 0,
    split_column: Annotated[
        str | None, typer.Option(help="Column of --genes that names the split, in place of shares of genes.")
    ] = None,
    encoder: EncoderOption = None,
) -> None:
    """From FASTA files, any subset of modalities, joined by ID."""
    from embedcache.prepare.fasta import prepare_fasta

    _show(
        prepare_fasta(
            dna=dna,
            rna=rna,
            protein=protein,
            targets=targets,
            genes=genes,
            output=output,
            id_column=id_column,
            gene_column=gene_column,
            drop_columns=drop_column or (),
            already_log=already_log,
            target_unit=target_unit,
            strip_versions=strip_versions,
            only_measured=only_measured,
            splits=_split_rule(validation_fraction, test_fraction, split_seed, column=split_column),
            encoders=parse_by_modality("--encoder", encoder or []),
        )
    )


@app.command()
def simulate(
    output: OutputOption = Path("dataset"),
    n_genes: Annotated[int, typer.Option(min=10, help="Number of genes.")] = 300,
    isoforms_per_gene: Annotated[int, typer.Option(min=1, max=4, help="Isoforms of each gene.")] = 3,
    noncoding_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of genes without protein, below 1.")
    ] = 0.15,
    n_tissues: Annotated[int, typer.Option(min=1, help="Number of tissues.")] = 6,
    dna_length: DnaLengthOption = 1_536,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same study.")] = 0,
    share: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=SHARE",
            help="Share of variance that a modality adds, 0.9 in sum. Defaults: dna=0.25 rna=0.35 protein=0.1.",
        ),
    ] = None,
    validation_fraction: ValidationOption = 0.15,
    test_fraction: TestOption = 0.15,
    split_seed: SplitSeedOption = 0,
    encoder: EncoderOption = None,
) -> None:
    """A simulated study whose truth is known: what share of the variance each modality can explain."""
    from embedcache.prepare.simulate import prepare_simulate

    _show(
        prepare_simulate(
            output=output,
            n_genes=n_genes,
            isoforms_per_gene=isoforms_per_gene,
            noncoding_share=noncoding_share,
            n_tissues=n_tissues,
            dna_length=dna_length,
            seed=seed,
            shares=_shares(share or []),
            splits=_split_rule(validation_fraction, test_fraction, split_seed),
            encoders=parse_by_modality("--encoder", encoder or []) or None,
        )
    )


def _shares(values: list[str]) -> "dict[Modality, float] | None":
    from embedcache.prepare.simulate import SHARES

    try:
        chosen = {name: float(share) for name, share in parse_by_modality("--share", values).items()}
        return {**SHARES, **chosen} if chosen else None
    except ValueError as error:
        raise InvalidSettingError(f"--share takes a number after the sign ({error}). Write --share rna=0.3.") from None


def _genetic_codes(values: list[str]) -> dict[str, int]:
    pairs = parse_pairs("--genetic-code", values)
    if wrong := [value for value in pairs.values() if not value.isdecimal()]:
        raise InvalidSettingError(f"--genetic-code takes the number of an NCBI table, not {wrong[0]!r}. Write Mito=3.")
    return {contig: int(table) for contig, table in pairs.items()}


def _split_rule(
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    validation_chromosomes: str = "",
    test_chromosomes: str = "",
    column: str | None = None,
) -> "SplitRule":
    from embedcache.splits import SplitRule

    validation, test = (
        tuple(name.strip() for name in names.split(",") if name.strip())
        for names in (validation_chromosomes, test_chromosomes)
    )
    if column is not None:
        return SplitRule(kind="column", column=column)
    if validation or test:
        return SplitRule(kind="chromosomes", validation_chromosomes=validation, test_chromosomes=test)
    return SplitRule(validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)


def _show(dataset: "Dataset") -> None:
    print(dataset.summary())
