"""Heat maps along a sequence: coloured cells of a row a letter or a tissue.

Shapes: R rows of a heat map, P positions.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from heads.report.svg import figure, label, n1
from heads.report.words import as_html

__all__ = ["CELL_STYLE", "heat_map"]

_LEVELS = 5
_ACROSS = 100
"""Positions of one line of a heat map."""
_CELL, _LEFT = 8.5, 62.0
_FULL = 0.98
"""Share of the values that are told apart by colour; those beyond have the full one."""

CELL_STYLE = """
:root { --l1: #dbe9f6; --l2: #a9cde8; --l3: #6ea6d6; --l4: #3578b5; --l5: #0c4a86;
  --h1: #fbe6d3; --h2: #f7c49a; --h3: #ee9a55; --h4: #cf6a17; --h5: #8f4300; }
@media (prefers-color-scheme: dark) { :root {
  --l1: #18304a; --l2: #205078; --l3: #3274aa; --l4: #5da0d6; --l5: #a5d2f5;
  --h1: #3d2711; --h2: #6b3f12; --h3: #a05d18; --h4: #d98a3a; --h5: #f9c58d; } }
@media print { :root { --l1: #dbe9f6; --l2: #a9cde8; --l3: #6ea6d6; --l4: #3578b5; --l5: #0c4a86;
  --h1: #fbe6d3; --h2: #f7c49a; --h3: #ee9a55; --h4: #cf6a17; --h5: #8f4300; } }
.cells path, path.step { fill: none; stroke-width: 1; }
path.step { stroke-width: 12; }
.low1 { stroke: var(--l1); } .low2 { stroke: var(--l2); } .low3 { stroke: var(--l3); } .low4 { stroke: var(--l4); }
.low5 { stroke: var(--l5); } .high1 { stroke: var(--h1); } .high2 { stroke: var(--h2); }
.high3 { stroke: var(--h3); } .high4 { stroke: var(--h4); } .high5 { stroke: var(--h5); }
.zero0 { stroke: var(--band); }
.cells .gap { stroke: var(--soft); stroke-width: .2; }
text.letters { font: 8px ui-monospace, monospace; }
text.row { font-size: 8px; fill: var(--soft); }
"""
"""Blue lowers and orange raises a prediction, from weak to strong; light, dark and on paper."""


def heat_map(
    title: str, rows: Sequence[str], letters: Sequence[str], values: NDArray[np.float64], *, first: int, step: int = 1
) -> str:
    """Values of every row at every position as coloured cells, in lines of 100 positions; a dot where none is.

    Colours grow up to a size that 2 % of the values exceed, so that a few large ones do not hide the rest.

    Args:
        title: For those who do not see it, too.
        rows: Names, R.
        letters: What stands at each position, P; shown where it is one letter.
        values: (R, P); NaN where there is no value.
        first: Number of the first position.
        step: Letters of one cell.
    """
    most, full = _scale(values)
    height = len(rows) * _CELL
    body = [label(0, 13, title, css="title", width=_LEFT + _ACROSS * _CELL, size=14), _key(full)]
    y = 78.0
    for start in range(0, len(letters), _ACROSS):
        part = values[:, start : start + _ACROSS]
        body.append(label(0, y - 4, f"{first + start * step:,}", css="tick"))
        shown = "".join(one if len(one) == 1 else " " for one in letters[start : start + _ACROSS])
        xs = " ".join(n1(_LEFT + (i + 0.5) * _CELL) for i in range(len(shown)))
        body.append(f'<text class="letters" text-anchor="middle" x="{xs}" y="{n1(y - 4)}">{as_html(shown)}</text>')
        body += [label(_LEFT - 6, y + (i + 0.8) * _CELL, name, anchor="end", css="row", width=_LEFT - 8, size=8)
                 for i, name in enumerate(rows)]  # fmt: skip
        place = f"translate({n1(_LEFT)} {n1(y)}) scale({_CELL})"
        body.append(f'<g class="cells" transform="{place}">{_cells(part, full)}</g>')
        y += height + 26
    words = f"{len(letters):,} positions from {first:,} on; largest absolute value {most:.3g}"
    return figure(_LEFT + _ACROSS * _CELL + 8, y - 10, title, words, body)


def _scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """The largest absolute value, and the one from which on a cell has the full colour: few are beyond."""
    sizes = np.abs(values[~np.isnan(values) & (values != 0)])
    if not len(sizes):
        return 0.0, 1.0
    return float(sizes.max()), float(np.quantile(sizes, _FULL))


def _cells(values: NDArray[np.float64], full: float) -> str:
    """One path a colour, neighbours in one stroke."""
    known = np.nan_to_num(values)
    steps = np.minimum(np.ceil(np.abs(known) / full * _LEVELS - 1e-9), _LEVELS)
    levels = (steps * np.sign(known)).astype(int)
    strokes: dict[int, list[str]] = {}
    for row, line in enumerate(levels.tolist()):
        at = 0
        for level, run in groupby(line):
            size = len(list(run))
            strokes.setdefault(level, []).append(f"M{at} {row + 0.5}h{size}")
            at += size
    gaps = "".join(f"M{x + 0.4} {y + 0.5}h.2" for y, x in np.argwhere(np.isnan(values)).tolist())
    paths = [f'<path class="{_css(level)}" d="{"".join(parts)}"/>' for level, parts in sorted(strokes.items())]
    return "".join(paths) + (f'<path class="gap" d="{gaps}"/>' if gaps else "")


def _css(level: int) -> str:
    return "zero0" if level == 0 else f"{'low' if level < 0 else 'high'}{abs(level)}"


def _key(full: float) -> str:
    parts, x = [], _LEFT
    for level in range(-_LEVELS, _LEVELS + 1):
        parts.append(f'<path class="step {_css(level)}" d="M{n1(x)} 28h22"/>')
        x += 22
    low, high = f"\u2212{full:.2g} and less", f"+{full:.2g} and more"
    text = [label(_LEFT, 46, low, css="tick"), label(x, 46, high, anchor="end", css="tick")]
    return "".join(parts + text)
