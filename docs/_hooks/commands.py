"""Writes the page of commands from the commands themselves, when the site is built; see ``mkdocs.yml``."""

import re
from collections.abc import Iterator
from typing import Any

import typer

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the commands where a page has the mark."""
    return markdown.replace(MARK, commands_text()) if MARK in markdown else markdown


def commands_text() -> str:
    """Every command as Markdown: what it does, how it is called, its options."""
    from embedcache.commands import app as embedcache_app
    from heads.commands import app as heads_app

    found = []
    for name, app in (("embedcache", embedcache_app), ("heads", heads_app)):
        group = typer.main.get_command(app)
        found.append(f"## {name}\n\n{_plain(group.help)}\n")
        found += [_section(path, command) for path, command in commands(name, group)]
    return "\n".join(found)


def commands(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command below a group, with the words that call it."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(f"{name} {word}", command)
        else:
            yield f"{name} {word}", command


def _section(path: str, command: Any) -> str:
    context = command.context_class(command, info_name=path)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = " ".join([path, *(_argument(one) for one in arguments), "[OPTIONS]"])
    items = [_item(_argument(one), one.get_help_record(context)[1]) for one in arguments]
    for option in options:
        name, text = option.get_help_record(context)
        items.append(_item(re.sub("<(.*)>", _value, name).replace(" / ", "/"), text))
    return "\n".join([f"### {path}", "", _plain(command.help), "", f"```text\n{usage}\n```", "", *items])


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _value(found: re.Match[str]) -> str:
    """Kind of a value as words of ours; choices as they are."""
    kind = found[1].removeprefix("list[").removesuffix("]").removesuffix(" range")
    return {"int": "N", "float": "X", "str": "TEXT", "path": "PATH"}.get(kind, kind)


def _item(name: str, text: str) -> str:
    """An item of a definition list, which is read well at any width; ends with what the help has in brackets."""
    text, _, notes = text.partition("  [")
    told = [_plain(text)]
    for note in notes.removesuffix("]").split("; ") if notes else []:
        kind, _, value = note.partition(": ")
        words = {"default": "Default", "env var": "Environment"}.get(kind)
        told.append(f"{words}: `{value}`." if words else _note(kind))
    return f"`{name}`\n:   {' '.join(told)}\n"


def _note(note: str) -> str:
    """A range as words; ``required`` as it is."""
    if least := re.fullmatch(r"x>=([\d.]+)", note):
        return f"At least {least[1]}."
    if both := re.fullmatch(r"([\d.]+)<=x<=([\d.]+)", note):
        return f"From {both[1]} to {both[2]}."
    return f"{note.capitalize()}."


def _plain(text: str | None) -> str:
    """Help as Markdown: one paragraph a paragraph, double backticks as single ones."""
    paragraphs = [" ".join(part.split()) for part in (text or "").split("\n\n")]
    return re.sub("``([^`]+)``", r"`\1`", "\n\n".join(paragraphs))
