"""Attention by region as pictures: a heat map of layers and heads for each region, on one page that opens offline."""

import json
from collections.abc import Callable

import numpy as np

from heads.interpret.attention.findings import Analysis, AttentionFindings
from heads.interpret.attention.regions import SPECIAL
from heads.interpret.attention.text import headline, heads_table, mean_known, summary_table
from heads.report.style import STYLE
from heads.report.svg import figure, label, n1
from heads.report.tables import html_table
from heads.report.words import as_html, number, p_value, plain

__all__ = ["MARK", "attention_page", "heat_map"]

MARK = '<meta name="generator" content="isoheads attention">'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STEPS = 4
"""Colours to each side of the middle one."""
_LIGHT = "--h0: #8c3b00; --h1: #c0692b; --h2: #e3a56f; --h3: #f5d9bf; --h4: #eef0f2; --h5: #c9dff1; --h6: #79aed8; \
--h7: #2f72b0; --h8: #0b3768;"
_DARK = "--h0: #ffc48d; --h1: #d08a4c; --h2: #8a5a30; --h3: #4a3220; --h4: #22272e; --h5: #1b3a57; --h6: #2c6a9c; \
--h7: #69a7d8; --h8: #d3e8fa;"
_OWN_STYLE = f"""
:root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
@media print {{ :root {{ {_LIGHT} }} }}
{" ".join(f".h{i} {{ fill: var(--h{i}); }}" for i in range(2 * _STEPS + 1))}
.unknown {{ fill: none; stroke: var(--grid); }}
.sure {{ fill: var(--ink); stroke: var(--ground); stroke-width: .8; }}
.maps {{ display: flex; flex-wrap: wrap; gap: 1.2rem 1.6rem; }}
"""


def attention_page(findings: AttentionFindings) -> str:
    """The whole page. Equal findings give equal bytes."""
    body = "\n".join(_section(i, one, findings) for i, one in enumerate(findings.analyses))
    said = json.dumps(findings.story, indent=1, ensure_ascii=False).split("\n")
    story = "\n".join(as_html(plain(line)) for line in said)
    title = f"Attention by region: {findings.subject}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{as_html(title)}</title>\n<style>{STYLE}{_OWN_STYLE}</style></head>\n<body>\n"
        f"{_head(title, findings)}\n<main>\n{body}\n"
        f'<section id="settings"><h2>Settings and provenance</h2>\n<pre>{story}</pre></section>\n'
        "</main>\n</body></html>\n"
    )


def _head(title: str, findings: AttentionFindings) -> str:
    parts = [f"<h1>{as_html(title)}</h1>"]
    if findings.labels:
        parts.append(f'<div class="banner" role="note"><p>NOTE: {as_html("; ".join(findings.labels))}</p></div>')
    words = (
        f"Mass: {findings.measure}. Uniform: the share of tokens in the region, which even attention would give. "
        "Tests: paired t-tests over genes, each the mean of its transcripts; p-values are corrected over all layers, "
        "heads and regions of a comparison (Benjamini-Hochberg). Effect size: the difference over its standard "
        "deviation between genes. Dots: adjusted p below 0.05."
    )
    parts.append(f"<p>{as_html(words)}</p>")
    parts += [f'<p class="soft">{as_html(note)}</p>' for note in findings.notes]
    return "<header>" + "\n".join(parts) + "</header>"


def _section(place: int, one: Analysis, findings: AttentionFindings) -> str:
    beside = f'<p class="beside">{as_html("; ".join(findings.labels))}</p>\n' if findings.labels else ""
    maps = "".join(f"<figure>{heat_map(one, i)}</figure>" for i in range(len(one.tests.regions)))
    tables = [html_table(summary_table(one), f"Means over all heads; {headline(one)}.", "results")]
    if (found := heads_table(one)) is not None:
        tables.append(html_table(found, "Heads that differ most for their deviation between genes", "results"))
    wide = "\n".join(f'<div class="wide">{table}</div>' for table in tables)
    return (
        f'<section id="comparison-{place + 1}"><h2>{as_html(one.title)}</h2>\n{beside}'
        f'<p class="soft">{as_html(_words(one))}</p>\n<div class="maps">{maps}</div>\n{wide}\n</section>'
    )


def _words(one: Analysis) -> str:
    what = "mass minus uniform" if one.against == "uniform" else "mass after minus mass before"
    shared = ", but that of special tokens" if SPECIAL in one.tests.regions else ""
    return (
        f"Colours: {what}, blue for more, brown for less; maps share one scale{shared}, and the largest twentieth of "
        f"the differences is cut off at its ends. {headline(one)}."
    )


