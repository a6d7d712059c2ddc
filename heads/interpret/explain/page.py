"""The page of an explanation: one HTML file that loads nothing and runs nothing, in the style of reports."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from heads.interpret.explain.svg import CELL_STYLE
from heads.report.style import STYLE
from heads.report.words import as_html, plain

__all__ = ["MARK", "html_page", "html_rows"]

MARK = '<meta name="generator" content="isoheads explain">'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_rows(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of text."""
    head = "".join(f'<th scope="col">{as_html(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{as_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><caption>{as_html(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def html_page(
    title: str, lines: Sequence[str], labels: Sequence[str], sections: Mapping[str, str], about: Mapping[str, Any]
) -> str:
    """The whole page. Equal content gives equal bytes.

    Args:
        title: Plain text.
        lines: What was done, plain text.
        labels: Words that stand beside every result.
        sections: HTML by title.
        about: Where the numbers came from.
    """
    banner = f'<div class="banner" role="note"><p>{as_html("NOTE: " + "; ".join(labels))}</p></div>' if labels else ""
    beside = f'<p class="beside">{as_html("; ".join(labels))}</p>' if labels else ""
    told = "\n".join(as_html(plain(line)) for line in json.dumps(about, indent=1, ensure_ascii=False).split("\n"))
    body = "\n".join(
        f"<section><h2>{as_html(name)}</h2>\n{beside}\n{text}\n</section>" for name, text in sections.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{as_html(title)}</title>\n<style>{STYLE}{CELL_STYLE}</style></head>\n<body>\n<header>"
        f"<h1>{as_html(title)}</h1>\n{banner}\n{''.join(f'<p>{as_html(line)}</p>' for line in lines)}</header>\n"
        f"<main>\n{body}\n<section><h2>Provenance</h2><details><summary>Where the numbers came from</summary>"
        f"<pre>{told}</pre></details></section>\n</main>\n</body></html>\n"
    )
