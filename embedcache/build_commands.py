"""The subcommands that embed: ``build``, ``worker`` and ``estimate``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from embedcache.encoders.spec import ComputeDtype, StoreDtype
from embedcache.encoders.tokens import Crop
from embedcache.engines.names import EngineName
from embedcache.errors import InvalidSettingError
from embedcache.options import CacheOption, DatasetOption, DeviceOption, JsonOption, parse_pairs
from embedcache.sequences import Modality

if TYPE_CHECKING:
    from embedcache.encoders.registry import EncoderOptions
    from embedcache.job import BuildJob

__all__ = ["build", "estimate", "worker"]

ModalityOption = Annotated[Modality, typer.Option(help="Which sequences of the dataset.", show_default=False)]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        help="Encoder, see `embedcache encoders`; hf:OWNER/NAME or hf:DIRECTORY for any other of Hugging Face, "
        "module:Class for one of yours. Default: the dataset's, else the paper's (enformer, nt-v2-250m, esm2-150m)."
    ),
]
FromRunOption = Annotated[
    Path | None, typer.Option(help="Run of `heads train --finetune` whose trained encoder is used: --encoder run:RUN.")
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Directory with the published weights. Default: the Hugging Face cache.")
]
RevisionOption = Annotated[
    str | None, typer.Option(metavar="COMMIT", help="Of the encoder's repository. Default: the one in the cache.")
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run the code that comes with an hf: encoder; also needs its --revision, in full."
    ),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch published weights that are missing into the Hugging Face cache.")
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
OverlapOption = Annotated[
    int | None, typer.Option(min=0, help="Tokens that windows share, with --crop windows. Default: a quarter of one.")
]
LayersOption = Annotated[
    list[int], typer.Option("--layer", help="Output of which block: 1 is the first, -1 the last. Again for more.")
]
PoolingsOption = Annotated[
    list[str],
    typer.Option(
        "--pooling",
        help="Rows of a sequence: none keeps its tokens, mean is one row, adaptive-64 at most 64. Again for more.",
    ),
]
KeepSpecialOption = Annotated[
    bool,
    typer.Option("--keep-special", help="Also store CLS and EOS, so that `heads train --finetune` can go on from it."),
]
BudgetOption = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of one call of the encoder. Default: 2,048 on a CPU, by free memory on a GPU."),
]
RetryOption = Annotated[
    bool, typer.Option("--retry", help="Try sequences again that could not be embedded before (exit code 3).")
]


def build(
    modality: ModalityOption,
    encoder: EncoderOption = None,
    from_run: FromRunOption = None,
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    weights: WeightsOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    download: DownloadOption = False,
    random_init: RandomInitOption = None,
    dtype: DtypeOption = "float32",
    store_dtype: StoreDtypeOption = "float16",
    crop: CropOption = None,
    overlap: OverlapOption = None,
    max_tokens: MaxTokensOption = None,
    layers: LayersOption = [-1],  # noqa: B006
    poolings: PoolingsOption = ["none"],  # noqa: B006
    keep_special: KeepSpecialOption = False,
    device: DeviceOption = "auto",
    tokens_per_batch: BudgetOption = None,
    engine: Annotated[
        EngineName, typer.Option(help="What starts the workers: this machine, a Ray cluster, SLURM.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the work. Default: one, or one a GPU.")
    ] = None,
    engine_option: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="Passed to the engine, such as partition=gpu for SLURM.")
    ] = [],  # noqa: B006
    retry: RetryOption = False,
) -> None:
    """Embed what the cache lacks of one modality. Run it again after an interruption: it goes on.

    Several --layer or --pooling give several stores from one pass. Exit code 3: all is embedded but the sequences
    named, which the encoder cannot take.
    """
    from embedcache.engines import run_build

    job = _job(locals())
    report = run_build(job, engine=engine, workers=workers, options=parse_pairs("--engine-option", engine_option))
    print(report)
    report.raise_if_skipped()


def worker(
    modality: ModalityOption,
    encoder: EncoderOption = None,
    from_run: FromRunOption = None,
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    weights: WeightsOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    download: DownloadOption = False,
    random_init: RandomInitOption = None,
    dtype: DtypeOption = "float32",
    store_dtype: StoreDtypeOption = "float16",
    crop: CropOption = None,
    overlap: OverlapOption = None,
    max_tokens: MaxTokensOption = None,
    layers: LayersOption = [-1],  # noqa: B006
    poolings: PoolingsOption = ["none"],  # noqa: B006
    keep_special: KeepSpecialOption = False,
    device: DeviceOption = "auto",
    tokens_per_batch: BudgetOption = None,
    workers: Annotated[
        int, typer.Option(min=1, help="How many workers there will be, about: more make smaller tasks.")
    ] = 8,
    retry: RetryOption = False,
) -> None:
    """Join a build as one more process: the options of `build`, started by any launcher, as often as you like.

    Workers need no coordinator: they agree through the cache, on a shared disk or an object store. One that dies is
    started again by a small parent; a sequence that kills it every time is skipped.
    """
    from embedcache.engines import run_build

    report = run_build(_job(locals()), engine="local", workers=1, supervised=True)
    print(report)
    report.raise_if_skipped()


def _job(given: dict[str, Any]) -> "BuildJob":
    """The job that options describe; names are those of the parameters."""
    from embedcache.job import BuildJob

    names = (
        *("weights", "revision", "trust_remote_code", "download", "random_init", "dtype"),
        *("store_dtype", "crop", "overlap", "max_tokens", "keep_special"),
    )
    encoder = given["encoder"]
    if given["from_run"] is not None:
        if encoder is not None:
            raise InvalidSettingError("--encoder and --from-run both name an encoder. Leave one of them out.")
        encoder = f"run:{given['from_run']}"
    return BuildJob(
        dataset=given["dataset"],
        cache=given["cache"],
        modality=given["modality"],
        encoder=encoder,
        options=cast("EncoderOptions", {name: given[name] for name in names}),
        layers=tuple(given["layers"]),
        poolings=tuple(given["poolings"]),
        device=given["device"],
        tokens_per_batch=given["tokens_per_batch"],
        workers=given["workers"] or 1,
        retry=given["retry"],
    )


def estimate(
    modality: ModalityOption,
    encoder: EncoderOption = None,
    from_run: FromRunOption = None,
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    weights: WeightsOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    download: DownloadOption = False,
    random_init: RandomInitOption = None,
    dtype: DtypeOption = "float32",
    store_dtype: StoreDtypeOption = "float16",
    crop: CropOption = None,
    overlap: OverlapOption = None,
    max_tokens: MaxTokensOption = None,
    layers: LayersOption = [-1],  # noqa: B006
    poolings: PoolingsOption = ["none"],  # noqa: B006
    keep_special: KeepSpecialOption = False,
    device: DeviceOption = "auto",
    tokens_per_batch: BudgetOption = None,
    retry: RetryOption = False,
    trial_seconds: Annotated[float, typer.Option(min=0, help="Length of the time trial; 0 for none.")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Tell tokens, bytes on disk and time of a build by one worker, before anything is spent: the options of `build`.

    What the cache has already costs nothing. Needs no weights; --weights tells apart stores that differ in them only.
    """
    from embedcache.estimate import estimate_job

    found = estimate_job(_job({**locals(), "workers": 1}), trial_seconds=trial_seconds)
    print(json.dumps(found.to_json(), indent=1) if as_json else found)
