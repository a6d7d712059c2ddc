"""What rounding has cost a whole store, from what the headers of its records say of their sequences."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["join_rounding"]

FIELDS = ("relative_l2", "cosine", "tokens")


def join_rounding(headers: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
    """Error of several records together, weighted by the tokens that were compared.

    Returns:
        ``relative_l2``, ``cosine``, ``tokens``; None if no record says anything, as those of float32.
    """
    said = [header.get("rounding") for header in headers]
    found = [one for one in said if isinstance(one, Mapping) and all(_is_number(one.get(name)) for name in FIELDS)]
    tokens = sum(one["tokens"] for one in found)
    if not tokens:
        return None
    return {
        "relative_l2": math.sqrt(sum(one["relative_l2"] ** 2 * one["tokens"] for one in found) / tokens),
        "cosine": sum(one["cosine"] * one["tokens"] for one in found) / tokens,
        "tokens": tokens,
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
