"""The subcommands of ``embedcache prepare``. Each one translates its options and calls one public function."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedcache.options import expand_options
from embedcache.prepare.options import (
    DnaLengthOption,
    EncoderOption,
    FastaOptions,
    GeneticCodeOption,
    GenomeOptions,
    OutputOption,
    SplitSeedOption,
    TestOption,
    ValidationOption,
    read_encoders,
    read_genetic_codes,
    read_shares,
    split_rule,
)

__all__ = ["app"]

app = typer.Typer(help="Make a dataset of transcripts, sequences, targets and splits.", no_args_is_help=True)


@app.command()
@expand_options
def genome(given: GenomeOptions) -> None:
    """From a genome, its annotation and, if there is any, expression."""
    from embedcache.prepare.genome import prepare_genome

    dataset = prepare_genome(
        genome=given.genome,
        gtf=given.gtf,
        output=given.output,
        expression=given.expression,
        samples=given.samples,
        tissue_column=given.tissue_column,
        tissues=given.tissue or (),
        already_log=given.already_log,
        target_unit=given.target_unit,
        id_column=given.id_column,
        drop_columns=given.drop_column or (),
        strip_versions=given.strip_versions,
        dna_length=given.dna_length,
        genetic_codes=read_genetic_codes(given.genetic_code),
        only_measured=given.only_measured,
        missing_contigs=given.missing_contigs,
        splits=given.splits(),
        encoders=read_encoders(given.encoder),
    )
    print(dataset.summary())


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

    dataset = prepare_isoformer(
        table=table,
        genome=genome,
        output=output,
        values=values,
        tissues=tissue,
        dna_length=dna_length,
        genetic_codes=read_genetic_codes(genetic_code),
        encoders=read_encoders(encoder),
    )
    print(dataset.summary())


@app.command()
@expand_options
def fasta(given: FastaOptions) -> None:
    """From FASTA files, any subset of modalities, joined by ID."""
    from embedcache.prepare.fasta import prepare_fasta

    dataset = prepare_fasta(
        dna=given.dna,
        rna=given.rna,
        protein=given.protein,
        targets=given.targets,
        genes=given.genes,
        output=given.output,
        id_column=given.id_column,
        gene_column=given.gene_column,
        drop_columns=given.drop_column or (),
        already_log=given.already_log,
        target_unit=given.target_unit,
        strip_versions=given.strip_versions,
        only_measured=given.only_measured,
        splits=given.splits(),
        encoders=read_encoders(given.encoder),
    )
    print(dataset.summary())


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
    """A simulated study whose truth is known.

    That is what share of the variance each modality can explain.
    """
    from embedcache.prepare.simulate import prepare_simulate

    dataset = prepare_simulate(
        output=output,
        n_genes=n_genes,
        isoforms_per_gene=isoforms_per_gene,
        noncoding_share=noncoding_share,
        n_tissues=n_tissues,
        dna_length=dna_length,
        seed=seed,
        shares=read_shares(share),
        splits=split_rule(validation_fraction, test_fraction, split_seed),
        encoders=read_encoders(encoder) or None,
    )
    print(dataset.summary())
