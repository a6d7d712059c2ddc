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
    planted = any(arm.get("planted_r2") is not None for arm in table["arms"])
    rows = [_titles(table["reference"], planted)]
    for arm in table["arms"]:
        rows.append(_row(arm, compared, planted))
    notes = [
        "R2 and Spearman: mean over tissues; seed sd: spread of R2 over trainings; validation: R2 of the rows that "
        "early stopping saw",
    ]
    if planted:
        notes.append("planted R2: what the simulated study lets these modalities explain, of all its transcripts")
    if compared:
        notes.append("difference: paired by gene and seed; p of the bootstrap, and Holm's over all rows of the table")
    parts = [*head, "", format_table(rows), "", *notes]
    if any(arm["within_gene"]["r2"] is not None for arm in table["arms"]):
        parts += ["", *_isoforms(table["arms"])]
    return "\n".join(parts)


def _isoforms(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What DNA alone cannot know: isoforms of a gene against each other, and how that changes between tissues."""
    first = arms[0]
    used = first.get("differential")
    rows = [["isoforms of a gene", "R2", "Spearman", "Kendall"]]
    if used:
        rows[0] += ["usage between tissues", "direction", "top isoform", "switching genes"]
    for arm in arms:
        within, found = arm["within_gene"], arm.get("differential")
        row = [_name(arm), *(_number(within[name]) for name in ("r2", "spearman", "kendall"))]
        if used:
            names = ("pearson", "direction", "top_isoform", "switch_auroc")
            row += [_number(found[name]) if found else "" for name in names]
        rows.append(row)
    within = first["within_gene"]
    notes = [f"{within['n_transcripts']:,} transcripts of {within['n_genes']:,} genes with two or more isoforms"]
    if used:
        notes.append(
            f"usage: share of an isoform in its gene; {used['n_genes']:,} genes; correlation of its differences "
            "between tissues, share of them with the right sign (chance 0.5), most used isoform found (chance "
            f"{_number(used['top_isoform_chance'])}), switching genes told from others (AUROC, chance 0.5)"
        )
    return [format_table(rows), "", *notes]


def _titles(reference: str | None, planted: bool) -> list[str]:
    titles = ["", "parameters", *(["planted R2"] if planted else []), "R2 [95%]", "seed sd", "Spearman [95%]"]
    titles.append("validation R2")
    return titles if reference is None else [*titles, f"R2 - R2 of {reference} [95%]", "p", "Holm"]


def _row(arm: Mapping[str, Any], compared: bool, planted: bool) -> list[str]:
    validation, known = arm["validation"], arm.get("planted_r2")
    row = [
        _name(arm),
        "" if arm["parameters"] is None else f"{arm['parameters']:,}",
        *(["" if known is None else _number(known)] if planted else []),
        _interval(arm["r2"]),
        _number(arm["r2_seed_sd"]) if arm["kind"] == "arm" and arm["n_seeds"] > 1 else "",
        _interval(arm["spearman"]),
        _number(validation["r2"]) if validation else "",
    ]
    if not compared:
        return row
    difference = arm["difference"]
    if difference is None:
        return [*row, "", "", ""]
    r2 = difference["r2"]
    return [*row, _interval(r2, "+"), _small(r2["p"]), _small(r2["p_holm"])]


def _name(arm: Mapping[str, Any]) -> str:
    """Baselines stand in brackets."""
    return arm["name"] if arm["kind"] == "arm" else f"({arm['name']})"


def _interval(found: Mapping[str, float | None], sign: str = "") -> str:
    low, high = found["low"], found["high"]
    limits = "" if low is None or high is None else f" [{_number(low, sign)}, {_number(high, sign)}]"
    return f"{_number(found['estimate'], sign)}{limits}"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "undefined"
    return f"{value:{sign}.3f}" if abs(value) < 1000 else f"{value:{sign}.1e}"  # of an arm that diverged


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def _plural(unit: str) -> str:
    words: Sequence[tuple[str, str]] = (("similarity", "groups of like sequence"), ("gene", "genes"))
    return dict(words).get(unit, f"{unit} groups")
