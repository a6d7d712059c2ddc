"""Help as a newcomer sees it in a terminal of 80 columns: nothing is cut, and everything is explained."""

import pytest
import typer
from docs_pages import APPS
from typer.testing import CliRunner


def commands(name: str) -> list[tuple[str, ...]]:
    """Words of every command and group."""

    def walk(words: tuple[str, ...], group: object) -> list[tuple[str, ...]]:
        found = [words]
        for word, command in getattr(group, "commands", {}).items():
            found += walk((*words, word), command)
        return found

    return walk((name,), typer.main.get_command(APPS[name]))


@pytest.mark.parametrize("name", APPS)
def test_nothing_is_cut_at_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    for words in commands(name):
        shown = CliRunner().invoke(APPS[name], [*words[1:], "--help"]).output
        assert shown.startswith("Usage: "), words
        assert "…" not in shown, words
        assert [
            line for line in shown.splitlines() if line.endswith("...") and line[:2] == "  " and ", ..." not in line
        ] == []
        assert max(map(len, shown.splitlines())) <= 80, words
        command = typer.main.get_command(APPS[name])
        for word in words[1:]:
            command = command.commands[word]  # type: ignore[attr-defined]
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option in shown, (words, option)


@pytest.mark.parametrize("words", [("embedcache", "build", "--modality", "rn"), ("heads", "train", "--modalitis", "x")])
def test_wrong_usage_is_told_without_boxes(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(APPS[words[0]], words[1:])
    told = done.output + getattr(done, "stderr", "")
    assert done.exit_code == 2 and "Error: " in told and "│" not in told
