"""The subcommands that embed: ``build``, ``worker`` and ``estimate``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcache.choices import ComputeDtype, Crop, EngineName, StoreDtype
from embedcache.errors import InvalidSettingError
from embedcache.options import CacheOption, DatasetOption, DeviceOption, JsonOption, expand_options, parse_pairs, show
from embedcache.sequences import Modality

if TYPE_CHECKING:
    from embedcache.job import BuildJob

__all__ = ["build", "estimate", "worker"]

RetryOption = Annotated[
    bool, typer.Option("--retry", help="Try sequences again that could not be embedded before (exit code 3).")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What to embed, with which encoder, into which cache: the options that the three commands share."""

    modality: Annotated[Modality, typer.Option(help="Which sequences of the dataset.", show_default=False)]
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder, see `embedcache encoders`; hf:OWNER/NAME or hf:DIRECTORY for any other of Hugging Face, "
            "module:Class for one of yours. Default: the dataset's, else the paper's (enformer, nt-v2-250m, "
            "esm2-150m)."
        ),
    ] = None
    from_run: Annotated[
        Path | None,
        typer.Option(help="Run of `heads train --finetune` whose trained encoder is used: --encoder run:RUN."),
    ] = None
    dataset: DatasetOption = Path("dataset")
    cache: CacheOption = "cache"
    weights: Annotated[
        Path | None, typer.Option(help="Directory with the published weights. Default: the Hugging Face cache.")
    ] = None
    revision: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Of the encoder's repository. Default: the one in the cache.")
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run the code that comes with an hf: encoder; also needs its --revision, in full.",
        ),
    ] = False
    download: Annotated[
        bool, typer.Option("--download", help="Fetch published weights that are missing into the Hugging Face cache.")
    ] = False
    random_init: Annotated[
        int | None, typer.Option(metavar="SEED", help="Draw the weights with this seed instead of reading them.")
    ] = None
    dtype: Annotated[ComputeDtype, typer.Option(help="Precision of the computation.")] = "float32"
    store_dtype: Annotated[StoreDtype, typer.Option(help="Precision on disk.")] = "float16"
    crop: Annotated[
        Crop | None,
        typer.Option(help="Part kept of input over the limit; error refuses it. Default: the encoder's."),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens that windows share, with --crop windows. Default: a quarter of one."),
    ] = None
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Token limit. Default: the encoder's; 0 for none.")] = (
        None
    )
    layers: Annotated[
        list[int], typer.Option("--layer", help="Output of which block: 1 is the first, -1 the last. Again for more.")
    ] = field(default_factory=lambda: [-1])
    poolings: Annotated[
        list[str],
        typer.Option(
            "--pooling",
            help="Rows of a sequence: none keeps its tokens, mean is one row, adaptive-64 at most 64. Again for more.",
        ),
    ] = field(default_factory=lambda: ["none"])
    keep_special: Annotated[
        bool,
        typer.Option(
            "--keep-special", help="Also store CLS and EOS, so that `heads train --finetune` can go on from it."
        ),
    ] = False
    device: DeviceOption = "auto"
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of one call of the encoder. Default: 2,048 on a CPU, by free memory on a GPU."
        ),
    ] = None

    def job(self, *, workers: int = 1, retry: bool) -> "BuildJob":
        """The job that these options describe."""
        from embedcache.job import BuildJob

        encoder = self.encoder
        if self.from_run is not None:
            if encoder is not None:
                raise InvalidSettingError("--encoder and --from-run both name an encoder. Leave one of them out.")
            encoder = f"run:{self.from_run}"
        return BuildJob(
            dataset=self.dataset,
            cache=self.cache,
            modality=self.modality,
            encoder=encoder,
            options={
                "weights": self.weights,
                "revision": self.revision,
                "trust_remote_code": self.trust_remote_code,
                "download": self.download,
                "random_init": self.random_init,
                "dtype": self.dtype,
                "store_dtype": self.store_dtype,
                "crop": self.crop,
                "overlap": self.overlap,
                "max_tokens": self.max_tokens,
                "keep_special": self.keep_special,
            },
            layers=tuple(self.layers),
            poolings=tuple(self.poolings),
            device=self.device,
            tokens_per_batch=self.tokens_per_batch,
            workers=workers,
            retry=retry,
        )


@expand_options
def build(
    wanted: JobOptions,
    engine: Annotated[
        EngineName, typer.Option(help="What starts the workers: this machine, a Ray cluster, SLURM.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the work. Default: one, or one a GPU.")
    ] = None,
    engine_option: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="Passed to the engine, such as partition=gpu for SLURM.")
    ] = [],  # noqa: B006 - typer reads it, nothing writes to it
    retry: RetryOption = False,
) -> None:
    """Embed what the cache lacks of one modality. Run it again after an interruption: it goes on.

    Several --layer or --pooling give several stores from one pass. Exit code 3: all is embedded but the sequences
    named, which the encoder cannot take.
    """
    from embedcache.engines.run import run_build

    job = wanted.job(workers=workers or 1, retry=retry)
    report = run_build(job, engine=engine, workers=workers, options=parse_pairs("--engine-option", engine_option))
    print(report)
    report.raise_if_skipped()


@expand_options
def worker(
    wanted: JobOptions,
    workers: Annotated[
        int, typer.Option(min=1, help="How many workers there will be, about: more make smaller tasks.")
    ] = 8,
    retry: RetryOption = False,
) -> None:
    """Join a build as one more process.

    With the options of `build`, started by any launcher, as often as you like.

    Workers need no coordinator: they agree through the cache, on a shared disk or an object store. One that dies is
    started again by a small parent; a sequence that kills it every time is skipped.
    """
    from embedcache.engines.run import run_build

    report = run_build(wanted.job(workers=workers, retry=retry), engine="local", workers=1, supervised=True)
    print(report)
    report.raise_if_skipped()


@expand_options
def estimate(
    wanted: JobOptions,
    retry: RetryOption = False,
    trial_seconds: Annotated[float, typer.Option(min=0, help="Length of the time trial; 0 for none.")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Tell tokens, bytes on disk and time before a build.

    With the options of `build`; the time is that of one worker.

    What the cache has already costs nothing. Needs no weights; --weights tells apart stores that differ in them only.
    """
    from embedcache.estimate import estimate_job

    show(estimate_job(wanted.job(retry=retry), trial_seconds=trial_seconds), as_json)
