"""Where the published files of an encoder are on this machine, and how they get here. Imports no ``torch``.

Nothing is fetched unasked. ``weights_place`` only looks at names of files in the hub cache; ``hub_snapshot`` gives the
directory to read, and fetches into the cache if the user said so (``--download``).
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from embedcache.encoders.cards import EncoderCard
from embedcache.errors import MissingDependencyError

__all__ = ["WEIGHT_FILES", "WeightsPlace", "fetch_command", "how_to_fetch", "hub_snapshot", "snapshot", "weights_place"]

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json")
State = Literal["random", "own", "bundled", "here", "incomplete", "missing"]


class WeightsPlace(NamedTuple):
    """What is known of the weights of an encoder without reading them."""

    state: State
    """``random``: drawn from a seed. ``own``: a plug-in brings them. ``bundled``: in this package. Else whether all
    published files are in the hub cache."""
    directory: str = ""
    """Where they are; empty if there is nothing."""
    revision: str = ""
    """Commit of that directory; empty where there is none."""


def weights_place(card: EncoderCard) -> WeightsPlace:
    """Look for the weights of an encoder on this machine, without the network and without reading them."""
    if card.weights:
        return WeightsPlace("random" if card.weights.startswith("seed:") else "own")
    if card.bundled:
        directory = Path(str(files(card.bundled))) / card.name
        return WeightsPlace("bundled" if _is_complete(directory) else "missing", str(directory))
    local = Path(card.repository)
    if local.is_absolute():  # of a model given as hf:DIRECTORY
        return WeightsPlace("here" if _is_complete(local) else "incomplete", card.repository)
    found = _cached(card.repository, card.revision) if card.repository else None
    if found is None:
        return WeightsPlace("missing")
    return WeightsPlace("here" if _is_complete(found) else "incomplete", str(found), found.name)


def fetch_command(card: EncoderCard) -> str:
    """The command that fetches the published files into the hub cache; empty if there are none."""
    if not card.repository:
        return ""
    return f"hf download {card.repository}" + (f" --revision {card.revision}" if card.revision else "")


def how_to_fetch(card: EncoderCard) -> str:
    """One sentence: what to do where the weights are missing."""
    if not card.repository:
        return "Give the directory with its files (--weights)."
    return (
        f"Run `{fetch_command(card)}`, or give the directory with its files (--weights), or let them be fetched "
        "(--download)."
    )


def hub_snapshot(card: EncoderCard, *, download: bool) -> Path:
    """The directory of the hub cache that holds the files of a card.

    Args:
        card: Names the repository, and the commit if it is known.
        download: Whether they may be fetched: safetensors, or where there are none, ``pytorch_model``.

    Raises:
        MissingDependencyError: They are not there, or cannot be fetched.
    """
    if not card.repository:
        raise MissingDependencyError(f"Encoder {card.name} has no published files. Give their directory (--weights).")
    found = snapshot(card, _PATTERNS, download=download)
    if download and not any((found / name).exists() for name in WEIGHT_FILES):
        found = snapshot(card, (*_PATTERNS, "pytorch_model*"), download=True)
    return found


def snapshot(card: EncoderCard, patterns: Sequence[str] | None, *, download: bool) -> Path:
    """Some files of a repository, all for None. Errors as in ``hub_snapshot``."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(
                card.repository,
                revision=card.revision or None,
                local_files_only=not download,
                allow_patterns=None if patterns is None else list(patterns),
            )
        )
    except LocalEntryNotFoundError as error:
        at = f" at {card.revision}" if card.revision else ""
        reason = "cannot be fetched: the hub does not answer, or HF_HUB_OFFLINE is set" if download else (
            "are not in the Hugging Face cache, and nothing is fetched unasked"
        )  # fmt: skip
        raise MissingDependencyError(
            f"Weights of {card.name} ({card.repository}{at}) {reason}. {how_to_fetch(card)}"
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MissingDependencyError(
            f"{card.repository} cannot be fetched: {reason}. Check the network, the name and the right to read it "
            "(`hf auth login`), or give the directory with its files (--weights)."
        ) from error


def _cached(repository: str, revision: str) -> Path | None:
    """Directory in the hub cache of a commit, a branch, or by default of the main branch."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    if not (root / "snapshots" / (revision or "main")).is_dir():
        try:
            revision = (root / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    found = root / "snapshots" / (revision or "main")
    return found if found.is_dir() else None


def _is_complete(directory: Path) -> bool:
    """Whether weights are there, all files of an index included."""
    name = next((name for name in WEIGHT_FILES if (directory / name).exists()), None)
    if name is None or not name.endswith(".index.json"):
        return name is not None
    try:
        parts = set(json.loads((directory / name).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return all((directory / str(part)).exists() for part in parts)
