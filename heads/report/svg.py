"""A little SVG: text that fits, ticks on round numbers, axes. Colours come from the style sheet, by class."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heads.report.words import as_html, plain

__all__ = ["Axis", "Frame", "figure", "label", "line", "n1", "path", "ticks", "whisker"]

_LARGE = 1e15
"""No value of ours comes near; beyond, steps between ticks are lost to rounding."""


def n1(x: float) -> str:
    """A coordinate with at most one digit after the point."""
    text = f"{x:.1f}"
    return text[:-2] if text.endswith(".0") else text


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from ``low`` to ``high`` on pixels from ``start`` to ``end``; beyond is cut off at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def cuts(self, value: float) -> int:
        """-1 or 1 if a value lies below or above the axis, else 0."""
        return (value > self.high) - (value < self.low)

    @classmethod
    def around(
        cls, values: Iterable[float | None], start: float, end: float, *, least: float = -_LARGE,
        most: float = _LARGE, zero: bool = False,
    ) -> "Axis":  # fmt: skip
        """An axis over all values that are known, within bounds that no sane value leaves."""
        least, most = max(least, -_LARGE), min(most, _LARGE)
        known = [min(max(value, least), most) for value in values if value is not None]
        known += [0.0] if zero or not known else []
        low, high = min(known), max(known)
        if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
            low, high = low - 0.5, high + 0.5
        margin = (high - low) * 0.04
        return cls(low if zero and low == 0 else low - margin, high + margin, start, end)


def ticks(low: float, high: float, n: int = 5) -> list[tuple[float, str]]:
    """Round numbers between two values, about ``n``, and their text."""
    raw = (high - low) / n
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(base * m for m in (1, 2, 5, 10) if base * m >= raw * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    found = []
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        at = i * step
        text = f"{at:.{digits}f}" if 1e-4 < step < 1e5 else f"{at:.2g}"
        found.append((at, text.replace("-", "\u2212")))
    return found


def width_of(text: str, size: float = 12) -> float:
    """Pixels that a text needs, nearly."""
    return sum(1.0 if unicodedata.east_asian_width(one) in "WF" else 0.58 for one in text) * size


def shorten(text: str, width: float, size: float = 12) -> str:
    """A text that fits; its middle is left out where it is too long, for ends tell names apart too."""
    text = plain(text)
    if width_of(text, size) <= width:
        return text
    keep = len(text)
    while keep > 2:
        keep -= 1
        short = f"{text[: (keep + 1) // 2]}\u2026{text[len(text) - keep // 2 :]}"
        if width_of(short, size) <= width:
            return short
    return "\u2026"


def label(
    x: float, y: float, text: str, *, anchor: str = "start", css: str = "", width: float | None = None, size: float = 12
) -> str:
    """A line of text; with ``width`` it is shortened to fit, and shows its whole self on hovering."""
    shown = text if width is None else shorten(text, width, size)
    full = f"<title>{as_html(text)}</title>" if shown != text else ""
    style = f' class="{css}"' if css else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{n1(x)}" y="{n1(y)}"{place}{style}>{as_html(shown)}{full}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<path class="{css}" d="M{n1(x1)} {n1(y1)}L{n1(x2)} {n1(y2)}"/>'


def path(points: Sequence[tuple[float, float] | None], css: str) -> str:
    """A line through points; None interrupts it."""
    parts, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        parts.append(f"{pen}{n1(point[0])} {n1(point[1])}")
        pen = "L"
    return f'<path class="{css}" d="{"".join(parts)}"/>' if parts else ""


def whisker(axis: Axis, y: float, low: float | None, high: float | None, css: str) -> str:
    """A horizontal interval with ends; an arrow head where it leaves the axis."""
    if low is None or high is None:
        return ""
    x1, x2 = axis(low), axis(high)
    ends = []
    for x, out in ((x1, axis.cuts(low) < 0), (x2, axis.cuts(high) > 0)):
        back = 5 if x == x1 else -5
        ends.append(f"M{n1(x + back)} {n1(y - 4)}L{n1(x)} {n1(y)}L{n1(x + back)} {n1(y + 4)}" if out
                    else f"M{n1(x)} {n1(y - 3.5)}V{n1(y + 3.5)}")  # fmt: skip
    return f'<path class="{css}" d="M{n1(x1)} {n1(y)}H{n1(x2)}{"".join(ends)}"/>'


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot area with two axes."""

    x: Axis
    y: Axis
    """Its start is at the bottom."""

    def axes(self, x_title: str, y_title: str, n_x: int = 4, n_y: int = 4) -> str:
        """Grid lines, ticks and titles."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        parts = []
        for value, text in ticks(self.x.low, self.x.high, n_x):
            parts += [line(self.x(value), bottom, self.x(value), top, "grid"),
                      label(self.x(value), bottom + 15, text, anchor="middle", css="tick")]  # fmt: skip
        for value, text in ticks(self.y.low, self.y.high, n_y):
            parts += [line(left, self.y(value), right, self.y(value), "grid"),
                      label(left - 5, self.y(value) + 4, text, anchor="end", css="tick")]  # fmt: skip
        parts.append(label((left + right) / 2, bottom + 31, x_title, anchor="middle", css="axis"))
        middle = (bottom + top) / 2
        parts.append(
            f'<text class="axis" text-anchor="middle" transform="translate({n1(left - 36)} {n1(middle)}) '
            f'rotate(-90)">{as_html(y_title)}</text>'
        )
        return "".join(parts)


def figure(width: float, height: float, title: str, description: str, body: Iterable[str]) -> str:
    """A whole picture with words for those who do not see it."""
    inner = "\n".join(part for part in body if part)
    return (
        f'<svg viewBox="0 0 {n1(width)} {n1(height)}" width="{n1(width)}" height="{n1(height)}" role="img" '
        f'aria-label="{as_html(f"{title}. {description}")}" xmlns="http://www.w3.org/2000/svg">\n{inner}\n</svg>'
    )
