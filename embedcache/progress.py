"""Showing how far long work has come: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import ClassVar

from tqdm import tqdm

__all__ = ["Progress"]

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts units (tokens, lines) towards a total on standard error, with the rate and the time left."""

    hidden: ClassVar[bool] = False
    """Set in a process whose progress another one shows."""

    def __init__(self, total: int, unit: str, title: str) -> None:
        self.total, self.unit, self.title, self.done = total, unit, title, 0
        self._bar = tqdm(total=total, unit=unit, unit_scale=True, desc=title, disable=self.hidden or None)
        self._started = self._told = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """Count units as done; zero only shows that the work goes on."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and not self.hidden and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            print(self._line(now), file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        line, rate = f"{self.title}: {self.done:,} of {self.total:,} {self.unit}", self.done / (now - self._started)
        # a worker may wait for others for long before its own first unit
        return f"{line}, {rate:,.0f} a second, {(self.total - self.done) / rate:,.0f} s left" if rate else line
