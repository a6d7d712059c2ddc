"""Runs a page from top to bottom, in a directory of its own with a small simulated study in it."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from docs_pages import APPS, DOCS, ROOT, Block, Call, blocks, call, lines

from embedcache.encoders import registry
from embedcache.encoders.cards import CARDS
from heads.config import AGGREGATORS

STUDY = (
    "embedcache prepare simulate --n-genes 20 --isoforms-per-gene 2 --n-tissues 3 --dna-length 192",
    "embedcache build --modality dna",
    "embedcache build --modality rna",
    "embedcache build --modality protein",
    "heads train --modalities dna,rna,protein --heads 2 --width 16 --epochs 1",
)
SMALL = {
    ("prepare", "simulate"): {"--n-genes": 20, "--dna-length": 192, "--n-tissues": 3},
    ("estimate",): {"--trial-seconds": 0},
    ("train",): {"--epochs": 2},
    ("evaluate",): {"--resamples": 100},
    ("sweep",): {"--resamples": 100},
}
"""The most of what a command is given here, whether its page names the option or not: done in a second."""
SMALL_GRID = {"epochs": 2, "folds": 2, "seeds": 2}
"""The same of the grids that a page writes."""
FROM_NOTHING = ("index.md", "tutorial.md", "recipes/your-sequences.md")
"""Pages that make their study themselves."""
ELSEWHERE = ("reference/format.md", "reference/dataset.md", "reference/runs.md")
"""Pages whose blocks have tests of their own."""


def make_study(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study that the how-to pages work on."""
    directory.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(directory)
        for line in STUDY:
            run_call(Call((), tuple(shlex.split(line))), patch)
    return directory


def runnable(page: Path) -> list[Block]:
    """Blocks of a page that are run, or that are files of what is run."""
    if str(page.relative_to(DOCS)) in ELSEWHERE:
        return []
    return [one for one in blocks(page) if one.reason is None and (one.title or one.language in ("bash", "python"))]


def run_page(page: Path, study: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all blocks of a page that are not marked; titled ones are files."""
    if str(page.relative_to(DOCS)) in FROM_NOTHING:
        directory.mkdir()
    else:
        shutil.copytree(study, directory)
    (directory / "grids").symlink_to(ROOT / "grids")
    names: dict[str, Any] = {"__name__": "__main__"}
    with monkeypatch.context() as patch, modules_of(directory):
        patch.chdir(directory)
        patch.syspath_prepend(directory)
        for block in runnable(page):
            if block.title:
                (directory / block.title).write_text(small_file(block), encoding="utf-8")
            elif block.language == "python":
                exec(compile("\n" * block.line + block.text, str(page), "exec"), names)  # our own text
            else:
                run_block(block, patch)


def run_block(block: Block, patch: pytest.MonkeyPatch) -> None:
    """Run the commands of a block in this process."""
    for line in lines(block):
        found = call(line)
        assert found is not None, f"{block} runs another program ({line}): mark it <!-- not run: reason -->"
        with patch.context() as inner:
            for name, value in found.variables:
                if name != "PYTHONPATH":  # the directory of the page is on the path
                    inner.setenv(name, value)
            try:
                run_call(found, inner)
            except BaseException as error:
                error.add_note(f"{block}: {line}")
                raise


def run_call(found: Call, patch: pytest.MonkeyPatch) -> None:
    """Run one command in this process."""
    patch.setenv("TQDM_DISABLE", "1")
    command = typer.main.get_command(APPS[found.words[0]])
    code = command.main(args=small(found), prog_name=found.words[0], standalone_mode=False)
    assert not code, f"{found} ends with {code}"


def small(found: Call) -> list[str]:
    """Words of a call, with no option above what ``SMALL`` says."""
    words = list(found.words[1:])
    for start, options in SMALL.items():
        if tuple(words[: len(start)]) == start:
            for name, most in options.items():
                if name in words:
                    at = words.index(name) + 1
                    words[at] = str(min(float(words[at]), most)).removesuffix(".0")
                else:
                    words += [name, str(most)]
    return words


def small_file(block: Block) -> str:
    """A file that a page writes; of a grid, with no number above what ``SMALL_GRID`` says."""
    text = block.text
    for name, most in SMALL_GRID.items() if block.language == "toml" else ():
        text = re.sub(
            rf"^{name} = (\d+)", lambda n, name=name, most=most: f"{name} = {min(int(n[1]), most)}", text, flags=re.M
        )
    return text


@contextmanager
def modules_of(directory: Path) -> Iterator[None]:
    """Forget modules that come from a directory, and the aggregators and encoders that a page has added."""
    tables: tuple[dict[str, Any], ...] = (AGGREGATORS, CARDS, registry._LOADERS)
    known = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, before in zip(tables, known, strict=True):
            table.clear()
            table.update(before)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{directory}{os.sep}"):
                del sys.modules[name]
