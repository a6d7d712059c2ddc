"""A forest plot: a row an arm, its interval on an axis, its numbers; for a page and for the width of a phone."""

from collections.abc import Sequence
from dataclasses import dataclass

from heads.report.content import Arm, Difference, Estimate
from heads.report.svg import Axis, figure, label, line, ticks, whisker
from heads.report.words import interval, typeset

__all__ = ["NARROW", "WIDE", "Layout", "draw_forest"]

_TOP = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things lie, in pixels."""

    width: float
    left: float
    """Of the axis."""
    right: float
    row: float
    """Height of one."""
    is_stacked: bool
    """Name, interval and numbers of a row lie below each other, not side by side."""
    n_ticks: int


WIDE = Layout(width=980, left=236, right=640, row=24, is_stacked=False, n_ticks=6)
NARROW = Layout(width=340, left=10, right=330, row=58, is_stacked=True, n_ticks=4)


def draw_forest(
    title: str,
    lines: Sequence[tuple[Arm, Estimate | Difference, str]],
    *,
    sign: str,
    zero: bool,
    n_arms: int,
    planted: bool = False,
    below: Sequence[str] = (),
    layout: Layout = WIDE,
) -> str:
    """Rows of names, intervals and numbers, and bars at what was planted; a rule between arms and baselines.

    Args:
        title: Above it.
        lines: An arm, what was found of it, and a text beside its numbers.
        sign: ``+`` to write the sign of positive numbers.
        zero: Whether zero is on the axis, and marked.
        n_arms: How many of the first rows are arms.
        planted: Whether there are bars at what was planted.
        below: Lines of text.
        layout: For a page or for a phone.
    """
    values = [x for _, found, _ in lines for x in (found.estimate, found.low, found.high)]
    values += [arm.planted_r2 for arm, _, _ in lines] if planted else []
    axis = Axis.around(values, layout.left, layout.right, least=-1, most=1, zero=zero)
    bottom = _TOP + len(lines) * layout.row
    css, size = ("small", 11) if layout.is_stacked else ("title", 14)
    body = [label(0, 12, title, css=css, width=layout.width, size=size)]
    for value, text in ticks(axis.low, axis.high, layout.n_ticks):
        css = "zero" if zero and abs(value) < 1e-12 else "grid"
        body += [line(axis(value), _TOP, axis(value), bottom, css),
                 label(axis(value), bottom + 15, text, anchor="middle", css="tick")]  # fmt: skip
    for i, (arm, found, beside) in enumerate(lines):
        top = _TOP + i * layout.row
        if i == n_arms and i:
            body.append(line(0, top, layout.width, top, "rule"))
        y = top + layout.row / 2
        body += _texts(arm, typeset(interval(found, sign)), beside, y, layout)
        css = "arm" if arm.kind == "arm" else "base"
        if planted and arm.planted_r2 is not None:
            body.append(line(axis(arm.planted_r2), y - 9, axis(arm.planted_r2), y + 9, "planted"))
        body.append(whisker(axis, y, found.low, found.high, f"{css} whisker"))
        if found.estimate is not None and not axis.cuts(found.estimate):
            body.append(f'<circle class="{css} dot" cx="{axis(found.estimate):.1f}" cy="{y:.1f}" r="4.5"/>')
    spoken = "; ".join(f"{arm.name} {interval(found, sign)} {beside}".strip() for arm, found, beside in lines)
    body += [label(0, bottom + 40 + 17 * i, text, width=layout.width) for i, text in enumerate(below)]
    return figure(layout.width, bottom + 22 + (17 * len(below) + 8 if below else 0), title, spoken, body)


def _texts(arm: Arm, numbers: str, beside: str, y: float, layout: Layout) -> list[str]:
    """Name, numbers and what stands beside them, around the middle of a row."""
    if layout.is_stacked:
        name = label(0, y - 13, arm.name, width=layout.width)
        return [name, label(0, y + 22, f"{numbers}  {beside}".strip(), css="small number", width=layout.width, size=11)]
    found = [label(layout.left - 12, y + 4, arm.name, anchor="end", width=layout.left - 14),
             label(layout.right + 14, y + 4, numbers, css="number")]  # fmt: skip
    return found + ([label(layout.right + 178, y + 4, beside, css="number")] if beside else [])
