"""The encoders as a list for people and for scripts."""

from dataclasses import asdict
from typing import Any

from embedcache.encoders.cards import CARDS
from embedcache.encoders.plugins import load_plugins
from embedcache.sequences import Modality

__all__ = ["format_cards", "list_cards"]

_SHOWN = ("modalities", "width", "layers", "heads", "tokens", "max_tokens", "repository", "revision")
_TERMS = ("licence", "commercial", "citation")


def list_cards(modality: Modality | None = None) -> list[dict[str, Any]]:
    """The cards of all encoders, or of those that read a modality, as plain values."""
    load_plugins()
    cards = [card for card in CARDS.values() if modality is None or modality in card.modalities]
    names = ("name", *_SHOWN, *_TERMS)
    rows = [{name: value for name, value in asdict(card).items() if name in names} for card in cards]
    return [row | {"random": card.weights.startswith("seed:")} for row, card in zip(rows, cards, strict=True)]


def format_cards(cards: list[dict[str, Any]]) -> str:
    """A table: one row an encoder."""
    header = ("encoder", "modality", "width", "layers", "token", "limit", "weights", "licence", "commercial use")
    rows = [header, *(_row(card) for card in cards)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(card: dict[str, Any]) -> tuple[str, ...]:
    commercial = {True: "yes", False: "no", None: "unknown"}[card["commercial"]]
    return (
        card["name"],
        ",".join(card["modalities"]),
        str(card["width"]),
        str(card["layers"]),
        card["tokens"],
        f"{card['max_tokens']:,} tokens" if card["max_tokens"] else "none",
        "random, from a seed" if card["random"] else card["repository"],
        card["licence"],
        commercial,
    )
