"""The subcommands of ``embedcache``. Each one translates its options and calls one public function."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from embedcache.encoders.spec import ComputeDtype, StoreDtype
from embedcache.encoders.tokens import Crop
from embedcache.exchange.commands import export_command, import_command
from embedcache.options import CacheOption, DatasetOption, DeviceOption, JsonOption
from embedcache.prepare.commands import app as prepare_app
from embedcache.sequences import Modality

__all__ = ["app"]

app = typer.Typer(
    help="Run pretrained encoders once over every distinct sequence and keep their token embeddings in Zarr.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(prepare_app, name="prepare")

ModalityOption = Annotated[Modality, typer.Option(help="Which sequences of the dataset.", show_default=False)]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        help="Encoder, see `embedcache encoders`. Default: the dataset's, else the paper's (enformer, nt-v2-250m, "
        "esm2-150m)."
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Directory with the published weights. Default: the Hugging Face cache.")
]
RandomInitOption = Annotated[
    int | None, typer.Option(metavar="SEED", help="Draw the weights with this seed instead of reading them.")
]
DtypeOption = Annotated[ComputeDtype, typer.Option(help="Precision of the computation.")]
StoreDtypeOption = Annotated[StoreDtype, typer.Option(help="Precision on disk.")]
CropOption = Annotated[
    Crop | None, typer.Option(help="Part kept of input over the limit; error refuses it. Default: the encoder's.")
]
MaxTokensOption = Annotated[int | None, typer.Option(min=0, help="Token limit. Default: the encoder's; 0 for none.")]
LayerOption = Annotated[int, typer.Option(help="Output of which block: 1 is the first, -1 the last.")]


@app.command()
def build(
    modality: ModalityOption,
    encoder: EncoderOption = None,
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    weights: WeightsOption = None,
    random_init: RandomInitOption = None,
    dtype: DtypeOption = "float32",
    store_dtype: StoreDtypeOption = "float16",
    crop: CropOption = None,
    max_tokens: MaxTokensOption = None,
    layer: LayerOption = -1,
    device: DeviceOption = "auto",
    engine: Annotated[Literal["local"], typer.Option(help="Where the work runs: local is this process.")] = "local",
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of one call of the encoder. Default: 2,048 on a CPU, 32,768 on a GPU."),
    ] = None,
) -> None:
    """Embed what the cache lacks of one modality. Run it again after an interruption: it goes on."""
    from embedcache.encoders.registry import EncoderOptions
    from embedcache.modality import build_modality

    report = build_modality(
        dataset=dataset,
        cache=cache,
        modality=modality,
        encoder=encoder,
        options=EncoderOptions(
            weights=weights,
            random_init=random_init,
            dtype=dtype,
            store_dtype=store_dtype,
            crop=crop,
            max_tokens=max_tokens,
            layer=layer,
        ),
        device=device,
        tokens_per_batch=tokens_per_batch,
    )
    print(report)


@app.command()
def estimate(
    modality: ModalityOption,
    encoder: EncoderOption = None,
    dataset: DatasetOption = Path("dataset"),
    dtype: DtypeOption = "float32",
    store_dtype: StoreDtypeOption = "float16",
    crop: CropOption = None,
    max_tokens: MaxTokensOption = None,
    device: DeviceOption = "auto",
    trial_seconds: Annotated[float, typer.Option(min=0, help="Length of the time trial; 0 for none.")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Tell tokens, bytes on disk and time of a build, before anything is spent. Needs no weights."""
    from embedcache.encoders.registry import EncoderOptions
    from embedcache.estimate import estimate_modality

    found = estimate_modality(
        dataset=dataset,
        modality=modality,
        encoder=encoder,
        options=EncoderOptions(dtype=dtype, store_dtype=store_dtype, crop=crop, max_tokens=max_tokens),
        device=device,
        trial_seconds=trial_seconds,
    )
    print(json.dumps(found.to_json(), indent=1) if as_json else found)


@app.command()
def info(cache: CacheOption = "cache", as_json: JsonOption = False) -> None:
    """List the stores of a cache."""
    from embedcache.info import describe_cache, format_cache

    stores = describe_cache(cache)
    print(json.dumps([store.to_json() for store in stores], indent=1) if as_json else format_cache(stores))


@app.command()
def encoders(
    modality: Annotated[Modality | None, typer.Option(help="Only those that read it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the encoders that can be used, with width, limit, licence and where their weights are."""
    from embedcache.encoders.listing import format_cards, list_cards

    cards = list_cards(modality)
    print(json.dumps(cards, indent=1) if as_json else format_cards(cards))


@app.command()
def verify(
    cache: CacheOption = "cache",
    dataset: Annotated[
        Path | None, typer.Option(help="Also look whether every sequence of this dataset is there.")
    ] = None,
    repair: Annotated[
        bool, typer.Option(help="Withdraw damaged commits, so that the next build computes them. Not during a build.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of a cache and compare its checksum; exit code 1 if any is wrong."""
    from embedcache.care import verify_cache

    report = verify_cache(cache, dataset=dataset, repair=repair)
    print(json.dumps(report.to_json(), indent=1) if as_json else report)
    report.raise_if_damaged()


@app.command()
def gc(
    cache: CacheOption = "cache",
    older_than_hours: Annotated[
        float, typer.Option(min=0, help="Spare younger files: a build may be about to commit them.")
    ] = 12.0,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed builds left behind: orphan shards and temporary files."""
    from embedcache.care import collect_cache

    found = collect_cache(cache, older_than_hours)
    print(json.dumps([one.to_json() for one in found], indent=1) if as_json else "\n".join(map(str, found)))


app.command("export")(export_command)
app.command("import")(import_command)
