"""The table of a sweep as plain text. Imports nothing slow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heads.table import format_table

__all__ = ["format_sweep"]


def format_sweep(table: Mapping[str, Any], directory: Path | None = None) -> str:
    """What a reader must know to trust or doubt it, then arms and baselines side by side."""
    seeds, unit = table["seeds"], table["unit"]
    again = f"{table['resamples']:,} resamples of {table['n_groups']:,} {_plural(unit)}"
    again += f" x {len(seeds)} seeds" if len(seeds) > 1 else "; ONE seed: variation between trainings not included"
    head = [
        f"{table['name']}{f' in {directory}' if directory else ''}: {table['n_transcripts']:,} transcripts, "
        f"{len(table['tissues'])} tissues, {table['scored']}",
        f"95% intervals from {again}",
    ]
    if table["labels"]:
        head.append(f"NOTE: {'; '.join(table['labels'])}")
    head += [
        f"seeds {', '.join(map(str, lost))} of {name} diverged and are left out of its row"
        for name, lost in table["diverged"].items()
    ]
    compared = table["reference"] is not None
    rows = [_titles(table["reference"])]
    for arm in table["arms"]:
        rows.append(_row(arm, compared))
    notes = [
        "R2 and Spearman: mean over tissues; seed sd: spread of R2 over trainings; validation: R2 of the rows that "
        "early stopping saw",
    ]
    if compared:
        notes.append("difference: paired by gene and seed; p of the bootstrap, and Holm's over all rows of the table")
    return "\n".join([*head, "", format_table(rows), "", *notes])


def _titles(reference: str | None) -> list[str]:
    titles = ["", "parameters", "R2 [95%]", "seed sd", "Spearman [95%]", "within genes R2", "validation R2"]
    return titles if reference is None else [*titles, f"R2 - R2 of {reference} [95%]", "p", "Holm"]


def _row(arm: Mapping[str, Any], compared: bool) -> list[str]:
    name = arm["name"] if arm["kind"] == "arm" else f"({arm['name']})"
    validation = arm["validation"]
    row = [
        name,
        "" if arm["parameters"] is None else f"{arm['parameters']:,}",
        _interval(arm["r2"]),
        _number(arm["r2_seed_sd"]) if arm["kind"] == "arm" and arm["n_seeds"] > 1 else "",
        _interval(arm["spearman"]),
        _number(arm["within_gene"]["r2"]),
        _number(validation["r2"]) if validation else "",
    ]
    if not compared:
        return row
    difference = arm["difference"]
    if difference is None:
        return [*row, "", "", ""]
    r2 = difference["r2"]
    return [*row, _interval(r2, "+"), _small(r2["p"]), _small(r2["p_holm"])]


def _interval(found: Mapping[str, float | None], sign: str = "") -> str:
    low, high = found["low"], found["high"]
    limits = "" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{_number(found['estimate'], sign)}{limits}"


def _number(value: float | None, sign: str = "") -> str:
    return "undefined" if value is None else f"{value:{sign}.3f}"


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def _plural(unit: str) -> str:
    words: Sequence[tuple[str, str]] = (("similarity", "groups of like sequence"), ("gene", "genes"))
    return dict(words).get(unit, f"{unit} groups")
