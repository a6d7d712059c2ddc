"""The tables of a report, and what is said beside them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from heads.report.content import Arm, Report
from heads.report.words import NOTHING, as_html, interval, number, p_value, typeset, value

__all__ = ["METRICS", "Table", "details_table", "html_table", "results_table", "settings_table", "story"]

METRICS = {"r2": "R2", "spearman": "Spearman"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text in groups, all with as many cells as the header. The first cell of a row is a name."""

    header: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    """Title (may be empty) and rows."""


Column = tuple[str, Callable[[Arm], str]]


def results_table(report: Report) -> Table:
    """Scores with intervals, differences, and what they rest on. Columns without any value are left out."""
    columns: list[Column] = [
        ("planted R2", _number("planted_r2")),
        ("R2 [95%]", lambda arm: interval(arm.r2)),
        ("Spearman [95%]", lambda arm: interval(arm.spearman)),
        (f"R2, {report.difference} [95%]", _difference("r2")),
        ("Holm p", _p_value("r2", "p_holm")),
        ("Spearman within genes", _within("spearman")),
        ("seeds", _whole("n_seeds")),
        ("parameters", _whole("parameters")),
    ]
    table = _table(report, columns)
    # an arm without a score stays in the table, and says why
    return table or Table((_first(report),), tuple(_groups(report, [])))


def details_table(report: Report) -> Table | None:
    """More about the same arms; None if nothing is known."""
    columns: list[Column] = [
        ("p (R2)", _p_value("r2", "p")),
        ("sign-flip p (R2)", _p_value("r2", "p_sign_flip")),
        (f"Spearman, {report.difference} [95%]", _difference("spearman")),
        ("p (Spearman)", _p_value("spearman", "p")),
        ("Holm p (Spearman)", _p_value("spearman", "p_holm")),
        ("paired seeds", _whole("difference_seeds")),
        ("sd over seeds, R2", _number("r2_seed_sd")),
        ("sd over seeds, Spearman", _number("spearman_seed_sd")),
        ("pooled R2", _number("r2_pooled")),
        ("pooled Spearman", _number("spearman_pooled")),
        ("R2 within genes", _within("r2")),
        ("Kendall within genes", _within("kendall")),
        ("validation R2", lambda arm: number(arm.validation.get("r2"))),
        ("validation loss", lambda arm: number(arm.validation.get("loss"))),
    ]
    return _table(report, columns)


def _table(report: Report, columns: Sequence[Column]) -> Table | None:
    known = [(title, cell) for title, cell in columns if any(cell(arm) != NOTHING for arm in report.arms)]
    if not known:
        return None
    return Table((_first(report), *(title for title, _ in known)), tuple(_groups(report, known)))


def _first(report: Report) -> str:
    return "arm" if report.kind == "sweep" else "model"


def _groups(report: Report, columns: Sequence[Column]) -> Iterator[tuple[str, tuple[tuple[str, ...], ...]]]:
    for title, arms in (("", report.arms_only), ("Baselines", report.baselines)):
        if rows := tuple((_named(report, arm), *(cell(arm) for _, cell in columns)) for arm in arms):
            yield title, rows


def _named(report: Report, arm: Arm) -> str:
    mark = " (reference)" if arm.name == report.reference else ""
    return f"{arm.name}{mark}{'' if arm.is_scored else ' (not scored yet)'}"


def _whole(name: str) -> Callable[[Arm], str]:
    return lambda arm: NOTHING if getattr(arm, name) is None else f"{getattr(arm, name):,}"


def _number(name: str) -> Callable[[Arm], str]:
    return lambda arm: number(getattr(arm, name))


def _within(name: str) -> Callable[[Arm], str]:
    return lambda arm: number(getattr(arm.within_gene, name, None))


def _p_value(metric: str, name: str) -> Callable[[Arm], str]:
    return lambda arm: p_value(getattr(arm.differences.get(metric), name, None))


def _difference(metric: str) -> Callable[[Arm], str]:
    return lambda arm: interval(arm.differences.get(metric), "+")


def settings_table(report: Report) -> Table | None:
    """The settings in which arms differ; None if they are all the same."""
    arms = report.arms_only
    names = list(dict.fromkeys(name for arm in arms for name in arm.settings))
    shown = {name: [value(arm.settings[name]) if name in arm.settings else NOTHING for arm in arms] for name in names}
    differing = [name for name in names if len(set(shown[name])) > 1]
    if not differing:
        return None
    rows = tuple((arm.name, *(shown[name][i] for name in differing)) for i, arm in enumerate(arms))
    return Table(("arm", *differing), (("", rows),))


def story(report: Report) -> list[str]:
    """What stands beside every table: what was scored, how sure it is, what was resampled."""
    if not report.scored:
        return ["Nothing was scored yet."]
    units = "genes" if report.unit == "gene" else f"groups by {report.unit}"
    counts = ((report.n_transcripts, "transcripts"), (report.n_groups, units), (len(report.tissues), "tissues"))
    parts = [report.scored, *(f"{n:,} {word}" for n, word in counts if n is not None)]
    if report.seeds:
        parts.append(f"seed{'' if len(report.seeds) == 1 else 's'} {', '.join(map(str, report.seeds))}")
    lines = [f"Scored: {', '.join(parts)}."]
    many = any(arm.n_seeds is not None and arm.n_seeds > 1 for arm in report.arms)
    count = "" if report.resamples is None else f"{report.resamples:,} "
    what = f"{units} x seeds, crossed" if many else units
    without = "" if many else "; variation between trainings is not included"
    lines.append(f"Intervals: 95%, {count}resamples of {what}{without}.")
    scale = "scored" if report.folds else "training"
    lines.append(f"R2 and Spearman: mean over tissues, on the z-scale of the {scale} rows; pooled: all cells at once.")
    if any(arm.planted_r2 is not None for arm in report.arms):
        lines.append(
            "Planted R2: what the simulated study lets the modalities of an arm explain, of all its transcripts."
        )
    if any(arm.within_gene for arm in report.arms):
        within = next(arm.within_gene for arm in report.arms if arm.within_gene)
        sizes = "" if within.n_genes is None else f" ({within.n_genes:,} genes with two or more measured isoforms)"
        lines.append(f"Within genes: isoforms against the mean of their gene{sizes}; a right gene level scores 0.")
    if not report.baselines:
        lines.append("No baselines are beside these results: what they gain over simple features is not known here.")
    return lines


def html_table(table: Table, caption: str, css: str = "") -> str:
    """A table with a caption; the first column are row headers."""
    head = "".join(f'<th scope="col">{as_html(cell)}</th>' for cell in table.header)
    parts = [f'<table class="{css}"><caption>{as_html(caption)}</caption>\n<thead><tr>{head}</tr></thead>']
    for title, rows in table.groups:
        parts.append("<tbody>")
        if title:
            parts.append(
                f'<tr class="group"><th colspan="{len(table.header)}" scope="rowgroup">{as_html(title)}</th></tr>'
            )
        for name, *cells in rows:
            shown = "".join(f"<td>{as_html(typeset(cell))}</td>" for cell in cells)
            parts.append(f'<tr><th scope="row">{as_html(name)}</th>{shown}</tr>')
        parts.append("</tbody>")
    return "\n".join([*parts, "</table>"])
