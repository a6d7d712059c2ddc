"""A model of Hugging Face that lies on this machine. Imports nothing slow."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedcache.encoders.hub_tokens import Spelling

__all__ = ["HubFiles"]


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """A model on this machine, and what was found out about it."""

    name: str
    directory: Path
    config: Any
    """Of transformers."""
    trust: bool
    """Whether code among the files may run."""
    attention: str
    """Kind of attention: ``sdpa`` where the class has it."""
    spelling: "Spelling"
