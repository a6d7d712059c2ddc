"""The subcommands of ``heads``. Each one translates its options and calls one public function."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedcache.options import CacheOption, DatasetOption, DeviceOption, JsonOption, show, tell_version
from heads.interpret.attention.command import attention
from heads.interpret.explain.command import app as explain_app
from heads.report.commands import report
from heads.split_commands import splits
from heads.sweep.command import sweep
from heads.train_command import train
from heads.train_options import RunOption

__all__ = ["app"]

app = typer.Typer(
    help="Train and score aggregators and tissue heads on cached embeddings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut the names of options at 80 columns
)

tell_version(app)
app.command()(train)
app.command()(sweep)
app.command()(report)
app.command()(splits)
app.add_typer(explain_app, name="explain")
app.command()(attention)


@app.command()
def evaluate(
    run: RunOption = Path("runs/run"),
    dataset: Annotated[Path | None, typer.Option(help="Where the dataset of the run is, if it was moved.")] = None,
    cache: Annotated[str | None, typer.Option(help="Where its cache is, if it was moved.")] = None,
    device: DeviceOption = "auto",
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Draws of genes for the intervals.")] = 2000,
    as_json: JsonOption = False,
) -> None:
    """Score the test rows of a run, once, beside its baselines."""
    from heads.evaluate import evaluate

    found = evaluate(run, dataset=dataset, cache=cache, device=device, resamples=resamples)
    show(found, as_json)


@app.command()
def export(
    run: RunOption = Path("runs/run"),
    output: Annotated[Path, typer.Option(help="Directory to make.")] = Path("exported"),
) -> None:
    """Write a run as files that other tools load.

    Encoders for transformers, adapters for peft, the head for torch, and a model card.
    """
    from heads.finetune.export import export_run

    print(export_run(run, output))


@app.command()
def predict(
    run: RunOption = Path("runs/run"),
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    output: Annotated[Path, typer.Option(help="Parquet file to write.")] = Path("predictions.parquet"),
    by: Annotated[
        Literal["run", "kernel"],
        typer.Option(help="What predicts: the run, or the kernel of its tables, fitted on its training rows."),
    ] = "run",
    device: DeviceOption = "auto",
) -> None:
    """Predict the expression of every transcript of a dataset.

    On the scale of the targets, with the IDs of the dataset.
    """
    from heads.predict import predict

    print(predict(run, dataset, cache, output, device=device, by=by))
