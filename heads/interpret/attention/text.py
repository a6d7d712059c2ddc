"""The table of what is notable in attention by region, as text and for a page."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heads.interpret.attention.findings import Analysis, AttentionFindings
from heads.report.tables import Table
from heads.report.words import NOTHING, number, p_value

__all__ = ["attention_text", "headline", "heads_table", "mean_known", "summary_table"]

_MOST_HEADS = 12


def attention_text(findings: AttentionFindings) -> str:
    """What ``heads attention`` prints: a row a comparison and region."""
    label = f" [{'; '.join(findings.labels)}]" if findings.labels else ""
    header = ("attention", "against", "region", "mass", "uniform", "more", "less", "furthest head")
    rows = [header, *(row for one in findings.analyses for row in _rows(one))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    numeric = range(3, 7)
    lines = [
        "  ".join(
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    heads = dict.fromkeys(f"{one.attention}: {headline(one)}" for one in findings.analyses)
    return "\n".join([f"{findings.subject}{label}", *heads, *lines, *(f"note: {note}" for note in findings.notes)])


def headline(one: Analysis) -> str:
    """How much a comparison rests on."""
    layers, heads, regions = one.tests.mass.shape
    transcripts, genes = int(one.tests.transcripts.max()), int(one.tests.genes.max())
    return (
        f"{_count(layers, one.layer_word)} x {_count(heads, 'head')} x {_count(regions, 'region')}, "
        f"{_count(transcripts, 'transcript')} of {_count(genes, 'gene')}"
    )


def summary_table(one: Analysis) -> Table:
    """A row a region of one comparison."""
    header = ("region", "mean mass", "mean uniform", "heads with more", "heads with less", "furthest head")
    return Table(header, (("", tuple(row[2:] for row in _rows(one))),))


def heads_table(one: Analysis) -> Table | None:
    """The heads that differ most, in units of the deviation between genes; None if none differs."""
    tests = one.tests
    size = np.where(tests.significant, np.abs(tests.effect_size), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:_MOST_HEADS]
    rows = []
    for flat in order:
        at = tuple(int(i) for i in np.unravel_index(int(flat), size.shape))
        if size[at] < 0:
            break
        layer, head, region = at
        numbers = [number(float(values[at])) for values in (tests.mass, tests.uniform)]
        signed = [number(float(values[at]), "+") for values in (tests.difference, tests.effect_size)]
        p_values = [p_value(float(values[at])) for values in (tests.p, tests.p_adjusted)]
        where = f"{one.layer_word} {layer + 1}, head {head + 1}"
        counts = [f"{int(values[at]):,}" for values in (tests.genes, tests.transcripts)]
        rows.append((where, tests.regions[region], *numbers, *signed, *p_values, *counts))
    header = ("head", "region", "mass", "uniform", "difference", "effect size", "p", "adjusted p", "genes",
              "transcripts")  # fmt: skip
    return Table(header, (("", tuple(rows)),)) if rows else None


def _rows(one: Analysis) -> Iterator[tuple[str, ...]]:
    """Cells of one comparison, a row a region."""
    tests = one.tests
    n_heads = tests.mass[..., 0].size
    more, less = (found.sum(axis=(0, 1)) for found in (one.more(), one.less()))
    for i, region in enumerate(tests.regions):
        tested = bool((~np.isnan(tests.p_adjusted[..., i])).any())
        yield (
            f"{one.attention} ({one.weights})",
            one.against,
            region,
            number(mean_known(tests.mass[..., i])),
            number(mean_known(tests.uniform[..., i])),
            *(f"{n} of {n_heads}" if tested else "not tested" for n in (int(more[i]), int(less[i]))),
            _furthest(one, i),
        )


def _furthest(one: Analysis, region: int) -> str:
    at = one.furthest(region)
    if at is None:
        return NOTHING
    tests, where = one.tests, (*at, region)
    return (
        f"{one.layer_word} {at[0] + 1} head {at[1] + 1}: {tests.difference[where]:+.3f}, "
        f"d {tests.effect_size[where]:+.1f}, adjusted p {p_value(float(tests.p_adjusted[where]))}"
    )


def mean_known(values: NDArray[np.float64]) -> float | None:
    """Mean of the numbers that are not NaN; None without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"
