"""The documentation: links lead somewhere, commands parse, blocks run, and the site names all its pages."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docs_pages import DOCS, ROOT, Block, anchors, blocks, calls, command_hook, links, pages, parse, texts
from docs_study import make_study, run_page, runnable

from embedcache.encoders.registry import card
from heads.finetune.command import TUNING
from heads.finetune.config import FinetuneConfig
from heads.sweep.grid import read_grid
from heads.train_command import _settings

MARKED = [block for page in pages() for block in blocks(page) if block.reason is not None]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", texts(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{name_of(page)}: {link}"
        if page.is_relative_to(DOCS):
            assert target.is_relative_to(DOCS), f"{name_of(page)}: {link} leaves the site"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)}: {link}; there are {sorted(anchors(target))}"


@pytest.mark.parametrize("page", texts(), ids=name_of)
def test_every_command_parses(page: Path) -> None:
    files = {block.title for block in blocks(page)}
    for block, found in calls(page):
        try:
            path, context = parse(found.words)
        except Exception as error:
            raise AssertionError(f"{block}: {found}: {error}") from error
        values = context.params
        if path == "heads train":
            _settings(values, values["tissue_weight"] or [])
            if values["finetune"]:
                tuning = {field: values[name] for name, field in TUNING.items()}
                FinetuneConfig(modalities=tuple(values["finetune"].split(",")), **tuning)
        if path == "heads sweep" and (ROOT / values["grid"]).exists():
            read_grid(ROOT / values["grid"])
        elif path == "heads sweep":
            assert str(values["grid"]) in {*files, "grid.toml"}, f"{block}: {found}"
        if path in ("embedcache build", "embedcache estimate", "embedcache worker") and values["encoder"]:
            assert ":" in values["encoder"] or card(values["encoder"]), f"{block}: {found}"


def test_commands_are_found_at_all() -> None:
    assert len([found for page in texts() for found in calls(page)]) > 100


@pytest.mark.parametrize("block", MARKED, ids=lambda block: f"{block}, {block.reason}")
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    assert re.match("needs |downloads |takes ", block.reason or ""), f"{block}: say what it needs"
    if block.language == "python":
        compile(block.text, str(block), "exec")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_mark_stands_above_a_block(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("<!-- not run:") == sum(b.reason is not None for b in blocks(page))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small simulated study, which each page gets a copy of."""
    with pytest.MonkeyPatch.context() as patch:
        return make_study(tmp_path_factory.mktemp("docs") / "study", patch)


@pytest.mark.parametrize("page", [page for page in pages() if runnable(page)], ids=name_of)
def test_a_page_runs_from_top_to_bottom(
    page: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, study, tmp_path / "page", monkeypatch)


def test_the_site_names_every_page() -> None:
    def walk(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in walk(part)]  # type: ignore[attr-defined]

    named = walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(named) == len(set(named))
    assert set(named) == {str(page.relative_to(DOCS)) for page in pages()}


def test_every_page_begins_with_its_title() -> None:
    for page in pages():
        titles = re.findall("^# .+", re.sub("^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.M)
        assert len(titles) == 1 and page.read_text().startswith(titles[0]), name_of(page)


def test_the_page_of_commands_has_every_option() -> None:
    text = command_hook().commands_text()
    promised = (ROOT / "tests" / "golden" / "flags.txt").read_text().splitlines()
    sections = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    for command, _, option in (line.rpartition(" ") for line in promised):
        if option.startswith("-"):
            assert re.search(rf"^`(?:.*/)?{option}[ /`]", sections[command], re.MULTILINE), f"{command} {option}"
    empty = [line for line in re.findall("^:   (.*)", text, re.MULTILINE) if not re.match(r"\S.*\w", line)]
    assert not empty


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings"))),
    reason="needs the extra docs: pip install 'isoheads[docs]'",
)
def test_the_site_builds_and_needs_no_other_site(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        found = re.findall(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^\s>]+", page.read_text())
        assert not found, (page.name, found)
