"""Numbers as text."""

__all__ = ["three"]


def three(value: float | None) -> str:
    """Three decimals; a score that is not defined says so."""
    return "undefined" if value is None else f"{value:.3f}"
