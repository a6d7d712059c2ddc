"""The page of a report: one HTML file that opens offline, loads nothing and runs nothing."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from heads.report.charts import against_measured, expression, learning_curves
from heads.report.content import Arm, Report
from heads.report.figures import forest, scores_forest, tissue_bars
from heads.report.forest import NARROW
from heads.report.style import STYLE
from heads.report.tables import Table, details_table, html_table, results_table, settings_table, story
from heads.report.words import as_html, plain

__all__ = ["html_text"]

MARK = '<meta name="generator" content="isoheads report">'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_text(report: Report) -> str:
    """The whole page. Equal reports give equal bytes."""
    sections = [
        ("results", "Results", _results(report)),
        ("differences", "Differences", _differences(report)),
        ("tissues", "Tissues", _tissues(report)),
        ("measured", "Predicted and measured", _measured(report)),
        ("training", "Learning curves", _training(report)),
        ("expression", "Expression", _expression(report)),
        ("settings", "Settings and provenance", _provenance(report)),
    ]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections)
    body = "\n".join(f'<section id="{name}"><h2>{title}</h2>\n{text}\n</section>' for name, title, text in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{as_html(report.name)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f"{_head(report)}\n<nav>{links}</nav>\n<main>\n{body}\n</main>\n</body></html>\n"
    )


def _head(report: Report) -> str:
    n, m = len(report.arms_only), len(report.baselines)
    what = "One run" if report.kind == "run" else f"Sweep of {n} arm{'' if n == 1 else 's'}"
    beside = f", {m} baseline{'' if m == 1 else 's'}" if m else ""
    parts = [f"<h1>{as_html(report.name)}</h1>", f'<p class="soft">{what}{beside}</p>']
    shown = [*([f"NOTE: {'; '.join(report.labels)}"] if report.labels else []), *report.warnings]
    if shown:
        parts.append(f'<div class="banner" role="note">{_paragraphs(shown)}</div>')
    parts += [f"<p>{as_html(line)}</p>" for line in story(report)]
    if report.facts:
        table = Table(("", ""), (("", report.facts),))
        parts.append(html_table(table, "", "facts").replace("<caption></caption>\n", "").replace(_EMPTY_HEAD, ""))
    parts += [f'<p class="soft">{as_html(note)}</p>' for note in report.notes]
    return "<header>" + "\n".join(parts) + "</header>"


_EMPTY_HEAD = '<thead><tr><th scope="col"></th><th scope="col"></th></tr></thead>'


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{as_html(line)}</p>" for line in lines)


def _beside(report: Report) -> str:
    """Labels and the warning of one seed, as they stand beside every result."""
    short = [*report.labels, *(["one seed"] if any(w.startswith("ONE seed:") for w in report.warnings) else [])]
    return f'<p class="beside">{as_html("; ".join(short))}</p>\n' if short else ""


def _results(report: Report) -> str:
    caption = " ".join(story(report)[:2])
    tables = [html_table(results_table(report), caption, "results")]
    if (details := details_table(report)) is not None:
        tables.append(html_table(details, "More of the same rows", "results"))
    plots = [
        _for_both(scores_forest(report, metric), scores_forest(report, metric, layout=NARROW))
        for metric in ("r2", "spearman")
    ]
    wide = "\n".join(f'<div class="wide">{table}</div>' for table in tables)
    return _beside(report) + wide + "\n".join(plots)


def _differences(report: Report) -> str:
    plots = [_for_both(forest(report, metric), forest(report, metric, NARROW)) for metric in ("r2", "spearman")]
    if not any(plots):
        return _missing("No differences were computed.")
    seeds = sorted({arm.difference_seeds for arm in report.arms if arm.difference_seeds is not None})
    paired = f" Paired seeds: {', '.join(map(str, seeds))}." if seeds else ""
    corrected = any(found.p_holm is not None for arm in report.arms for found in arm.differences.values())
    holm = " Holm: corrected for all comparisons of the table." if corrected else ""
    words = (
        f"Differences are {report.difference}, both scored on the same resamples; they decide, not the overlap of two "
        f"intervals.{paired}{holm} Arrow heads: the interval goes on."
    )
    return _beside(report) + f'<p class="soft">{as_html(words)}</p>' + "".join(plots)


def _for_both(wide: str, narrow: str) -> str:
    """A picture for a page and the same one for a phone, of which one is shown; nothing of an empty one."""
    if not wide:
        return ""
    return f'<figure class="wide desk">{wide}</figure><figure class="phone">{narrow}</figure>'


def _tissues(report: Report) -> str:
    arms = [arm for arm in (*report.arms_only, *report.baselines) if arm.r2_by_tissue]
    if not arms:
        return _missing("Nothing was scored by tissue yet.")
    words = "R2 of each tissue, with its 95% interval where it was computed; all pictures share one axis."
    bare = [arm.name for arm in arms if all(score.low is None for score in arm.r2_by_tissue)]
    if bare:
        words += f" No intervals by tissue were kept for: {', '.join(bare)}."
    charts = _charts(arms, lambda arm: tissue_bars(arm, report.tissues, "r2", arms))
    return _beside(report) + f'<p class="soft">{as_html(words)}</p>' + charts


def _measured(report: Report) -> str:
    charts = _charts(report.arms, against_measured)
    if not charts:
        return _missing("No predictions beside measured values.")
    words = (
        "Every measured cell of the test rows on the z-scale of the training rows; darker (on a dark ground lighter) "
        "squares hold more cells, on a logarithmic scale. Red: mean measured value in bins of the prediction "
        "(calibration); slope and intercept are of the line of measured on predicted values, 1 and 0 being right. "
        "Dashed: equality."
    )
    return _beside(report) + f'<p class="soft">{words}</p>' + charts


def _training(report: Report) -> str:
    charts = _charts(report.arms_only, learning_curves)
    if not charts:
        return _missing("No epoch is finished yet.")
    words = (
        '<p class="soft"><span class="key"></span> validation loss, a line a training; the dot is the epoch '
        'whose weights were kept. <span class="key dashed"></span> training loss. Losses far above the others are cut '
        "off.</p>"
    )
    return _beside(report) + words + charts


def _expression(report: Report) -> str:
    plot = expression(report.expression, report.expression_unit)
    return (_beside(report) + f'<figure class="wide">{plot}</figure>') if plot else _missing("No tissues are known.")


def _provenance(report: Report) -> str:
    parts = []
    if (table := settings_table(report)) is not None:
        parts.append(f'<div class="wide">{html_table(table, "Settings in which the arms differ", "settings")}</div>')
    for name, values in report.provenance.items():
        parts.append(f"<details><summary>{as_html(name)}</summary><pre>{_json(values)}</pre></details>")
    return "\n".join(parts) or _missing("Nothing is known.")


def _json(values: Any) -> str:
    lines = json.dumps(values, indent=1, ensure_ascii=False).split("\n")
    return "\n".join(as_html(plain(line)) for line in lines)


def _charts(arms: Iterable[Arm], draw: Callable[[Arm], str]) -> str:
    drawn = [f"<figure>{plot}</figure>" for arm in arms if (plot := draw(arm))]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _missing(text: str) -> str:
    return f'<p class="soft">{as_html(text)}</p>'
