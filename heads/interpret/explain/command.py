"""``heads explain``: what the model reads in a sequence, and what a change of it does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcache.options import DeviceOption, parse_by_modality
from embedcache.sequences import check_modality
from heads.train_options import RunOption

if TYPE_CHECKING:
    pass

__all__ = ["app"]

app = typer.Typer(
    help="What a model reads in a sequence. What a change of it does; encoders run live.", no_args_is_help=True
)

TranscriptOption = Annotated[str, typer.Option(help="ID of a transcript in the dataset.", show_default=False)]
TissueOption = Annotated[list[str] | None, typer.Option(help="Tissue to show. Default: all, and their mean.")]
OutputOption = Annotated[Path, typer.Option(help="Directory for the Parquet file and the page.")]
DatasetOption = Annotated[Path | None, typer.Option(help="Any dataset. Default: that of the run.")]
WeightsOption = Annotated[
    list[str] | None, typer.Option(metavar="MODALITY=DIR", help="Directory with the published weights of an encoder.")
]


@app.command()
def mutagenesis(
    transcript: TranscriptOption,
    run: RunOption = Path("runs/run"),
    tissue: TissueOption = None,
    modality: Annotated[str, typer.Option(help="Whose letters change: dna, rna or protein.")] = "rna",
    region: Annotated[
        str | None,
        typer.Option(metavar="START:END", help="Positions, 0-based, end left out. Default: a stretch near the start."),
    ] = None,
    carry: Annotated[bool, typer.Option(help="Carry coding changes of the RNA to the protein.")] = False,
    output: OutputOption = Path("explain"),
    dataset: DatasetOption = None,
    device: DeviceOption = "auto",
    weights: WeightsOption = None,
) -> None:
    """Predict every single-letter mutant of a stretch. 3 a base, 19 a residue."""
    chosen = check_modality(modality)
    found = parse_by_modality("--weights", weights or [])
    from heads.interpret.explain.mutagenesis import mutagenesis

    print(
        mutagenesis(
            run,
            transcript,
            chosen,
            output,
            tissues=tissue or [],
            region=region,
            carry=carry,
            dataset=dataset,
            device=device,
            weights={m: Path(path) for m, path in found.items()},
        )
    )


@app.command()
def gradients(
    transcript: TranscriptOption,
    run: RunOption = Path("runs/run"),
    tissue: TissueOption = None,
    modality: Annotated[str | None, typer.Option(help="Show one: dna, rna or protein. Default: all.")] = None,
    output: OutputOption = Path("explain"),
    dataset: DatasetOption = None,
    device: DeviceOption = "auto",
    weights: WeightsOption = None,
) -> None:
    """Score every token by gradient x embedding.

    That is what it adds to the prediction, to first order.
    """
    chosen = None if modality is None else check_modality(modality)
    found = parse_by_modality("--weights", weights or [])
    from heads.interpret.explain.gradients import gradients

    print(
        gradients(
            run,
            transcript,
            output,
            tissues=tissue or [],
            modality=chosen,
            dataset=dataset,
            device=device,
            weights={m: Path(path) for m, path in found.items()},
        )
    )


@app.command()
def variant(
    genome: Annotated[Path, typer.Option(help="Genome FASTA that the dataset was made from.", show_default=False)],
    gtf: Annotated[Path, typer.Option(help="Annotation that it was made from.", show_default=False)],
    variants: Annotated[
        Path | None, typer.Option(help="VCF, or a table with columns chrom, pos, ref, alt; plain or gzip.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(metavar="CHROM:POS:REF:ALT", help="One variant, 1-based, forward strand.")
    ] = None,
    run: RunOption = Path("runs/run"),
    tissue: TissueOption = None,
    output: OutputOption = Path("explain"),
    dataset: DatasetOption = None,
    device: DeviceOption = "auto",
    weights: WeightsOption = None,
) -> None:
    """Predict transcripts with and without a variant.

    It is carried through splicing to RNA and protein.
    """
    found = parse_by_modality("--weights", weights or [])
    from heads.interpret.explain.variant_effects import variant_effects

    print(
        variant_effects(
            run,
            genome,
            gtf,
            output,
            variants=variants,
            variant=variant or [],
            tissues=tissue or [],
            dataset=dataset,
            device=device,
            weights={m: Path(path) for m, path in found.items()},
        )
    )
