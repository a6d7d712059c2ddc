"""What the Tab key offers in a shell, as typer's completion asks for it."""

import os
import subprocess
import sys

import pytest


def offers(program: str, words: str) -> list[str]:
    """Completions of the last word in Bash."""
    given = words.split(" ")
    about = {f"_{program.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(given) - 1)}
    code = f"import sys, cli; sys.argv[0] = {program!r}; cli.{program}()"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env={**os.environ, **about}
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("embedcache bu", {"build"}),
        ("embedcache build --eng", {"--engine", "--engine-option"}),
        ("embedcache build --engine ", {"local", "ray", "slurm"}),
        ("heads explain ", {"mutagenesis", "gradients", "variant"}),
        ("heads train --mod", {"--modalities", "--modality-dropout"}),
    ],
)
def test_tab_completes_commands_options_and_values(words: str, wanted: set[str]) -> None:
    assert set(offers(words.split(" ", maxsplit=1)[0], words)) == wanted
