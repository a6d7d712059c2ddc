"""Writing a report: read, drawn, and put in its place in one step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.store.files import replace_file
from heads.report.collect import collect
from heads.report.content import Report
from heads.report.forms import csv_text, latex_text, markdown_text
from heads.report.page import MARK, html_text
from heads.report.picture import MARK as PICTURE_MARK
from heads.report.picture import svg_text

__all__ = ["Format", "ReportResult", "render", "write_report"]

Format = Literal["html", "markdown", "csv", "latex", "svg"]
SUFFIXES: dict[str, Format] = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".csv": "csv",
    ".tex": "latex",
    ".svg": "svg",
}
_STARTS = {
    "html": MARK,
    "markdown": "<!-- isoheads report -->",
    "csv": "name,kind,is_reference,",
    "latex": "% isoheads report",
    "svg": PICTURE_MARK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """What ``write_report`` wrote."""

    output: Path
    size_bytes: int
    report: Report

    def __str__(self) -> str:
        report = self.report
        n = len(report.arms_only)
        what = "run" if report.kind == "run" else f"sweep of {n} arm{'' if n == 1 else 's'}"
        label = f" [{'; '.join(report.labels)}]" if report.labels else ""
        lines = [f"{self.output}: {what} {report.name}, {self.size_bytes:,} bytes{label}"]
        return "\n".join([*lines, *(f"note: {text}" for text in (*report.warnings, *report.notes))])


def render(report: Report, form: Format = "html") -> str:
    """A report as text. Equal reports give equal text."""
    writers = {
        "html": html_text, "markdown": markdown_text, "csv": csv_text, "latex": latex_text, "svg": svg_text
    }  # fmt: skip
    return writers[form](report)


def write_report(
    path: Path | str, output: Path | str | None = None, *, form: Format | None = None, dataset: Path | str | None = None
) -> ReportResult:
    """Write the page, or the table, of a run or a sweep.

    Args:
        path: Directory of ``heads train`` or ``heads sweep``.
        output: File to write, ``report.html`` and the like in the directory if none is given. An older report is
            replaced, a file of something else is not.
        form: ``html``, ``markdown``, ``csv``, ``latex`` or ``svg``; from the name of the output if none is given.
        dataset: Where the dataset is now, if it was moved.

    Raises:
        InvalidInputError: The directory or the dataset cannot be used, or the output cannot be written.
        InvalidSettingError: No such format.
    """
    if Path(path).is_file():
        raise InvalidInputError(f"{path} is a file. Give the directory that `heads train` or `heads sweep` wrote.")
    form = _form(None if output is None else Path(output), form)
    suffix = next(suffix for suffix, known in SUFFIXES.items() if known == form)
    output = Path(path) / f"report{suffix}" if output is None else Path(output)
    _check_output(output)
    report = collect(path, dataset)
    content = render(report, form).encode()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, [content])
    except OSError as error:
        raise InvalidInputError(
            f"{output} cannot be written: {error.strerror or error}. Choose another --output, or free space."
        ) from error
    return ReportResult(output=output, size_bytes=len(content), report=report)


def _form(output: Path | None, form: str | None) -> Format:
    if form is None:
        suffix = ".html" if output is None else output.suffix.lower()
        if suffix not in SUFFIXES:
            raise InvalidSettingError(
                f"The name of {output} tells no format. End it in {', '.join(SUFFIXES)}, or give --format."
            )
        return SUFFIXES[suffix]
    for known in get_args(Format):
        if form == known:
            return known  # type: ignore[no-any-return]
    raise InvalidSettingError(f"There is no format {form!r}. Choose from: {', '.join(get_args(Format))}.")


def _check_output(output: Path) -> None:
    """Refuse to replace a file that is not ours, before anything is read."""
    if output.is_dir():
        raise InvalidInputError(f"{output} is a directory. Give the name of a file, such as report.html.")
    try:
        with output.open("rb") as file:
            start = file.read(1000).decode(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidInputError(f"{output} cannot be written: {error.strerror}. Choose another --output.") from error
    if start and not any(mark in start for mark in _STARTS.values()):
        raise InvalidInputError(f"{output} exists and is no report. Choose another --output, or remove it.")
