"""Where a cache lies: a directory of a local disk, or a URL of an object store."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from embedcache.errors import CacheError, InvalidSettingError

__all__ = ["ObjectUrl", "Place", "check_cache", "check_local", "parse_place"]

SCHEMES = ("s3",)
"""Object stores whose conditional writes were tested; obstore knows more."""


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """A place in an object store, such as ``s3://bucket/cache``; behaves like the few parts of a Path we need."""

    url: str

    def __truediv__(self, name: str) -> "ObjectUrl":
        return ObjectUrl(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def __lt__(self, other: "ObjectUrl") -> bool:
        return self.url < other.url

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectUrl":
        """The place that holds this one."""
        return ObjectUrl(self.url.rpartition("/")[0])


Place: TypeAlias = Path | ObjectUrl


def parse_place(text: str | Place) -> Place:
    """What a user wrote, as a place.

    Raises:
        InvalidSettingError: A URL of a kind that we do not know, without a bucket, or with a secret in it; one that
            lost a slash, which would become a folder named ``s3:``.
    """
    if isinstance(text, ObjectUrl):
        return text
    if isinstance(text, Path) or "://" not in text:
        if lost := re.match("([a-zA-Z][a-zA-Z0-9]+):/", str(text)):
            raise InvalidSettingError(
                f"the address of a cache begins with {lost[0]!r}, which is neither a directory nor an object store. "
                "Write it as s3://bucket/path, with two slashes and not as a Path."
            )
        return Path(text)
    parts = urlsplit(text)
    if "@" in parts.netloc or parts.query or parts.fragment:  # never repeated: it may hold a key
        raise InvalidSettingError(
            f"the {parts.scheme}:// address of a cache holds more than bucket and path. Give credentials in the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL), never in the address."
        )
    if parts.scheme == "file":
        return Path(parts.path)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise InvalidSettingError(f"{text!r} is no place for a cache. Give a directory, or s3://bucket/path.")
    return ObjectUrl(text.rstrip("/"))


def check_cache(cache: Place, mend: str | None = None) -> None:
    """Refuse a file where the root of a cache should be and, unless one may be made there, nothing at all.

    Args:
        cache: What was given.
        mend: What to do where nothing is, as a sentence; None where a cache is made then.

    Raises:
        CacheError: It is one of them.
    """
    if isinstance(cache, Path) and not cache.is_dir():
        if cache.exists():
            raise CacheError(f"{cache} is not a directory. Give the root of a cache (--cache).")
        if mend is not None:
            raise CacheError(f"{cache} does not exist. {mend}")


def check_local(path: Path) -> None:
    """Refuse an address that was taken for a path: it lost a slash, and would become a folder named ``s3:``.

    Raises:
        InvalidSettingError: It is one.
    """
    if re.match("[a-z][a-z0-9]+:/", str(path)):
        raise InvalidSettingError(
            f"{path} is no path of this machine, and only a cache can lie elsewhere. Give a path."
        )
