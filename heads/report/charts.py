"""Pictures of data and training: predicted against measured, calibration, learning curves, expression by tissue."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low

import numpy as np

from heads.report.content import Arm, Calibration, Curve, Density, Spread
from heads.report.svg import Axis, Frame, figure, label, line, n1, path, ticks
from heads.report.words import number

__all__ = ["LEVELS", "against_measured", "expression", "learning_curves"]

LEVELS = 8
_MOST_POINTS = 80


def against_measured(arm: Arm) -> str:
    """Squares coloured by count, the line of equality, binned means; empty if neither is known."""
    density, calibration = arm.density, arm.calibration
    if density is None and (calibration is None or not calibration.bins):
        return ""
    width, height = 380, 400
    if density:
        low, high = density.low, density.high
    else:
        assert calibration is not None
        values = [x for one in calibration.bins for x in (one.predicted, one.measured)]
        around = Axis.around(values, 0, 1)
        low, high = around.low, around.high
    frame = Frame(Axis(low, high, 50, 350), Axis(low, high, 324, 24))
    body = [label(0, 13, arm.name, css="title", width=width, size=14), frame.axes("predicted (z)", "measured (z)")]
    if density:
        body.append(_squares(density, frame))
    body.append(line(frame.x(low), frame.y(low), frame.x(high), frame.y(high), "equal"))
    words = []
    if calibration:
        body += _calibration(calibration, frame)
        if calibration.slope is not None:
            words.append(f"slope {number(calibration.slope)}, intercept {number(calibration.intercept, '+')}")
    if density:
        out = f", {density.n_outside:,} outside" if density.n_outside else ""
        words.append(f"{density.n_cells:,} cells{out}; {density.source}")
    body += [label(50, 372 + 15 * i, text, css="small", width=width - 50, size=11) for i, text in enumerate(words)]
    return figure(width, height, f"Predicted against measured values of {arm.name}", "; ".join(words), body)


def _squares(density: Density, frame: Frame) -> str:
    """One path a level of the logarithm of the count, neighbours of a level in one stroke: small, and drawn fast."""
    counts = density.counts
    across, most = len(counts), max(int(counts.max()), 2)
    levels = np.minimum((np.log(np.maximum(counts, 1)) / np.log(most) * LEVELS).astype(int), LEVELS - 1)
    levels[counts == 0] = -1
    strokes: dict[int, list[str]] = {}
    for row, line_levels in enumerate(levels):
        starts = [0, *(np.flatnonzero(np.diff(line_levels)) + 1).tolist(), across]
        for start, end in pairwise(starts):
            strokes.setdefault(int(line_levels[start]), []).append(f"M{start} {row}h{end - start}")
    paths = [f'<path class="d{level}" d="{"".join(strokes[level])}"/>' for level in range(LEVELS) if level in strokes]
    scale = (frame.x.end - frame.x.start) / across
    # half a square up: strokes lie around the middle of a row
    place = f"translate({n1(frame.x.start)} {frame.y.start - scale / 2:.2f}) scale({scale:.4f} {-scale:.4f})"
    return f'<g class="squares" transform="{place}">{"".join(paths)}</g>'


def _calibration(calibration: Calibration, frame: Frame) -> list[str]:
    inside = [b for b in calibration.bins if not frame.x.cuts(b.predicted) and not frame.y.cuts(b.measured)]
    points = [(frame.x(one.predicted), frame.y(one.measured)) for one in inside]
    parts = [path(points, "means")]
    return parts + [f'<circle class="mean" cx="{n1(x)}" cy="{n1(y)}" r="3"/>' for x, y in points]


def learning_curves(arm: Arm) -> str:
    """Training and validation loss of every training of an arm, by epoch; empty without any."""
    if not arm.curves:
        return ""
    width, height = 380, 288
    losses = [x for curve in arm.curves for x in (*curve.train_loss, *curve.validation_loss) if x is not None]
    epochs = max(len(curve.validation_loss) for curve in arm.curves)
    # a first epoch may be far above all others
    most = 3 * median_low(losses) if losses else 1.0
    frame = Frame(Axis(1, max(epochs, 2), 50, 366), Axis.around(losses, 226, 24, most=max(most, 1e-9)))
    body = [label(0, 13, arm.name, css="title", width=width, size=14), frame.axes("epoch", "loss (z)")]
    for css, name in (("train", "train_loss"), ("arm", "validation_loss")):
        body += [path(_points(getattr(curve, name), frame), f"{css} curve") for curve in arm.curves]
    for curve in arm.curves:
        best = curve.best_epoch
        if best is not None:
            loss = curve.validation_loss[best - 1]
            assert loss is not None
            body.append(f'<circle class="arm dot" cx="{n1(frame.x(best))}" cy="{n1(frame.y(loss))}" r="3"/>')
    words = _kept(arm.curves)
    body.append(label(50, 282, words, css="small", width=width - 50, size=11))
    return figure(width, height, f"Learning curves of {arm.name}", words, body)


def _points(losses: Sequence[float | None], frame: Frame) -> list[tuple[float, float] | None]:
    """At most ``_MOST_POINTS``, the last one among them."""
    step = max(1, -(-len(losses) // _MOST_POINTS))
    chosen = sorted({*range(0, len(losses), step), len(losses) - 1} if losses else set())
    return [None if (loss := losses[i]) is None else (frame.x(i + 1), frame.y(loss)) for i in chosen]


def _kept(curves: Sequence[Curve]) -> str:
    best = [curve.best_epoch for curve in curves if curve.best_epoch is not None]
    if not best:
        return "no epoch with a finite loss"
    span = f"{min(best)}" if min(best) == max(best) else f"{min(best)} to {max(best)}"
    return f"{len(curves)} training{'' if len(curves) == 1 else 's'}; kept epoch {span}"


def expression(spreads: Sequence[Spread], unit: str) -> str:
    """Mean and standard deviation of the measured training rows in each tissue; empty without any."""
    if not spreads:
        return ""
    left, right, width, top, row = 168, 520, 640, 24, 18
    ends = [x for s in spreads for x in (s.mean, s.mean - s.sd, s.mean + s.sd)]
    axis = Axis.around(ends, left, right)
    bottom = top + len(spreads) * row
    body = [
        label(0, 13, f"Expression of the training rows: mean and one sd, {unit}", css="title", width=width, size=14)
    ]
    for value, text in ticks(axis.low, axis.high, 6):
        body += [line(axis(value), top, axis(value), bottom, "zero" if abs(value) < 1e-12 else "grid"),
                 label(axis(value), bottom + 14, text, anchor="middle", css="tick")]  # fmt: skip
    for i, spread in enumerate(spreads):
        y = top + (i + 0.5) * row
        sd = 0.0 if spread.constant else spread.sd
        body.append(label(left - 8, y + 4, spread.tissue, anchor="end", css="small", width=left - 10, size=11))
        body.append(line(axis(spread.mean - sd), y, axis(spread.mean + sd), y, "arm spread"))
        body.append(f'<circle class="arm dot" cx="{n1(axis(spread.mean))}" cy="{n1(y)}" r="4"/>')
        text = f"{number(spread.mean)} \u00b1 {number(sd)}" + (" constant" if spread.constant else "")
        body.append(label(right + 8, y + 4, text, css="small number"))
    spoken = "; ".join(f"{s.tissue} {number(s.mean)} plus or minus {number(s.sd)}" for s in spreads)
    return figure(width, bottom + 20, f"Mean and standard deviation of expression by tissue, {unit}", spoken, body)
