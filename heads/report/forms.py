"""The table of a report as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence

from heads.report.content import Arm, Report
from heads.report.tables import METRICS, Table, details_table, results_table, story
from heads.report.words import as_latex, as_markdown, is_number, plain

__all__ = ["csv_text", "latex_text", "markdown_text"]


def markdown_text(report: Report) -> str:
    """The results table with its story, as Markdown."""
    table = results_table(report)
    lines = [f"<!-- isoheads report -->\n## {as_markdown(report.name)}\n"]
    if report.labels:
        lines.append(f"> **{as_markdown('; '.join(report.labels))}**\n")
    lines += [f"> **{as_markdown(warning)}**\n" for warning in report.warnings]
    lines += _markdown_table(table)
    if (details := details_table(report)) is not None:
        lines += ["", *_markdown_table(details)]
    lines += ["", *(f"{as_markdown(line)}  " for line in story(report)), *(f"{as_markdown(n)}  " for n in report.notes)]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> list[str]:
    lines = [_markdown_row(table.header), "|" + "---|" + "---:|" * (len(table.header) - 1)]
    for title, rows in table.groups:
        if title:
            lines.append(_markdown_row((f"{title}:", *[""] * (len(table.header) - 1))))
        lines += [_markdown_row(row) for row in rows]
    return lines


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell if is_number(cell) else as_markdown(cell) for cell in cells) + " |"


CSV_SCORES = ("estimate", "low", "high")
CSV_FIRST = (
    "name",
    "kind",
    "is_reference",
    "labels",
    "unit",
    "n_transcripts",
    "n_groups",
    "n_tissues",
    "resamples",
    "n_seeds",
    "planted_r2",
)


def csv_text(report: Report) -> str:
    """One line an arm, every number in full, empty where it is not known; labels stand in each line."""
    header = list(CSV_FIRST)
    for metric in METRICS:
        header += [f"{metric}_{part}" for part in CSV_SCORES]
        header += [f"{metric}_difference_{part}" for part in (*CSV_SCORES, "p", "p_holm", "p_sign_flip")]
        header += [f"{metric}_pooled", f"{metric}_seed_sd", f"within_gene_{metric}", f"validation_{metric}"]
    header += ["within_gene_kendall", "validation_loss", "difference_seeds", "parameters", "difference_is"]
    file = io.StringIO()
    writer = csv.DictWriter(file, header, lineterminator="\n")
    writer.writeheader()
    for arm in (*report.arms_only, *report.baselines):
        writer.writerow({name: "" if cell is None else cell for name, cell in _csv_row(report, arm).items()})
    return file.getvalue()


def _csv_row(report: Report, arm: Arm) -> dict[str, object]:
    row: dict[str, object] = {
        "name": plain(arm.name), "kind": arm.kind, "is_reference": int(arm.name == report.reference),
        "labels": plain("; ".join(report.labels)), "unit": plain(report.unit), "n_transcripts": report.n_transcripts,
        "n_groups": report.n_groups, "n_tissues": len(report.tissues), "resamples": report.resamples,
        "n_seeds": arm.n_seeds, "planted_r2": arm.planted_r2,
    }  # fmt: skip
    for metric in METRICS:
        found, difference = getattr(arm, metric), arm.differences.get(metric)
        row |= {f"{metric}_{part}": getattr(found, part, None) for part in CSV_SCORES}
        parts = (*CSV_SCORES, "p", "p_holm", "p_sign_flip")
        row |= {f"{metric}_difference_{part}": getattr(difference, part, None) for part in parts}
        row |= {
            f"{metric}_pooled": getattr(arm, f"{metric}_pooled"),
            f"{metric}_seed_sd": getattr(arm, f"{metric}_seed_sd"),
        }
        row[f"within_gene_{metric}"] = getattr(arm.within_gene, metric, None)
        row[f"validation_{metric}"] = arm.validation.get(metric)
    return row | {
        "within_gene_kendall": getattr(arm.within_gene, "kendall", None),
        "validation_loss": arm.validation.get("loss"),
        "difference_seeds": arm.difference_seeds,
        "parameters": arm.parameters,
        "difference_is": plain(report.difference) if arm.differences else None,
    }


def latex_text(report: Report) -> str:
    """A ``table`` environment with the rules of ``booktabs``."""
    table = results_table(report)
    width = len(table.header)
    lines = ["% isoheads report; needs \\usepackage{booktabs}", r"\begin{table}", r"\centering\small"]
    notes = [*([f"NOTE: {'; '.join(report.labels)}."] if report.labels else []), *report.warnings, *story(report)]
    lines.append(rf"\caption{{{as_latex(report.name)}. {' '.join(_latex_cell(note) for note in notes)}}}")
    lines += [rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
    lines += [" & ".join(_latex_cell(cell) for cell in table.header) + r" \\", r"\midrule"]
    for i, (title, rows) in enumerate(table.groups):
        if i:
            lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{as_latex(title)}}}}} \\")
        for name, *cells in rows:
            shown = [f"${cell}$" if is_number(cell) and "-" in cell else _latex_cell(cell) for cell in cells]
            lines.append(" & ".join([as_latex(name), *shown]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_cell(text: str) -> str:
    return as_latex(text).replace("R2", "$R^2$")
