"""What can go wrong, as a tree. The commands print these as one line and exit with code 1.

EmbedCacheError
├── InvalidSequenceError   (also ValueError)   a letter, a record or a length that is not allowed
├── InvalidInputError      (also ValueError)   a file or a table that is not what it should be
│   └── InvalidSettingError                    a setting out of its range; wrong usage, exit code 2
├── UnknownNameError       (also LookupError)  an encoder, a tissue, a column that does not exist
├── MissingDependencyError (also ImportError)  an optional package or downloaded weights that are not here
├── SkippedError                               sequences that an encoder cannot embed; exit code 3
└── CacheError                                 a store on disk
    ├── CacheMismatchError                     built with other settings
    ├── CacheIncompleteError                   sequences that are not in it
    └── CacheDamagedError                      bytes that are not those of their record
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CacheDamagedError",
    "CacheError",
    "CacheIncompleteError",
    "CacheMismatchError",
    "EmbedCacheError",
    "InvalidInputError",
    "InvalidSequenceError",
    "InvalidSettingError",
    "MissingDependencyError",
    "SkippedError",
    "UnknownNameError",
]


_MOST_LETTERS = 2000


class EmbedCacheError(Exception):
    """Root of all errors that a user can cause and mend; its text is always one printable line.

    Names of files and cells of damaged tables stand in messages: line ends and bytes that a terminal would obey are
    written as escapes, and the middle of a very long text is left out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    if len(text) > _MOST_LETTERS:
        text = f"{text[: _MOST_LETTERS // 2 - 5]} ... {text[-_MOST_LETTERS // 2 :]}"
    return text


class InvalidSequenceError(EmbedCacheError, ValueError):
    """A sequence has a letter, a length or a form that is not allowed."""


class InvalidInputError(EmbedCacheError, ValueError):
    """An input file or a table is not what it should be."""


class InvalidSettingError(InvalidInputError):
    """A setting is out of its range, or does not go with another one; the commands exit with code 2."""


class UnknownNameError(EmbedCacheError, LookupError):
    """A name that is not in a closed list; offers the nearest one, or lists them all."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Choose from: {', '.join(known) or 'nothing'}."
        super().__init__(f"Unknown {kind} {name!r}. {hint}")


class SkippedError(EmbedCacheError):
    """Everything was embedded but some sequences that the encoder cannot take; the commands exit with code 3."""


class MissingDependencyError(EmbedCacheError, ImportError):
    """An optional package, or weights that must be downloaded first, are not on this machine."""


class CacheError(EmbedCacheError):
    """A store of embeddings cannot be used."""


class CacheMismatchError(CacheError):
    """A store was built with other settings than the ones asked for."""


class CacheIncompleteError(CacheError):
    """A store lacks sequences that are needed."""


class CacheDamagedError(CacheError):
    """Bytes on disk are not those that were committed."""
