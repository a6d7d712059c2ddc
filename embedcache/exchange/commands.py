"""``embedcache export`` and ``embedcache import``. Each translates its options and calls one public function."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from embedcache.choices import ComputeDtype, Crop, ExportDtype, FormatName, Names
from embedcache.errors import InvalidSettingError
from embedcache.options import (
    CacheOption,
    DatasetOption,
    JsonOption,
    expand_options,
    parse_by_modality,
    show,
)
from embedcache.sequences import Modality, check_modality

__all__ = ["export_command", "import_command"]

FormatOption = Annotated[
    FormatName,
    typer.Option(
        help="biotrainer: one HDF5 file. bio-embeddings: its directory of two HDF5 files and a CSV. esm-pt: fair-esm's "
        "directory of .pt files. h5ad: AnnData, pooled. parquet: a table.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCommandOptions:
    """Options of ``export``."""

    format: FormatOption
    modality: Annotated[
        list[str],
        typer.Option(
            metavar="dna|rna|protein", help="Which sequences; h5ad takes several: dna,rna.", show_default=False
        ),
    ]
    output: Annotated[Path, typer.Option(help="File or directory to make. It must not exist.", show_default=False)]
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Encoder or store, see `embedcache info`; rna=NAME for one of several modalities."
        ),
    ] = None
    dataset: DatasetOption = Path("dataset")
    cache: CacheOption = "cache"
    pooled: Annotated[
        bool, typer.Option("--pooled", help="One vector a sequence, the mean of its tokens, and no tokens.")
    ] = False
    names: Annotated[
        Names | None,
        typer.Option(
            help="HDF5: name a data set by a hash of the sequence, equal ones once, or by ID. Default: sequence."
        ),
    ] = None
    dtype: Annotated[
        ExportDtype | None,
        typer.Option(help="Number format. Default: float32; tokens in Parquet as the store keeps them."),
    ] = None


@expand_options
def export_command(given: ExportCommandOptions, as_json: JsonOption = False) -> None:
    """Write the embeddings of a dataset in the format of another tool."""
    from embedcache.exchange.export import export_embeddings

    modalities = [check_modality(name.strip()) for name in ",".join(given.modality).split(",")]
    report = export_embeddings(
        format=given.format,
        modalities=modalities,
        output=given.output,
        dataset=given.dataset,
        cache=given.cache,
        encoders=_encoders(modalities, given.encoder or []),
        pooled=given.pooled,
        names=given.names,
        dtype=given.dtype,
    )
    show(report, as_json)


def _encoders(modalities: Sequence[Modality], values: Sequence[str]) -> dict[Modality, str]:
    """Encoder of each modality; one modality alone needs no ``rna=``."""
    if len(modalities) == 1 and len(values) == 1 and "=" not in values[0]:
        return {modalities[0]: values[0]}
    found = parse_by_modality("--encoder", values)
    if unasked := [name for name in found if name not in modalities]:
        raise InvalidSettingError(f"--encoder {unasked[0]}=... is given without --modality {unasked[0]}. Add it.")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCommandOptions:
    """Options of ``import``."""

    format: FormatOption
    modality: Annotated[Modality, typer.Option(help="Of the sequences.", show_default=False)]
    encoder: Annotated[
        str,
        typer.Option(
            help="Encoder that made them, taken on your word: see `embedcache encoders`. Another name with --tokens.",
            show_default=False,
        ),
    ]
    input: Annotated[Path, typer.Option(help="File or directory to read.", show_default=False)]
    dataset: DatasetOption = Path("dataset")
    fasta: Annotated[
        Path | None, typer.Option(help="Sequences the embeddings were made from, in place of the dataset.")
    ] = None
    cache: CacheOption = "cache"
    pooled: Annotated[bool, typer.Option("--pooled", help="Take the means where the input holds tokens, too.")] = False
    source: Annotated[
        str,
        typer.Option(
            metavar="WORDS", help="Where they come from, such as program and version. Other words: another store."
        ),
    ] = ""
    layer: Annotated[int | None, typer.Option(help="Layer: 1 is the first, -1 the last. Default: the last.")] = None
    dtype: Annotated[ComputeDtype | None, typer.Option(help="Precision they were computed in. Default: float32.")] = (
        None
    )
    crop: Annotated[Crop | None, typer.Option(help="Part that was kept of longer input. Default: the encoder's.")] = (
        None
    )
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Limit it was cut to; 0 for none.")] = None
    tokens: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Tokens of an encoder that is not listed: letter, nt-6mer, codon, bins-N."),
    ] = None
    store_dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None, typer.Option(help="Precision on disk. Default: the input's.")
    ] = None


@expand_options
def import_command(given: ImportCommandOptions, as_json: JsonOption = False) -> None:
    """Make a store of embeddings that another tool computed. They are checked against their sequences."""
    from embedcache.exchange.claim import Claim
    from embedcache.exchange.importing import import_embeddings

    claim = Claim(**{field.name: getattr(given, field.name) for field in fields(Claim)})
    report = import_embeddings(
        format=given.format,
        modality=given.modality,
        claim=claim,
        input=given.input,
        cache=given.cache,
        dataset=given.dataset,
        fasta=given.fasta,
        pooled=given.pooled,
    )
    show(report, as_json)