def heat_map(one: Analysis, region: int) -> str:
    """Differences of every layer (first on top) and head on one region; hover over a cell for its numbers."""
    tests = one.tests
    n_layers, n_heads, _ = tests.mass.shape
    across, down = max(9.0, min(24.0, 330 / n_heads)), max(9.0, min(24.0, 460 / n_layers))
    left, top = 40.0, 42.0
    width = max(left + n_heads * across + 8, 216.0)
    bottom = top + n_layers * down
    scale = _scale(one, region)
    name = tests.regions[region]
    shares = (
        f"mass {number(mean_known(tests.mass[..., region]))}, uniform {number(mean_known(tests.uniform[..., region]))}"
    )
    body = [label(0, 13, name, css="title", width=width, size=14), label(0, 30, shares, css="small")]
    for layer in range(n_layers):
        y = top + layer * down
        for head in range(n_heads):
            body.append(_cell(one, (layer, head, region), scale, (left + head * across, y, across, down)))
    body += _numbers(n_layers, down, lambda at: (left - 6, top + at + 4), "end")
    body += _numbers(n_heads, across, lambda at: (left + at, bottom + 14), "middle")
    middle = (top + bottom) / 2
    body.append(
        f'<text class="axis" text-anchor="middle" transform="translate(10 {n1(middle)}) rotate(-90)">'
        f"{one.layer_word}</text>"
    )
    body.append(label(left + n_heads * across / 2, bottom + 29, "head", anchor="middle", css="axis"))
    body += _legend(left, bottom + 40, scale)
    counts = [int(found[..., region].sum()) for found in (one.more(), one.less())]
    spoken = f"{shares}; {counts[0]} heads with more, {counts[1]} with less, of {n_layers * n_heads}"
    return figure(width, bottom + 70, f"{one.title}, {name}", spoken, body)


def _cell(one: Analysis, at: tuple[int, int, int], scale: float, place: tuple[float, float, float, float]) -> str:
    tests, (x, y, width, height) = one.tests, place
    difference = float(tests.difference[at])
    box = f'x="{n1(x)}" y="{n1(y)}" width="{n1(width - 0.8)}" height="{n1(height - 0.8)}"'
    where = f"{one.layer_word} {at[0] + 1}, head {at[1] + 1}"
    if np.isnan(difference):
        return f'<rect class="unknown" {box}><title>{where}: not known</title></rect>'
    values = f"mass {number(float(tests.mass[at]))}, uniform {number(float(tests.uniform[at]))}"
    said = f"{where}: {values}, difference {number(difference, '+')}, adjusted p {_p(float(tests.p_adjusted[at]))}"
    step = _STEPS + round(max(-1.0, min(1.0, difference / scale)) * _STEPS)
    rect = f'<rect class="h{step}" {box}><title>{said}</title></rect>'
    if not tests.significant[at]:
        return rect
    return f'{rect}<circle class="sure" cx="{n1(x + width / 2 - 0.4)}" cy="{n1(y + height / 2 - 0.4)}" r="2.2"/>'


def _p(p: float) -> str:
    return p_value(None if np.isnan(p) else p).replace("<", "below ")


def _numbers(count: int, step: float, place: Callable[[float], tuple[float, float]], anchor: str) -> list[str]:
    """Every so many layers or heads its number, from 1."""
    every = next(n for n in (1, 2, 5, 10, 20, 50) if n * step >= 17)
    shown = [i for i in range(count) if i == 0 or (i + 1) % every == 0]
    return [label(*place((i + 0.5) * step), str(i + 1), anchor=anchor, css="tick") for i in shown]


def _legend(x: float, y: float, scale: float) -> list[str]:
    """The colours from less to more, and what they mean at the ends."""
    size = 18.0
    boxes = [
        f'<rect class="h{i}" x="{n1(x + i * size)}" y="{n1(y)}" width="{n1(size)}" height="9"/>'
        for i in range(2 * _STEPS + 1)
    ]
    right = x + (2 * _STEPS + 1) * size
    ends = ((x, f"\u2212{scale:.2g}", "start"), ((x + right) / 2, "0", "middle"), (right, f"+{scale:.2g}", "end"))
    return boxes + [label(at, y + 22, text, anchor=anchor, css="tick") for at, text, anchor in ends]


def _scale(one: Analysis, region: int) -> float:
    """The difference that nineteen of twenty do not reach, on any region; special tokens have a scale of their own."""
    is_special = np.array([name == SPECIAL for name in one.tests.regions])
    shown = one.tests.difference[..., is_special == is_special[region]]
    known = np.abs(shown[~np.isnan(shown)])
    return max(float(np.quantile(known, 0.95)), 1e-9) if len(known) else 1.0
