"""The subcommand ``heads attention``. Imports nothing slow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from embedcache.errors import InvalidSettingError
from embedcache.options import DeviceOption, expand_options
from heads.train_options import RunOption

__all__ = ["attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionOptions:
    """Options of ``heads attention``."""

    run: RunOption = Path("runs/run")
    encoder: Annotated[str | None, typer.Option(help="Look at this encoder alone, without a run; needs --dataset.")] = (
        None
    )
    modality: Annotated[
        Literal["dna", "rna", "protein", "none"], typer.Option(help="Whose encoder; none for cross-attention alone.")
    ] = "rna"
    dataset: Annotated[
        Path | None, typer.Option(help="Where the dataset of the run is, if it was moved; or that of --encoder.")
    ] = None
    cache: Annotated[str | None, typer.Option(help="Where the cache of the run is, if it was moved.")] = None
    cross: Annotated[bool, typer.Option(help="Also look at the cross-attention of the run; needs its cache.")] = True
    split: Annotated[Literal["train", "validation", "test", "all"], typer.Option(help="Transcripts to look at.")] = (
        "test"
    )
    transcripts: Annotated[int, typer.Option(min=0, help="Most transcripts to look at, 0 for all.")] = 200
    threshold: Annotated[
        float | None,
        typer.Option(help="Count attention weights above it (0.01, say) in place of adding weights up."),
    ] = None
    weights: Annotated[Path | None, typer.Option(help="Directory with the published weights of the encoder.")] = None
    download: Annotated[bool, typer.Option("--download", help="Fetch weights that are missing from the hub.")] = False
    output: Annotated[Path, typer.Option(help="Name to write under: .parquet, .html, .json.")] = Path("attention")
    device: DeviceOption = "auto"


@expand_options
def attention(given: AttentionOptions) -> None:
    """Attention of each head and layer on 5'UTR, CDS and 3'UTR.

    Against their share of tokens, with heat maps.
    """
    encoder, dataset, modality = given.encoder, given.dataset, None if given.modality == "none" else given.modality
    if encoder is not None and (dataset is None or modality is None):
        missing = "--dataset" if dataset is None else "--modality dna, rna or protein"
        raise InvalidSettingError(f"--encoder {encoder} needs {missing}. Give both, or leave out --encoder for a run.")
    from heads.interpret.attention.analysis import AttentionSettings, analyse_encoder, analyse_run
    from heads.interpret.attention.write import check_outputs, write_attention

    settings = AttentionSettings(split=given.split, transcripts=given.transcripts, threshold=given.threshold)
    check_outputs(given.output)
    loading: dict[str, Any] = {"device": given.device, "weights": given.weights, "download": given.download}
    if encoder is not None and dataset is not None and modality is not None:
        found = analyse_encoder(encoder, modality, dataset, settings, **loading)
    else:
        found = analyse_run(
            given.run, settings, modality=modality, cross=given.cross, dataset=dataset, cache=given.cache, **loading
        )
    print(write_attention(found, given.output))
