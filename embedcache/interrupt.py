"""Ending long work cleanly: Ctrl-C and SIGTERM set a flag, the work stops at its next safe point."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from embedcache.errors import EmbedCacheError

__all__ = ["StopFlag", "StoppedError", "stop_at_once", "stop_requests"]


class StoppedError(EmbedCacheError):
    """Long work was asked to stop and did, with everything finished so far kept.

    Attributes:
        signal_number: Of the signal that asked; the command exits with 128 + this number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopFlag:
    """Tells whether, and by which signal, the work was asked to stop. False until then."""

    signal_number = 0

    def __bool__(self) -> bool:
        return self.signal_number != 0

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a request to stop."""
        until = time.monotonic() + seconds
        while not self and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def check(self, message: str) -> None:
        """Raise ``StoppedError`` with this message if a stop was asked for."""
        if self:
            raise StoppedError(message, self.signal_number)


_flags: list[StopFlag] = []
"""Of the blocks of ``stop_requests`` that this process is in."""


@contextmanager
def stop_requests() -> Iterator[StopFlag]:
    """Within this block the first SIGINT or SIGTERM sets the flag; a second one acts as it always does.

    Outside the main thread signals cannot be caught, and the flag stays false.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        flag.signal_number = number
        signal.signal(number, earlier[signal.Signals(number)])

    for number in earlier:
        signal.signal(number, ask)
    _flags.append(flag)
    try:
        yield flag
    finally:
        _flags.remove(flag)
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def stop_at_once(message: str, *, once: bool = False) -> Iterator[None]:
    """Within this block the first SIGINT or SIGTERM raises ``StoppedError``, so that clean-up runs.

    For work that is lost when it stops. A second signal acts as it always does; outside the main thread all do.

    Args:
        message: Of the error.
        once: Ignore signals while a ``stop_requests`` within this block has its flag set. Launchers tell every process
            of a group, and a parent tells its children again: that is no second request.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: FrameType | None) -> None:
        if once and any(_flags):
            return
        signal.signal(number, earlier[signal.Signals(number)])
        raise StoppedError(message, number)

    for number in earlier:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
