"""Texts that stand in many places: numbers, and what to do about a run. Imports nothing slow."""

from pathlib import Path

__all__ = ["how_again", "three"]


def three(value: float | None) -> str:
    """Three decimals; a score that is not defined says so."""
    return "undefined" if value is None else f"{value:.3f}"


def how_again(run: Path) -> str:
    """What trains a run again whose files cannot be used, as a sentence: its own command, or that of its sweep."""
    if (run.absolute().parent.parent / "sweep.json").is_file():
        return f"It is a run of a sweep: remove {run}, and the same `heads sweep` trains it again."
    return f"Remove {run} and give the command again that trained it."
