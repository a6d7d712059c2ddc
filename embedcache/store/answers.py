"""Waiting for an object store: signals are seen meanwhile, long silence is told, and what went wrong is one line."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from embedcache.place import ObjectUrl

__all__ = ["ENDPOINTS", "server_address", "what_went_wrong", "when_answered"]

log = logging.getLogger(__name__)

T = TypeVar("T")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
SILENCE_SECONDS = 15.0
"""Without an answer for so long a line is logged."""
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


def when_answered(request: Callable[[], T], place: ObjectUrl) -> T:
    """What a request gives or raises.

    In the main thread it is made by another one: a thread that waits for the network runs no handler of signals, and a
    server that hangs would make Ctrl-C do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return request()
    found, errors, done = list[T](), list[BaseException](), threading.Event()

    def make() -> None:
        try:
            found.append(request())
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=make, daemon=True).start()  # one that hangs keeps no process alive
    asked, is_told = time.monotonic(), False
    while not done.wait(1.0):
        if not is_told and time.monotonic() - asked > SILENCE_SECONDS:
            log.warning("%s has not answered for %.0f seconds; waiting.", place, SILENCE_SECONDS)
            is_told = True
    if errors:
        raise errors[0]
    return found[0]


def what_went_wrong(error: BaseException, place: ObjectUrl) -> str:
    """What an object store answered, or that it did not, and what to do; without keys or addresses that it repeats."""
    text = str(error).strip()
    said = re.search(r"<Code>(\w+)</Code>", text)
    code = said[1] if said else ""
    if code == "NoSuchBucket":
        return f"there is no bucket {urlsplit(place.url).netloc!r}. Make it, or mend the address of the cache."
    if code in _REFUSED or "403 Forbidden" in text:
        return f"access is refused ({code or '403 Forbidden'}). Check {_credentials()}, and what they may do."
    again = "then run the same command again"
    if "error sending request" in text:
        has_keys = os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE")
        role = "" if has_keys else ", or no role is given to this machine (AWS_ACCESS_KEY_ID is not set)"
        return f"nobody answers at {server_address()}{role}. Check the network and that address, {again}."
    first = (text.splitlines() or [""])[0].partition(": <?xml")[0]
    words = [word for word in first.split() if "://" not in word and "Signature" not in word]
    short = f"{' '.join(words)[:200]}{', ' if code else ''}{code}"
    return (
        f"the object store refused or did not answer ({type(error).__name__}: {short}). Check the address, "
        f"AWS_ENDPOINT_URL and {_credentials()}, {again}."
    )


def _credentials() -> str:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "the credentials in the environment"
    return "the credentials (AWS_ACCESS_KEY_ID is not set, which is right only where this machine has a role)"


def server_address() -> str:
    """Where requests go, without the name and the password that may stand before it."""
    for name in ENDPOINTS:
        if address := os.environ.get(name):
            return f"{urlsplit(address).netloc.rpartition('@')[2]} ({name})"
    return "the servers of AWS (AWS_ENDPOINT_URL is not set)"
