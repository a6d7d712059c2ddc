"""What a benchmark found, in one form: each script takes ``--json`` and prints it as its last line for ``run_all.py``.

    parser = argparse.ArgumentParser(...)
    add_json_option(parser)
    ...
    report([Result("writer over a raw sequential write", 0.96, bar=0.9, moonshot=0.95, better="higher")], options.json)

The table is printed always, the line of JSON with ``--json`` only.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Result", "add_json_option", "read_json", "report", "table"]


@dataclass(frozen=True, slots=True)
class Result:
    """One measured figure and what it is held against."""

    what: str
    """What was measured over what, with its unit if it is no ratio."""
    measured: float | None
    """None where it could not be measured; ``note`` says why."""
    bar: float | None = None
    """None for a figure that has no bar."""
    moonshot: float | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""
    """A few words: the spread, or why there is no figure."""

    def reaches(self, aim: float | None) -> bool:
        """Whether the figure is as good as an aim; False without one of the two."""
        if self.measured is None or aim is None:
            return False
        return self.measured >= aim if self.better == "higher" else self.measured <= aim

    @property
    def verdict(self) -> str:
        """``moonshot``, ``yes``, ``NO``, or nothing where there is no bar or no figure."""
        if self.bar is None or self.measured is None:
            return ""
        return "moonshot" if self.reaches(self.moonshot) else "yes" if self.reaches(self.bar) else "NO"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the results once more, as one line of JSON")


def report(results: Iterable[Result], as_json: bool) -> None:
    """Print the table, then with ``--json`` one line that ``read_json`` reads."""
    results = list(results)
    print(table(results))
    if as_json:
        print(json.dumps([asdict(result) for result in results]), flush=True)


def read_json(output: str) -> list[Result]:
    """Results of a script, from its last line.

    Raises:
        ValueError: The last line is not what ``report`` prints.
    """
    lines = output.strip().splitlines()
    try:
        return [Result(**found) for found in json.loads(lines[-1])]
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"the last line is no list of results: {lines[-1:]}") from error


def table(results: Iterable[Result], *, is_padded: bool = True, has_bars: bool = True) -> str:
    """Lines of ``what | bar | moonshot | measured | holds?`` as Markdown; padded ones are easier to read unrendered."""
    head = ["what", "bar", "moonshot", "measured", "holds?"]
    rows = [head, ["---"] * len(head)]
    for result in results:
        sign = ">= " if result.better == "higher" else "<= "
        aims = ["" if aim is None else sign + _text(aim) for aim in (result.bar, result.moonshot)]
        found = "not measured" if result.measured is None else _text(result.measured)
        measured = f"{found} ({result.note})" if result.note else found
        rows.append([result.what, *aims, measured, result.verdict])
    if not has_bars:
        rows = [[row[0], row[3]] for row in rows]
    widths = [max(len(row[i]) for row in rows) if is_padded else 0 for i in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def _text(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
