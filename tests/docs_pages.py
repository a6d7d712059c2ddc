"""Reads the pages of the documentation: their blocks, links, anchors and commands. Nothing is run here."""

import importlib.util
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from embedcache.commands import app as embedcache_app
from heads.commands import app as heads_app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
APPS = {"embedcache": embedcache_app, "heads": heads_app}
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]*?) -->\n)?"
    r"^```(?P<language>[\w+-]*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None
    """Why it is not run; None if it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All pages of the site."""
    return sorted(path for path in DOCS.rglob("*.md") if "_hooks" not in path.parts)


def texts() -> list[Path]:
    """All pages, and the texts that stand in the root."""
    return [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return tuple(
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            title=found["title"],
            text=found["text"],
            reason=found["reason"],
        )
        for found in FENCE.finditer(text)
    )


def prose(page: Path) -> str:
    """A page without its blocks, and with what the build puts in."""
    text = page.read_text(encoding="utf-8")
    if (hook := command_hook()).MARK in text:
        text = hook.on_page_markdown(text)
    return FENCE.sub("", text)


@cache
def command_hook() -> ModuleType:
    """The hook of the build that writes the page of commands."""
    spec = importlib.util.spec_from_file_location("docs_commands_hook", DOCS / "_hooks" / "commands.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link to this page may name behind ``#``: its headings, as Python-Markdown and GitHub spell them."""
    text, found = prose(page), []
    for title in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        explicit = re.search(r"\{ *#([\w-]+) *\}$", title)
        slug = explicit[1] if explicit else slugify(title)
        found.append(slug if slug not in found else f"{slug}_{found.count(slug)}")
    return frozenset([*found, *re.findall(r"^::: ([\w.]+)", text, re.MULTILINE)])


def slugify(title: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def links(page: Path) -> list[str]:
    """Where the links of a page lead, outside its blocks; not those of other sites."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    found = re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text)
    return [link for link in found if not re.match("[a-z]+:", link)]


@dataclass(frozen=True)
class Call:
    """A command of ours in a block."""

    variables: tuple[tuple[str, str], ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


def lines(block: Block) -> list[str]:
    """Lines of a block of commands, those that end with a backslash joined."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.split("#")[0].strip()]


def call(line: str) -> Call | None:
    """What a line calls of ours, by itself or by way of a launcher; None for other programs."""
    words = shlex.split(line, comments=True)
    variables = []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        variables.append(tuple(words.pop(0).split("=", 1)))
    for at, word in enumerate(words):
        name = {"$(which heads)": "heads", "$(which embedcache)": "embedcache"}.get(word, word)
        if name in APPS and (at == 0 or words[0] in ("srun", "torchrun", "accelerate")):
            return Call(tuple(variables), (name, *words[at + 1 :]))
    return None


def calls(page: Path) -> Iterator[tuple[Block, Call]]:
    """Every call of ours on a page. Blocks without a language may also be pictures: only whole lines count there."""
    for block in blocks(page):
        if block.language in ("bash", "sh", "shell", "console", ""):
            for line in lines(block):
                starts = re.match(r"(?:[A-Z_]+=\S* )*(?:embedcache|heads|srun|torchrun) ", line)
                if (found := call(line) if starts else None) is not None:
                    yield block, found


def parse(words: Sequence[str]) -> tuple[str, Any]:
    """The command that words name and its context, with every value converted; raises what the command would."""
    name, rest, parent = words[0], list(words[1:]), None
    command = typer.main.get_command(APPS[name])
    while hasattr(command, "commands"):
        parent = command.context_class(command, info_name=name, parent=parent)
        assert rest and rest[0] in command.commands, f"there is no command {' '.join(words[:3])}"
        name, command = rest[0], command.commands[rest.pop(0)]
    path = f"{parent.command_path} {name}" if parent else name
    return path, command.make_context(name, rest, parent=parent, resilient_parsing=False)
