"""The scores of a report as a picture of its own, for a page or a talk."""

from embedcache.errors import InvalidInputError
from heads.report.content import Report
from heads.report.figures import scores_forest
from heads.report.style import STYLE
from heads.report.tables import story
from heads.report.words import as_html

__all__ = ["svg_text"]

MARK = "<!-- isoheads report -->"


def svg_text(report: Report) -> str:
    """R2 of arms and baselines with intervals; labels and warnings stand below. Light or dark as the reader has it.

    Raises:
        InvalidInputError: Nothing was scored yet.
    """
    below = [*([f"NOTE: {'; '.join(report.labels)}"] if report.labels else []), *report.warnings, *story(report)[:2]]
    plot = scores_forest(report, "r2", below)
    if not plot:
        raise InvalidInputError(
            f"Nothing of {report.name} was scored yet, so that there is nothing to draw. "
            "Run `heads evaluate`, or go on with `heads sweep`."
        )
    start, inner = plot.split("\n", 1)
    ground = '<rect width="100%" height="100%" style="fill: var(--ground)"/>'
    return f"{start}\n{MARK}<title>{as_html(report.name)}</title><style>{STYLE}</style>{ground}\n{inner}\n"
