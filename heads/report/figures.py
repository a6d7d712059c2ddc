"""Scores as pictures: differences with their intervals, and every tissue with its own."""

from collections.abc import Sequence

from heads.report.content import Arm, Difference, Estimate, Report
from heads.report.forest import WIDE, Layout, draw_forest
from heads.report.svg import Axis, figure, label, line, ticks, whisker
from heads.report.words import interval, number, p_value, typeset

__all__ = ["forest", "forest_rows", "scores_forest", "tissue_bars"]

METRICS = {"r2": "R2", "spearman": "Spearman"}


def forest_rows(report: Report, metric: str) -> list[tuple[Arm, Difference]]:
    """Arms with a difference, in table order, baselines last."""
    arms = (*report.arms_only, *report.baselines)
    return [(arm, arm.differences[metric]) for arm in arms if metric in arm.differences]


def forest(report: Report, metric: str, layout: Layout = WIDE) -> str:
    """Differences of one metric with 95% intervals, zero marked, numbers beside; empty without any."""
    rows = forest_rows(report, metric)
    if not rows:
        return ""
    lines = [(arm, found, _p_values(found)) for arm, found in rows]
    title = f"{METRICS[metric]}: {report.difference}, 95% interval"
    return draw_forest(
        title, lines, sign="+", zero=True, n_arms=sum(arm.kind == "arm" for arm, _ in rows), layout=layout
    )


def scores_forest(report: Report, metric: str, below: Sequence[str] = (), layout: Layout = WIDE) -> str:
    """The scores themselves with 95% intervals, and lines of text below; empty if nothing was scored."""
    arms = [arm for arm in (*report.arms_only, *report.baselines) if getattr(arm, metric) is not None]
    if not arms:
        return ""
    planted = metric == "r2" and any(arm.planted_r2 is not None for arm in arms)
    lines = [(arm, getattr(arm, metric), _planted(arm) if planted else "") for arm in arms]
    title = f"{METRICS[metric]}, mean over tissues, 95% interval{'; bar: planted' if planted else ''}"
    n_arms = sum(arm.kind == "arm" for arm in arms)
    return draw_forest(title, lines, sign="", zero=planted, planted=planted, n_arms=n_arms, below=below, layout=layout)


def _planted(arm: Arm) -> str:
    return "" if arm.planted_r2 is None else f"planted {number(arm.planted_r2)}"


def _p_values(found: Difference) -> str:
    if found.p is None:
        return ""
    holm = f" (Holm {p_value(found.p_holm)})" if found.p_holm is not None else ""
    return f"p {p_value(found.p)}{holm}"


def tissue_bars(arm: Arm, tissues: Sequence[str], metric: str, axis_of: Sequence[Arm]) -> str:
    """A bar a tissue with its 95% interval and numbers, tissues in the order given.

    Args:
        arm: Whose scores.
        tissues: K names.
        metric: ``r2`` or ``spearman``.
        axis_of: Arms that share the axis, so that their pictures compare.
    """
    scores: tuple[Estimate, ...] = getattr(arm, f"{metric}_by_tissue")
    left, right, width, top, row = 128, 268, 428, 24, 17  # what is right of the bars holds a score below 0
    every = [score for other in axis_of for score in getattr(other, f"{metric}_by_tissue")]
    axis = Axis.around(
        [x for s in every for x in (s.estimate, s.low, s.high)], left, right, least=-0.5, most=1, zero=True
    )
    bottom = top + len(tissues) * row
    body = [label(0, 13, arm.name, css="title", width=width, size=14)]
    for value, text in ticks(axis.low, axis.high, 3):
        css = "zero" if abs(value) < 1e-12 else "grid"
        body += [line(axis(value), top, axis(value), bottom, css),
                 label(axis(value), bottom + 14, text, anchor="middle", css="tick")]  # fmt: skip
    css = "arm" if arm.kind == "arm" else "base"
    for i, (tissue, score) in enumerate(zip(tissues, scores, strict=True)):
        y = top + (i + 0.5) * row
        body.append(label(left - 8, y + 4, tissue, anchor="end", css="small", width=left - 10, size=11))
        if score.estimate is not None:
            x = sorted((axis(0), axis(score.estimate)))
            body.append(
                f'<rect class="{css} bar" x="{x[0]:.1f}" y="{y - 5.5:.1f}" width="{x[1] - x[0]:.1f}" height="11"/>'
            )
        body.append(whisker(axis, y, score.low, score.high, "over whisker"))
        text = interval(score) if score.estimate is not None else "not defined"
        shown = typeset(text.replace(" [no interval]", ""))
        body.append(label(right + 8, y + 4, shown, css="small number", width=width - right - 8, size=11))
    title = f"{METRICS[metric]} of {arm.name} by tissue, 95% interval"
    spoken = "; ".join(f"{t} {interval(s)}" for t, s in zip(tissues, scores, strict=True))
    return figure(width, bottom + 20, title, spoken, body)
