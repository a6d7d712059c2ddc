"""The files of a store in an object store, through obstore.

Credentials and the address of the server come from the environment of each process (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ...); objects here know the URL only, so none can travel in a pickle or an attribute. Each object
is sent in one piece, so that no incomplete multipart upload can be left behind.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from embedcache.errors import CacheError, InvalidSettingError
from embedcache.place import ObjectUrl
from embedcache.store.answers import ENDPOINTS, server_address, what_went_wrong, when_answered
from embedcache.store.status import FileStatus

__all__ = ["ObjectFiles"]

P = ParamSpec("P")
T = TypeVar("T")
REQUESTS_AT_ONCE = 16
MOST_RETRIES = 6
"""Before the first answer: about a second, in which a wrong address shows."""
OUTAGE_SECONDS = 180
"""How long a server that has answered before may be gone."""
_answered: set[tuple[str, str]] = set()
"""Servers and buckets that have answered this process."""
_first_process: list[int] = []
"""Where this process or one that it was forked from first used obstore, whose threads all clients share."""


class ObjectFiles:
    """See ``Files``; raises CacheError where the object store does not answer as it should."""

    def __init__(self, place: ObjectUrl) -> None:
        self.place = place
        self._next_shard = 0

    def __reduce__(self) -> tuple[type["ObjectFiles"], tuple[ObjectUrl]]:
        return ObjectFiles, (self.place,)  # the client stays: it knows credentials

    @property
    def _client(self) -> Any:
        return self._patient if self._server in _answered else self._hasty

    @cached_property
    def _server(self) -> tuple[str, str]:
        return server_address(), urlsplit(self.place.url).netloc

    @cached_property
    def _hasty(self) -> Any:
        return self._open({"max_retries": MOST_RETRIES, "retry_timeout": timedelta(seconds=60)})

    @cached_property
    def _patient(self) -> Any:
        slower = {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10), "base": 2}
        outage = timedelta(seconds=OUTAGE_SECONDS)
        return self._open({"max_retries": 10 * OUTAGE_SECONDS, "retry_timeout": outage, "backoff": slower})

    def _open(self, patience: Any) -> Any:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise InvalidSettingError(
                f"{self.place} needs obstore, which is not installed. Run `pip install 'isoheads[s3]'`."
            ) from error
        self.check_process()
        options: Any = {"timeout": "600s", "connect_timeout": "10s"}  # a shard may take minutes on a slow line
        if is_http := os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1"):
            options["allow_http"] = True  # options given here hide those of the environment
        _check_endpoints(is_http)
        _check_profile()
        try:
            return from_url(str(self.place), client_options=options, retry_config=patience)
        except (BaseError, ValueError) as error:
            raise CacheError(f"{self.place}: {what_went_wrong(error, self.place)}") from None

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One request; what goes wrong is told in one line without addresses or keys that the server repeats."""
        from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

        self.check_process()
        try:
            found = when_answered(partial(function, *args, **kwargs), self.place)
        except AlreadyExistsError:
            _answered.add(self._server)
            raise
        except (FileNotFoundError, NotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise CacheError(f"{self.place}: {what_went_wrong(error, self.place)}") from None
            _answered.add(self._server)
            raise FileNotFoundError(f"{self.place} has no such object") from None
        except (BaseError, PermissionError, ValueError) as error:
            raise CacheError(f"{self.place}: {what_went_wrong(error, self.place)}") from None
        _answered.add(self._server)
        return found

    def check_process(self) -> None:
        """Raise CacheError in a process that was forked: it has no part in the threads of the client."""
        _first_process[:] = _first_process or [os.getpid()]
        if os.getpid() not in _first_process:
            raise CacheError(
                f"{self.place}: an object store was used before this process was forked, and network threads cannot be "
                "shared. Use spawned workers: DataLoader(..., multiprocessing_context='spawn')."
            )

    def read(self, name: str) -> bytes:  # noqa: D102
        data: bytes = self._call(lambda: self._client.get(name).bytes().to_bytes())
        return data

    def read_array(self, name: str) -> NDArray[np.uint8]:  # noqa: D102
        return np.frombuffer(self.read(name), np.uint8)

    def read_range(self, name: str, start: int, size: int) -> Any:
        """Bytes of a part of an object, as a buffer; fewer than ``size`` where the object ends before."""
        try:
            return self._call(self._client.get_range, name, start=start, length=size)
        except CacheError as error:
            if "416 Range Not Satisfiable" in str(error):  # the object ends before the first byte
                return b""
            raise

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:  # noqa: D102
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            yield from pool.map(self.read, names)

    def exists(self, name: str) -> bool:  # noqa: D102
        try:
            self._call(self._client.head, name)
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:  # noqa: D102
        found: Any = self._call(self._client.list_with_delimiter, f"{folder}/" if folder else None)
        paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def statuses(self, folder: str) -> dict[str, FileStatus]:  # noqa: D102
        return self._call(lambda: dict(self._list(folder)))

    def _list(self, folder: str) -> Iterator[tuple[str, FileStatus]]:
        for batch in self._client.list(f"{folder}/" if folder else None):
            for item in batch:
                tag = str(item["e_tag"]) + str(item["last_modified"])
                yield item["path"], FileStatus(item["size"], item["last_modified"].timestamp(), tag)

    def temporaries(self) -> dict[str, FileStatus]:
        """None: an object appears whole or not at all."""
        return {}

    def create(self, name: str, parts: Iterable[Any], *, lasting: bool = True, after: Iterable[str] = ()) -> bool:
        """See ``Files``. False may also mean that our own write was made and its answer lost."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._call(self._client.put, name, b"".join(parts), mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def replace(self, name: str, parts: Iterable[Any], *, lasting: bool = True) -> None:  # noqa: D102
        self._call(self._client.put, name, b"".join(parts), use_multipart=False)

    def remove(self, names: Iterable[str]) -> None:  # noqa: D102
        if paths := list(names):
            self._call(self._client.delete, paths)

    def claim_shard(self) -> int:
        """Creates ``claims/shards/<k>``, which stays for ever."""
        claimed = [int(name) for name in self.names("claims/shards") if name.isdigit()]
        number = max(self._next_shard, max(claimed, default=-1) + 1)
        while not self.create(f"claims/shards/{number}", [str(time.time()).encode()]):
            number += 1
        self._next_shard = number + 1
        return number

    def make_folders(self, names: Iterable[str]) -> None:
        """Nothing to do: a folder is a part of a name."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """No lock: an older index may replace a newer one, and is then seen to be behind."""
        return nullcontext()


def _check_endpoints(is_http: bool) -> None:
    """Refuse an address of a server that obstore panics at or cannot reach; never repeated, it may hold a password."""
    for name in ENDPOINTS:
        parts = urlsplit(os.environ.get(name, "https://there.is.none"))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidSettingError(
                f"{name} in the environment is no address of a server. Write it as https://host or https://host:port."
            )
        if parts.scheme == "http" and not is_http:
            raise InvalidSettingError(
                f"{name} in the environment begins with http://, which anybody on the way can read. Use https://, or "
                "set AWS_ALLOW_HTTP=true if that is meant."
            )


def _check_profile() -> None:
    """Refuse a profile: obstore would pass over it and ask this machine for a role."""
    if os.environ.get("AWS_PROFILE") and not os.environ.get("AWS_ACCESS_KEY_ID"):
        raise InvalidSettingError(
            "AWS_PROFILE in the environment names a profile, which is not read here. Put its keys into the environment "
            '(eval "$(aws configure export-credentials --format env)"), or unset AWS_PROFILE.'
        )
