"""Names and numbers as text, and their escapes for each format. Names come from users: nothing in them may act."""

import html
import re

from heads.report.content import Difference, Estimate

__all__ = [
    "NOTHING",
    "as_html",
    "as_latex",
    "as_markdown",
    "interval",
    "is_number",
    "number",
    "p_value",
    "plain",
    "typeset",
    "value",
]

NOTHING = "-"
"""Stands where a value is not known."""

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\char34}", "[": "{[}", "]": "{]}", "`": r"{\char18}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#!|~$&@]|:(?=//))")


def plain(text: str) -> str:
    """One printable line: line ends, control and direction characters become escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def as_html(text: str) -> str:
    """For an element or a quoted attribute."""
    return html.escape(plain(text), quote=True)


def as_markdown(text: str) -> str:
    """For a cell of a table or a line; a pipe, a tag or an emphasis in it is shown, not obeyed."""
    return _MARKDOWN.sub(r"\\\1", plain(text).strip()).replace("<", "&lt;").replace(">", "&gt;")


def as_latex(text: str) -> str:
    """For text mode."""
    return "".join(_LATEX.get(one, one) for one in plain(text)).replace("--", "-{}-")


def number(value: float | None, sign: str = "") -> str:
    """Three digits after the point, ``sign`` of ``+`` shows it always; very large numbers in short."""
    if value is None:
        return NOTHING
    return f"{value:{sign}.3f}" if abs(value) < 1000 else f"{value:{sign}.2e}"


def interval(found: Estimate | Difference | None, sign: str = "") -> str:
    """``0.412 [0.380, 0.441]``; without an interval, that there is none."""
    if found is None or found.estimate is None:
        return NOTHING
    if found.low is None or found.high is None:
        return f"{number(found.estimate, sign)} [no interval]"
    return f"{number(found.estimate, sign)} [{number(found.low, sign)}, {number(found.high, sign)}]"


def p_value(p: float | None) -> str:
    """With as many digits as it has meaning."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def value(found: object) -> str:
    """A setting as users write it."""
    if found is None:
        return "none"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, list | tuple):
        return ", ".join(value(one) for one in found)
    if isinstance(found, dict):
        return ", ".join(f"{name}={value(one)}" for name, one in found.items())
    return f"{found:g}" if isinstance(found, float) else str(found)


def is_number(cell: str) -> bool:
    """Whether a cell holds numbers of ours and no words."""
    return cell != NOTHING and not set(cell) - set("0123456789.,-+[] e<")


def typeset(cell: str) -> str:
    """A cell of numbers with real minus signs."""
    return cell.replace("-", "\u2212") if is_number(cell) else cell
