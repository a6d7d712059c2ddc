"""What a listing of files tells, on a disk or in an object store."""

from dataclasses import dataclass

__all__ = ["FileStatus"]


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What a listing tells about a file."""

    size: int
    modified: float
    """Seconds since 1970 by the clock of the place."""
    tag: str
    """Changes whenever the file is written again, even if no clock runs."""
