"""Pages of the reference as data: their tables, their blocks of code, and what that code defines."""

import re
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


def read_page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or a higher one."""
    (found,) = re.findall(rf"^(#+) {re.escape(heading)}\n", page, re.MULTILINE)
    text = re.split(rf"^{found} {re.escape(heading)}\n", page, flags=re.MULTILINE)[1]
    return re.split(rf"^#{{1,{len(found)}}} ", _without_code(text), flags=re.MULTILINE)[0]


def _without_code(text: str) -> str:
    """The same text with nothing in its blocks: their comments are no headings."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def table(text: str, *titles: str) -> list[list[str]]:
    """Rows of the table whose first titles are these, cells without their backticks."""
    for lines in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in lines.splitlines()]
        if head[: len(titles)] == list(titles):
            return [[re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in row] for row in rows]
    raise AssertionError(f"no table {titles}")


def names(text: str, *titles: str) -> list[str]:
    """Every name in backticks in the first column of a table."""
    return [name for row in table(text, *titles) for name in re.findall(r"`([^`]+)`", row[0]) or [row[0]]]


def block(page: str, title: str) -> str:
    """A block of code by its title."""
    (found,) = re.findall(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    return str(found)


def run_python(name: str) -> SimpleNamespace:
    """What all Python of a page defines, run in its order."""
    found: dict[str, object] = {}
    for code in re.findall(r"^```python.*?\n(.*?)^```", read_page(name), re.MULTILINE | re.DOTALL):
        exec(compile(code, name, "exec"), found)  # our own text
    return SimpleNamespace(**found)
