"""The encoders as a list and one by one, for people and for scripts."""

import re
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from embedcache.encoders.cards import CARDS, EncoderCard
from embedcache.encoders.fetching import fetch_command, weights_place
from embedcache.encoders.plugins import load_plugins
from embedcache.sequences import Modality

__all__ = ["describe_card", "format_card", "format_cards", "list_cards"]

_SHOWN = (
    *("name", "modalities", "width", "layers", "heads", "feed_forward", "tokens", "max_tokens", "trained_tokens"),
    *("adapter", "attention", "any_layer", "settings", "crops", "repository", "revision", "bundled", "package"),
    *("from_memory", "licence", "commercial", "citation"),
)
_COLUMNS = ("encoder", "width", "layers", "token", "limit", "licence", "comm.", "weights")
_YES_NO = {True: "yes", False: "no", None: "unknown"}
_LETTERS = {"letter": 1, "codon": 3, "nt-3mer": 3, "nt-6mer": 6}


def list_cards(modality: Modality | None = None) -> list[dict[str, Any]]:
    """The cards of all encoders, or of those that read a modality, as plain values."""
    load_plugins()
    return [describe_card(card) for card in CARDS.values() if modality is None or modality in card.modalities]


def describe_card(card: EncoderCard) -> dict[str, Any]:
    """A card as plain values, with what is known of its weights on this machine.

    ``state`` is that of ``fetching.WeightsPlace``; ``revision`` of the card is empty where no commit is known for
    sure: then the one in the hub cache is taken, and every store records it.
    """
    values, place = asdict(card), weights_place(card)
    found = {name: values[name] for name in _SHOWN}
    found |= {"modalities": list(card.modalities), "crops": {one: card.crops[one] for one in card.modalities}}
    found |= {"random": card.weights.startswith("seed:"), "letters_a_token": letters_a_token(card.tokens)}
    found["weights"] = {"state": place.state, "directory": place.directory, "revision": place.revision}
    found["fetch"] = fetch_command(card) if place.state in ("missing", "incomplete") else ""
    return found


def letters_a_token(rule: str) -> int:
    """Letters that an ordinary token of a rule covers."""
    return _LETTERS[rule] if rule in _LETTERS else int(rule.split("-")[1])


def format_cards(cards: list[dict[str, Any]]) -> str:
    """A table of at most 100 columns: one row an encoder, replicates of one in one row, by modality."""
    rows = _joined([_row(card) for card in cards])
    lines: list[str] = []
    for reads in dict.fromkeys(row[0] for row in rows):
        table = [_COLUMNS, *(row[1:] for row in rows if row[0] == reads)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        body = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in table]
        lines += [f"{reads}:", *body, ""]
    notes = [
        "limit: most tokens. comm.: whether the licence allows commercial use.",
        "weights: `embedcache encoders NAME` shows a card in full, and how to get what is missing.",
    ]
    if any("[" in row[1] for row in rows):
        notes.append("[0-3] stands for one of these numbers: each replicate is an encoder of its own.")
    return "\n".join([*lines, *notes])


def _joined(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Replicates that differ in their number alone become one row."""
    alike: dict[str, set[tuple[str, ...]]] = {}
    for row in rows:
        alike.setdefault(_family(row[1]), set()).add((row[0], *row[2:]))
    joined = [(row[0], _family(row[1]) if len(alike[_family(row[1])]) == 1 else row[1], *row[2:]) for row in rows]
    return list(dict.fromkeys(joined))


def _family(name: str) -> str:
    return re.sub(r"-replicate-[0-3](?!\d)", "-replicate-[0-3]", name)


def _row(card: dict[str, Any]) -> tuple[str, ...]:
    """Cells, the modalities first."""
    return (
        " and ".join(card["modalities"]),
        card["name"],
        str(card["width"]),
        str(card["layers"]),
        card["tokens"].partition("-center-")[0],  # how many are kept, the card in full says
        f"{card['max_tokens']:,}" if card["max_tokens"] else "none",
        card["licence"],
        _YES_NO[card["commercial"]],
        card["weights"]["state"],
    )


def format_card(card: dict[str, Any]) -> str:
    """One card in full, a line a fact, at most 100 columns where words allow."""
    about = " (from memory: the files decide)" if card["from_memory"] else ""
    facts = {
        "reads": " and ".join(card["modalities"]),
        "rows": f"{card['width'] or '?'} numbers a token, {_token_text(card)}",
        "network": f"{card['layers'] or '?'} layers, {card['heads'] or '?'} heads, "
        f"feed-forward {card['feed_forward'] or '?'}{about}",
        "settings": ", ".join(f"{name} {value}" for name, value in card["settings"].items()),
        "layers": "any: --layer 1 for the first, -1 for the last" if card["any_layer"] else "the last only",
        "limit": _limit_text(card),
        "longer input": _crop_text(card),
        "batches": {"packed": "packed, each sequence sees itself alone", "single": "one sequence at a time"}.get(
            card["attention"], "padded"
        ),
        "licence": f"{card['licence']}; commercial use: {_YES_NO[card['commercial']]}",
        "checkpoint": card["repository"] or card["bundled"] or "none",
        "revision": card["revision"]
        or ("the one in the hub cache; every store records it" if card["repository"] and not card["random"] else ""),
        "weights": _weights_text(card),
        "fetch": card["fetch"],
        "needs": f"pip install {card['package']}" if card["package"] else "",
        "cite": card["citation"],
    }
    lines = [card["name"]]
    for name, fact in facts.items():
        if fact:
            width = 84 if name != "fetch" else 1000  # a command stays in one piece
            first, *rest = wrap(fact, width, break_long_words=False, break_on_hyphens=False)
            lines += [f"  {name:<14}{first}", *(" " * 16 + one for one in rest)]
    return "\n".join(lines)


def _token_text(card: dict[str, Any]) -> str:
    letters = card["letters_a_token"]
    return f"token rule {card['tokens']}" + (f" ({letters} letters)" if letters > 1 else "")


def _limit_text(card: dict[str, Any]) -> str:
    limit = f"{card['max_tokens']:,} tokens" if card["max_tokens"] else "none"
    trained = f"; trained on up to {card['trained_tokens']:,}" if card["trained_tokens"] else ""
    letters = f" ({card['max_tokens'] * card['letters_a_token']:,} letters)" if card["max_tokens"] else ""
    return limit + letters + trained


def _crop_text(card: dict[str, Any]) -> str:
    if not card["max_tokens"]:
        return "embedded whole; --max-tokens sets a limit, with --crop"
    words = {"error": "refused", "windows": "overlapping windows", "center": "its centre kept"}
    words |= {"keep-3-prime": "its 3' end kept", "keep-5-prime": "its 5' end kept"}
    crops = card["crops"]
    said = {one: words[crops[one]] for one in card["modalities"]}
    return ", ".join(f"{one}: {what}" for one, what in said.items()) + "; --crop changes it"


def _weights_text(card: dict[str, Any]) -> str:
    place = card["weights"]
    at = f" in {place['directory']}" if place["directory"] else ""
    return {
        "random": "drawn from a seed: the numbers mean nothing beyond composition",
        "own": "the plug-in brings them",
        "bundled": "in this package",
        "here": f"on this machine{at}",
        "incomplete": f"files are missing{at}",
        "missing": "not on this machine; --weights DIRECTORY if they lie elsewhere, --download to fetch them",
    }[place["state"]]
