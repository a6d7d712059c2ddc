"""The subcommand ``heads report``. Imports nothing slow."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["report"]


def report(
    directory: Annotated[
        Path, typer.Argument(metavar="RUN_OR_SWEEP", help="Directory of `heads train` or `heads sweep`.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: report.html, or so, in the directory.")
    ] = None,
    form: Annotated[
        Literal["html", "markdown", "csv", "latex", "svg"] | None,
        typer.Option(
            "--format",
            help="A page, its table, or its scores as a picture. Default: what the name of the output says, else html.",
        ),
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Where the dataset of the run is, if it was moved.")] = None,
) -> None:
    """Show a run or a sweep as a page that opens offline.

    Or as a table (Markdown, CSV, LaTeX) or a picture (SVG).
    """
    from heads.report.write import write_report

    print(write_report(directory, output, form=form, dataset=dataset))
